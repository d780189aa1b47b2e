"""The compiled encoder against torch's own: outputs, all gradients, where dropout acts, what is not finite."""

import copy
import math

import numpy as np
import pytest
import torch
from each import each
from torch import nn

from bitseq.kernels import LANES, encoder
from bitseq.kernels import primitives as kernels
from bitseq.kernels.layers import encode
from bitseq.policies import forms

# (strings, tokens, heads, features of a head, feed-forward width, layers); LANES / heads strings are a block.
SIZES = {
    "less than a block": (5, 16, 8, 8, 64, 3),
    "a block": (8, 4, 8, 2, 5, 2),
    "odd widths": (3, 5, 2, 3, 7, 2),
    "a block and one": (17, 7, 4, 6, 10, 1),
    "one token, a string a block": (3, 1, 64, 1, 9, 2),
    "one head, two blocks": (70, 3, 1, 5, 4, 2),
    "three blocks": (24, 5, 8, 3, 9, 2),
    "four layers": (2, 2, 16, 1, 6, 4),
}
CASES = [(sizes, n_read) for sizes in SIZES.values() for n_read in sorted({1, (1 + sizes[1]) // 2, sizes[1]})]


def new_layers(n_heads, n_features, ff_width, n_layers, probability=0.0):
    """Torch's layers with every parameter away from its initialisation."""
    torch.manual_seed(3)
    width = n_heads * n_features
    layers = nn.ModuleList(
        nn.TransformerEncoderLayer(width, n_heads, ff_width, probability, batch_first=True) for _ in range(n_layers)
    )
    with torch.no_grad():
        for parameter in layers.parameters():
            scale = 0.3 if parameter.dim() == 1 else 0.7 * parameter.shape[1] ** -0.5
            parameter.add_(scale * torch.randn(parameter.shape))
    return layers


def new_case(sizes, n_read, probability=0.0):
    """Layers, tokens and a direction to take gradients along."""
    n_strings, n_tokens, n_heads, n_features, ff_width, n_layers = sizes
    layers = new_layers(n_heads, n_features, ff_width, n_layers, probability)
    width = n_heads * n_features
    return layers, torch.randn(n_strings, n_tokens, width), torch.randn(n_strings, n_read, width)


def with_gradients(function, layers, tokens, direction):
    """What the function makes of tokens, and the gradients along a direction of the tokens and parameters by name."""
    tokens = tokens.detach().clone().requires_grad_()
    named = dict(layers.named_parameters())
    output = function(tokens)
    found = torch.autograd.grad((output * direction).sum(), [tokens, *named.values()])
    return output.detach(), dict(zip(["tokens", *named], found, strict=True))


def ours(layers, tokens, direction, probability=0.0):
    """``with_gradients`` of the compiled functions."""
    n_read = direction.shape[1]
    return with_gradients(lambda x: encode(layers, x, probability, n_read), layers, tokens, direction)


def theirs(layers, tokens, direction):
    """The same of the torch form in double precision, in the layers' mode."""
    layers, n_read = copy.deepcopy(layers).double(), direction.shape[1]
    return with_gradients(lambda x: forms.encode(layers, x, 0.0, n_read), layers, tokens.double(), direction.double())


def require_close(found, expected):
    """Outputs and all gradients, each within its own size."""
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-5, atol=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        atol = 1e-5 * gradient.abs().max().item()
        torch.testing.assert_close(
            found[1][name].double(), gradient, rtol=1e-5, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
        assert gradient.abs().max() > 1e-3, name


@each("sizes,n_read", CASES)
def test_encode_and_all_gradients_are_torchs(sizes, n_read):
    layers, tokens, direction = new_case(sizes, n_read)
    require_close(ours(layers, tokens, direction), theirs(layers, tokens, direction))


@each("sizes,n_read", CASES)
def test_encode_reads_the_first_rows_of_the_full_pass_with_and_without_a_gradient(sizes, n_read):
    layers, tokens, _ = new_case(sizes, n_read)
    found = encode(layers, tokens, 0.0, n_read)
    assert found.requires_grad and found.shape == (sizes[0], n_read, sizes[2] * sizes[3])
    torch.testing.assert_close(found, encode(layers, tokens, 0.0, sizes[1])[:, :n_read], rtol=1e-5, atol=1e-5)
    for probability in (0.0, 0.3):
        torch.manual_seed(5)
        with_gradient = encode(layers, tokens, probability, n_read)
        torch.manual_seed(5)
        with torch.no_grad():
            without = encode(layers, tokens, probability, n_read)
        assert torch.equal(with_gradient, without) and not without.requires_grad
        assert torch.equal(without, found) == (probability == 0)


def test_a_string_is_encoded_whatever_its_neighbours_are():
    layers, tokens, _ = new_case(SIZES["a block and one"], 7)
    together = encode(layers, tokens, 0.0, 7)
    for row in (0, 3, 15, 16):
        torch.testing.assert_close(encode(layers, tokens[row : row + 1], 0.0, 7)[0], together[row])


def test_no_strings_have_no_features_and_no_gradient():
    layers, tokens, _ = new_case(SIZES["odd widths"], 5)
    tokens = tokens[:0].requires_grad_()
    output = encode(layers, tokens, 0.3, 2)
    output.sum().backward()
    assert output.shape == (0, 2, 6) and tokens.grad.shape == (0, 5, 6)
    assert all((p.grad == 0).all() for p in layers.parameters())


def factors_of(key, probability, shape):
    """What ``kernels.dropout`` makes of ones."""
    ones = np.ones(math.prod(shape), np.float32)
    kernels.dropout(ones, *map(np.uint64, (0, ones.size, 0)), tuple(key), np.uint32(round(probability * 2**32)))
    return torch.from_numpy(ones).double().view(shape)


def dropout_factors(sizes, n_read, probability, seed):
    """Of the embedding, then of every layer's weights, attention, hidden units and feed-forward output.

    Positions count on from string to string. Only the weights' lie in blocks: (block, looking token, token, string of
    the block, head). What the last layer leaves out has factor 1.
    """
    n_strings, n_tokens, n_heads, n_features, ff_width, n_layers = sizes
    width, per_block = n_heads * n_features, LANES // n_heads
    torch.manual_seed(seed)
    keys = torch.empty(4 * n_layers + 1, dtype=torch.int64).random_(-(2**63), None).numpy().view(np.uint32)
    keys = keys.reshape(-1, 2)
    yield factors_of(keys[int(encoder.EMBEDDING)], probability, (n_strings, n_tokens, width))
    for layer in range(n_layers):
        read = n_read if layer == n_layers - 1 else n_tokens
        blocks = (-(-n_strings // per_block), n_tokens, n_tokens, per_block, n_heads)
        weights = factors_of(keys[4 * layer + int(encoder.WEIGHTS)], probability, blocks)
        weights = weights.permute(0, 3, 4, 1, 2).flatten(0, 1)[:n_strings].clone()
        weights[:, :, read:] = 1
        yield weights
        sites = ((encoder.ATTENTION, width), (encoder.HIDDEN, ff_width), (encoder.FEED_FORWARD, width))
        for site, n in sites:
            of_site = factors_of(keys[4 * layer + int(site)], probability, (n_strings, read, n))
            yield nn.functional.pad(of_site, (0, 0, 0, n_tokens - read), value=1.0)


@each("probability", [0.1, 0.5])
@each("sizes,n_read", CASES)
def test_dropout_acts_where_torchs_encoder_has_it(sizes, n_read, probability, monkeypatch):
    """Torch's layers in training, every one of their dropouts given our factors: same outputs, same gradients."""
    layers, tokens, direction = new_case(sizes, n_read, probability)
    torch.manual_seed(8)
    found = ours(layers, tokens, direction, probability)
    factors = list(dropout_factors(sizes, n_read, probability, seed=8))
    n_dropped = sum(int((of_site == 0).sum()) for of_site in factors)
    assert n_dropped > 0

    def attention(query, key, value, mask, dropout, is_causal):
        assert (mask, dropout, is_causal) == (None, probability, False)
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
        return (weights * factors.pop(0)) @ value

    def drop(module, inputs):
        assert module.p == probability
        return inputs * factors.pop(0)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(nn.Dropout, "forward", drop)
    of_embedding, layers = factors.pop(0), layers.double().train()
    expected = with_gradients(
        lambda x: forms.encode(layers, x * of_embedding, 0.0, n_read), layers, tokens.double(), direction.double()
    )
    assert factors == []
    require_close(found, expected)


@pytest.mark.parametrize("sizes", [SIZES["less than a block"], SIZES["one head, two blocks"]])
def test_gradient_is_the_slope_along_itself(sizes):
    layers, tokens, direction = new_case(sizes, 1)
    torch.manual_seed(8)
    _, gradients = ours(layers, tokens, direction, 0.2)
    of_parameters = [gradients[name] for name, _ in layers.named_parameters()]
    norm = math.sqrt(sum(g.double().square().sum().item() for g in gradients.values()))

    def value(step):
        moved = copy.deepcopy(layers).requires_grad_(False)
        for parameter, gradient in zip(moved.parameters(), of_parameters, strict=True):
            parameter += step * gradient / norm
        torch.manual_seed(8)
        return (encode(moved, tokens + step * gradients["tokens"] / norm, 0.2, 1) * direction).double().sum().item()

    assert (value(1e-3) - value(-1e-3)) / 2e-3 == pytest.approx(norm, rel=0.01)


def test_dropout_follows_torchs_generator_and_without_it_nothing_is_drawn():
    layers, tokens, direction = new_case(SIZES["a block and one"], 7)
    passes = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        passes.append(ours(layers, tokens, direction, 0.3))
    assert torch.equal(passes[0][0], passes[1][0])
    assert all(torch.equal(passes[0][1][name], gradient) for name, gradient in passes[1][1].items())
    assert (passes[0][0] != passes[2][0]).float().mean() > 0.9
    following = ours(layers, tokens, direction, 0.3)  # of the same generator, further on
    assert (following[0] != passes[2][0]).float().mean() > 0.9
    state = torch.get_rng_state()
    require_close(ours(layers, tokens, direction), theirs(layers.eval(), tokens, direction))
    assert torch.equal(torch.get_rng_state(), state)


@each("n_read", [1, 5])
@each("bad", [math.nan, math.inf, -math.inf])
def test_a_token_that_is_not_finite_spoils_its_string_and_no_other(bad, n_read):
    """What the run's check of the loss relies on."""
    layers, tokens, _ = new_case(SIZES["three blocks"], n_read)
    for row, token in [(0, 0), (7, 4), (8, 2), (23, 3)]:
        poisoned = tokens.clone()
        poisoned[row, token, 5] = bad
        spoiled = encode(layers, poisoned, 0.0, n_read).isnan()
        assert spoiled[row].all() and spoiled.sum() == spoiled[row].numel()


def test_a_parameter_that_is_not_a_number_reaches_the_output():
    layers, tokens, _ = new_case(SIZES["odd widths"], 5)
    for name, parameter in layers.named_parameters():
        for index in (0, parameter.numel() // 2, parameter.numel() - 1):
            whole = parameter.detach().clone()
            with torch.no_grad():
                parameter.view(-1)[index] = math.nan
            assert encode(layers, tokens, 0.0, 1).isnan().any(), (name, index)
            with torch.no_grad():
                parameter.copy_(whole)
    assert encode(layers, tokens, 0.0, 1).isfinite().all()
