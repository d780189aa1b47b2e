"""The compiled normaliser of the words against torch, at extreme outputs and odd sizes."""

import pytest
import torch
from each import each
from torch import nn

from bitseq.kernels.normaliser import linear_logsumexp
from bitseq.policies import forms


def layer_and_inputs(n_inputs, n_outputs, shape, scale=1.0):
    torch.manual_seed(4)
    layer = nn.Linear(n_inputs, n_outputs)
    with torch.no_grad():
        layer.bias.normal_()
    return layer, scale * torch.randn(*shape, n_inputs)


@each("coefficient", [1.0, 1.7])
@each("shape", [(1,), (16,), (5, 7), (0, 3), (3, 0)])
@each("n_inputs,n_outputs", [(64, 256), (8, 4), (5, 3), (1, 1)])
def test_it_is_its_twins(n_inputs, n_outputs, shape, coefficient):
    layer, inputs = layer_and_inputs(n_inputs, n_outputs, shape)
    found = linear_logsumexp(layer, inputs, coefficient)
    assert found.shape == shape and not found.requires_grad
    expected = forms.linear_logsumexp(layer, inputs, coefficient)
    assert not expected.requires_grad
    torch.testing.assert_close(expected, (layer(inputs) / coefficient).logsumexp(-1).detach())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_outputs_may_be_far_apart(scale):
    layer, inputs = layer_and_inputs(16, 8, (40,), scale)
    found, outputs = linear_logsumexp(layer, inputs, 1.0), layer(inputs).detach()
    assert outputs.abs().max() > 100  # its exponential is not a number of single precision
    torch.testing.assert_close(found, outputs.logsumexp(-1), rtol=1e-5, atol=1e-5)


def test_inputs_may_lie_with_gaps():
    layer, inputs = layer_and_inputs(6, 5, (4, 3))
    found = linear_logsumexp(layer, inputs[:, 1:], 1.0)
    torch.testing.assert_close(found, layer(inputs[:, 1:]).logsumexp(-1).detach())
