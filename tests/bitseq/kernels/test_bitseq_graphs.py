"""The compiled encoder in torch's graphs: memory that is reused, tensors however they lie, the same bits every time."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from bitseq.kernels import layers
from bitseq.kernels.layers import encode

# (strings, tokens, heads, width, feed-forward width, layers)
LARGE, SMALL = (24, 5, 8, 24, 9, 2), (3, 5, 2, 6, 7, 2)


class Case:
    """Layers, tokens and a direction to take gradients along; every pass of a case has the same dropout."""

    def __init__(self, number, sizes):
        n_strings, n_tokens, n_heads, width, ff_width, n_layers = sizes
        torch.manual_seed(number)
        all_layers = (
            nn.TransformerEncoderLayer(width, n_heads, ff_width, 0.2, batch_first=True) for _ in range(n_layers)
        )
        self.number, self.layers = number, nn.ModuleList(all_layers)
        self.tokens, self.direction = torch.randn(n_strings, n_tokens, width), torch.randn(n_strings, 2, width)

    def encode(self, tokens):
        torch.manual_seed(self.number)
        return encode(self.layers, tokens, 0.2, 2)

    def graph(self):
        return Graph(self)


class Graph:
    """A pass whose gradient is yet to be taken."""

    def __init__(self, case):
        self.inputs, self.direction = [case.tokens.clone().requires_grad_(), *case.layers.parameters()], case.direction
        self.output = case.encode(self.inputs[0])

    @property
    def memory(self):
        return self.output.grad_fn.saved

    def result(self, **options):
        return [self.output.detach(), *torch.autograd.grad(self.output, self.inputs, self.direction, **options)]


def same(found, expected):
    """The same bits."""
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture
def cases():
    """Three different ones, the last one small, each with what it gives alone."""
    found = [Case(1, LARGE), Case(2, LARGE), Case(3, SMALL)]
    for case in found:
        layers._spare.clear()
        case.alone = case.graph().result()
        assert all(part.abs().max() > 1e-3 for part in case.alone)
    layers._spare.clear()
    assert not same(found[0].alone, found[1].alone)
    return found


def test_graphs_alive_at_once_have_their_own_gradients(cases):
    graphs = [case.graph() for case in cases]
    assert len({id(graph.memory) for graph in graphs}) == 3
    for graph, case in zip(graphs, cases, strict=True):
        assert same(graph.result(), case.alone)


def test_memory_is_reused_after_the_gradient_and_by_one_graph_at_a_time(cases):
    first, second = cases[0].graph(), cases[1].graph()
    memory = first.memory
    assert same(first.result(), cases[0].alone)
    smaller, again = cases[2].graph(), cases[0].graph()
    assert smaller.memory is memory and again.memory is not memory and second.memory is not memory
    assert same(second.result(), cases[1].alone)
    assert same(smaller.result(), cases[2].alone)
    assert same(again.result(), cases[0].alone)


def test_memory_that_is_too_small_is_not_taken(cases):
    small = cases[2].graph()
    memory = small.memory
    assert same(small.result(), cases[2].alone)
    larger = cases[0].graph()
    assert larger.memory is not memory and larger.memory.size > memory.size
    assert same(larger.result(), cases[0].alone)


def test_a_second_gradient_of_a_graph_is_refused_and_harms_no_other(cases):
    graph = cases[0].graph()
    assert same(graph.result(retain_graph=True), cases[0].alone)
    other = cases[1].graph()  # in the memory that was given back
    with pytest.raises(RuntimeError, match=r"^what this gradient needs was given back after the first backward pass$"):
        graph.result(retain_graph=True)
    assert same(other.result(), cases[1].alone)
    with pytest.raises(RuntimeError, match="a second time"):  # torch's own word, where the graph was not retained
        other.result()


def test_a_second_derivative_is_refused_not_lost(cases):
    case = cases[0]
    tokens = case.tokens.detach().requires_grad_()
    (gradient,) = torch.autograd.grad((case.encode(tokens).square() * case.direction).sum(), tokens, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_graph_that_is_dropped_and_a_pass_without_a_gradient_do_no_harm(cases):
    for dropped, other in [(0, 1), (1, 0), (2, 2), (0, 2)]:
        cases[dropped].graph()
        waiting = cases[other].graph()
        with torch.no_grad():
            assert torch.equal(cases[dropped].encode(cases[dropped].tokens), cases[dropped].alone[0])
        assert same(waiting.result(), cases[other].alone)


def test_parameters_and_tokens_may_change_between_the_pass_and_its_gradient(cases):
    """The gradient is that of the pass, as it was."""
    graph = cases[0].graph()
    with torch.no_grad():
        for tensor in graph.inputs:
            tensor.add_(1.0)
    assert same(graph.result(), cases[0].alone)


@pytest.mark.parametrize("n_strings", [0, 1, 3])
def test_tensors_may_lie_anywhere_in_memory(n_strings, cases):
    case = cases[2]
    tokens, direction = case.tokens[:n_strings], case.direction[:n_strings]
    expected = gradients(case, tokens, direction)
    assert expected[0].shape == tokens.shape
    strided_tokens = tokens.transpose(0, 1).contiguous().transpose(0, 1)
    strided_direction = torch.stack([direction, direction], dim=-1)[..., 0]
    assert same(gradients(case, strided_tokens, strided_direction), expected)
    every_second = torch.stack([tokens, tokens], dim=-1)[..., 0]
    assert same(gradients(case, every_second, direction), expected)


def gradients(case, tokens, direction):
    """Of the tokens where they lie, and of the parameters."""
    inputs = [tokens.detach().requires_grad_(), *case.layers.parameters()]
    return torch.autograd.grad(case.encode(inputs[0]), inputs, direction)


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(()).expand(3, 2, 6), torch.randn(1, 4, 12)[..., ::2], torch.randn(5, 3).t(), torch.randn(2, 3)],
    ids=["expanded", "every second", "transposed", "in order"],
)
def test_what_the_compiled_functions_get_lies_in_order(tensor):
    """Any other layout would be compiled for anew, for seconds, and rounded otherwise."""
    found = layers._flat(tensor)
    assert found.flags.c_contiguous and found.tolist() == [x.item() for x in tensor.flatten()]


def test_frozen_layers_pass_the_gradient_on_and_keep_none(cases):
    case = cases[0]
    case.layers.requires_grad_(False)
    assert not case.encode(case.tokens).requires_grad
    tokens = case.tokens.clone().requires_grad_()
    (case.encode(tokens) * case.direction).sum().backward()
    assert torch.equal(tokens.grad, case.alone[1])
    assert all(p.grad is None for p in case.layers.parameters())


PASS = """
import hashlib, torch
from bitseq.policies.forms import form_of
from bitseq.policies.transformer import Trunk
torch.set_num_threads(1)
torch.manual_seed(1)
trunk = Trunk(15, 20, width=16, n_layers=2, n_heads=2, ff_width=24, dropout=0.1, form=form_of("compiled"))
features = trunk(torch.randint(21, (50, 15)))
gradients = torch.autograd.grad(features.square().sum() + features.sum(), list(trunk.parameters()))
numbers = torch.cat([part.detach().flatten() for part in (features, *gradients)])
print(hashlib.sha256(numbers.numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_a_process_that_compiles_and_one_that_loads_get_the_same_bits(tmp_path):
    """A run that is the first on its machine, killed and resumed, is the run that was not killed."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    found = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", PASS], env=environment, capture_output=True, text=True, check=True)
        found.append(done.stdout)
        assert list(tmp_path.rglob("encoder.backward_pass*.nbc"))
    assert found[0] == found[1] and len(found[0].strip()) == 64
