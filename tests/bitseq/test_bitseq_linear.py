"""The dense layer against torch's own, whichever of the two matrix libraries it takes."""

import pytest
import torch
from torch import nn

from bitseq import linear
from bitseq.linear import Linear


@pytest.fixture(params=[False, True], ids=["torch", "oneDNN"])
def products(request, monkeypatch):
    """The shapes that went through oneDNN, and whether all should."""
    if request.param and not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: request.param)
    calls, product = [], linear._product

    def recorded(left, right, bias=None):
        calls.append(left.shape)
        return product(left, right, bias)

    monkeypatch.setattr(linear, "_product", recorded)
    return calls, request.param


def new_linear():
    torch.manual_seed(2)
    return Linear(6, 5)


INPUTS = {
    "2-D": lambda: torch.randn(7, 6),
    "3-D": lambda: torch.randn(4, 3, 6),
    "4-D": lambda: torch.randn(2, 4, 3, 6),
    "one row": lambda: torch.randn(1, 6),
    "transposed": lambda: torch.randn(6, 7).t(),
    "rows and tokens swapped": lambda: torch.randn(3, 4, 6).transpose(0, 1),
    "every second feature": lambda: torch.randn(4, 3, 12)[..., ::2],
    "begin tokens": lambda: torch.randn(4, 3, 6)[:, 0],
    "expanded": lambda: torch.randn(1, 3, 6).expand(4, 3, 6),
    "one vector": lambda: torch.randn(6),
    "no rows": lambda: torch.randn(0, 6),
}


@pytest.mark.parametrize("takes_gradient", [True, False], ids=["inputs learn", "inputs fixed"])
@pytest.mark.parametrize("kind", list(INPUTS))
def test_linear_is_torchs_in_value_and_all_gradients(products, kind, takes_gradient):
    calls, onednn = products
    layer, inputs = new_linear(), INPUTS[kind]().requires_grad_(takes_gradient)
    wanted = [*layer.parameters(), *([inputs] if takes_gradient else [])]
    output, expected = layer(inputs), nn.functional.linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    contiguous = torch.randn(expected.shape)
    strided = torch.randn(*expected.shape[:-1], 10)[..., ::2]
    for direction in (contiguous, strided, torch.ones(()).expand(expected.shape)):
        found = torch.autograd.grad(output, wanted, direction, retain_graph=True)
        theirs = torch.autograd.grad(expected, wanted, direction, retain_graph=True)
        for gradient, their_gradient in zip(found, theirs, strict=True):
            torch.testing.assert_close(gradient, their_gradient, rtol=1e-5, atol=1e-5)
    if inputs.dim() > 1 and inputs.numel():
        assert len(calls) == (1 + 3 * (1 + takes_gradient) if onednn else 0)


def test_linear_without_gradients(products):
    calls, onednn = products
    layer, inputs = new_linear(), torch.randn(4, 3, 6, requires_grad=True)
    with torch.no_grad():
        output = layer(inputs)
        torch.testing.assert_close(output, nn.functional.linear(inputs, layer.weight, layer.bias))
    assert not output.requires_grad
    assert len(calls) == int(onednn)


def test_linear_of_a_frozen_layer_passes_the_gradient_on_and_keeps_none(products):
    layer = new_linear().requires_grad_(False)
    assert not layer(torch.randn(4, 6)).requires_grad
    inputs = torch.randn(4, 6, requires_grad=True)
    layer(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad, layer.weight.sum(0).expand(4, 6))
    assert layer.weight.grad is None and layer.bias.grad is None


def test_linear_in_double_precision_is_torchs_own(products, double):
    calls, _ = products
    layer, inputs = new_linear(), torch.randn(4, 3, 6, requires_grad=True)
    assert torch.equal(layer(inputs), nn.functional.linear(inputs, layer.weight, layer.bias))
    assert torch.autograd.gradcheck(layer, inputs)
    assert calls == []


def test_linear_is_bitwise_the_same_twice(products):
    layer, inputs = Linear(64, 192), torch.randn(256, 16, 64, requires_grad=True)
    direction = torch.randn(256, 16, 192)

    def once():
        output = layer(inputs)
        return output, *torch.autograd.grad(output, [inputs, layer.weight, layer.bias], direction)

    assert all(torch.equal(a, b) for a, b in zip(once(), once(), strict=True))


def test_linear_starts_as_torchs():
    torch.manual_seed(4)
    ours = Linear(6, 5)
    torch.manual_seed(4)
    theirs = nn.Linear(6, 5)
    assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)


def test_the_choice_of_library_is_made_by_what_the_machine_is(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert linear.onednn_is_faster.__wrapped__() is False
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert linear.onednn_is_faster.__wrapped__() is False
