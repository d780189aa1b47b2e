"""The trunk against torch's own encoder, its dropout against what probability says."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from bitseq import linear, transformer
from bitseq.transformer import Dropout, EncoderLayer, Trunk, dropout_factors, sinusoidal_positions

WIDTH, HEADS, FF_WIDTH = 16, 4, 24  # all different, and different from the numbers of rows and tokens
NAMES = {
    "self_attn.in_proj": "query_key_value",
    "self_attn.out_proj": "out",
    "linear1": "up",
    "linear2": "down",
    "norm1": "norm_attention",
    "norm2": "norm_feed_forward",
}


def torchs_name(name):
    """self_attn.in_proj_weight -> query_key_value.weight."""
    module, _, kind = name.replace("in_proj_", "in_proj.").rpartition(".")
    return f"{NAMES[module]}.{kind}"


def layer_pair(width=WIDTH, n_heads=HEADS, ff_width=FF_WIDTH, dropout=0.1):
    """Ours and torch's with the same random weights, biases and norms included."""
    torch.manual_seed(3)
    theirs = nn.TransformerEncoderLayer(width, n_heads, ff_width, dropout, batch_first=True)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    ours = EncoderLayer(width, n_heads, ff_width, dropout)
    ours.load_state_dict({torchs_name(name): value.clone() for name, value in theirs.state_dict().items()})
    return ours, theirs


def gradients(layer, tokens, direction):
    """The output and the gradients of its product with a direction: of the tokens and of every parameter by name."""
    tokens = tokens.clone().requires_grad_()
    layer.zero_grad()
    output = layer(tokens)
    (output * direction).sum().backward()
    return output.detach(), {"tokens": tokens.grad} | {name: p.grad for name, p in layer.named_parameters()}


@pytest.mark.parametrize(("width", "n_heads", "ff_width"), [(16, 4, 24), (64, 8, 64), (6, 1, 5), (4, 4, 3)])
@pytest.mark.parametrize("n_tokens", [1, 2, 16])
def test_encoder_layer_is_torchs(double, width, n_heads, ff_width, n_tokens):
    ours, theirs = (layer.eval() for layer in layer_pair(width, n_heads, ff_width))
    tokens, direction = torch.randn(2, 5, n_tokens, width)
    output, found = gradients(ours, tokens, direction)
    expected, their_gradients = gradients(theirs, tokens, direction)
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
    their_gradients = {name if name == "tokens" else torchs_name(name): g for name, g in their_gradients.items()}
    assert found.keys() == their_gradients.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-9, atol=1e-9)
        assert gradient.abs().max() > 1e-3, name


@pytest.mark.parametrize("onednn", [False, True], ids=["torch", "oneDNN"])
def test_encoder_layer_is_torchs_in_single_precision(onednn, monkeypatch):
    if onednn and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: onednn)
    ours, theirs = (layer.eval() for layer in layer_pair(64, 8, 64))
    tokens = torch.randn(50, 16, 64)
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # where torch takes a fused path of its own
        torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-4, atol=1e-5)


class Masks:
    """Dropout factors that are the same in every call of the same order, and a record of what was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, shape, probability, like=None):
        self.asked.append((math.prod(shape), probability))
        generator = torch.Generator().manual_seed(len(self.asked))
        kept = torch.rand(math.prod(shape), generator=generator, dtype=torch.float64) > 0.4
        return (kept.double() / 0.6).view(shape)


def test_dropout_acts_where_torchs_encoder_has_it(double, monkeypatch):
    """On attention weights, attention's output, hidden units and the feed-forward output: same masks, same result."""
    ours, theirs = (layer.train() for layer in layer_pair())
    tokens, direction = torch.randn(2, 3, 5, WIDTH)
    monkeypatch.setattr(transformer, "dropout_factors", my_masks := Masks())
    output, found = gradients(ours, tokens, direction)

    their_masks = Masks()

    def attention(query, key, value, mask, dropout, is_causal):
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
        return (weights * their_masks(weights.shape, dropout)) @ value

    def drop(module, inputs):
        return inputs * their_masks(inputs.shape, module.p)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(nn.Dropout, "forward", drop)
    expected, their_gradients = gradients(theirs, tokens, direction)
    sizes = [3 * HEADS * 5 * 5, 3 * 5 * WIDTH, 3 * 5 * FF_WIDTH, 3 * 5 * WIDTH]
    assert my_masks.asked == their_masks.asked == [(size, 0.1) for size in sizes]
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
    for name, gradient in their_gradients.items():
        ours_name = name if name == "tokens" else torchs_name(name)
        torch.testing.assert_close(found[ours_name], gradient, rtol=1e-9, atol=1e-9)


def new_trunk(n_layers=2, dropout=0.1, length=4, n_words=7):
    torch.manual_seed(3)
    sizes = {"width": WIDTH, "n_layers": n_layers, "n_heads": HEADS, "ff_width": FF_WIDTH}
    return Trunk(length, n_words, dropout=dropout, **sizes)


def test_trunk_embeds_a_begin_token_words_and_empty_marks_and_adds_positions(double, monkeypatch):
    trunk = new_trunk(n_layers=0).train()
    assert trunk.embedding.weight.shape == (9, WIDTH)  # 7 words, empty, begin
    monkeypatch.setattr(transformer, "dropout_factors", masks := Masks())
    states = torch.tensor([[0, 7, 6, 3], [7, 7, 7, 7], [1, 2, 3, 4]])
    found = trunk(states)
    factors = Masks()((3, 5, WIDTH), 0.1)
    for row, state in enumerate(states.tolist()):
        for position, token in enumerate([8, *state]):
            expected = trunk.embedding.weight[token] + sinusoidal_positions(5, WIDTH)[position]
            torch.testing.assert_close(found[row, position], expected * factors[row, position])
    assert masks.asked == [(3 * 5 * WIDTH, 0.1)]


def test_trunk_is_its_layers_one_after_another_each_with_the_dropout_asked_for(double, monkeypatch):
    trunk, states = new_trunk(n_layers=3, dropout=0.25), torch.tensor([[0, 7, 6, 3], [7, 7, 7, 7]])
    trunk.eval()
    hidden = trunk.embedding(nn.functional.pad(states, (1, 0), value=8)) + trunk.positions
    for layer in trunk.layers:
        hidden = layer(hidden)
    assert torch.equal(trunk(states), hidden)
    monkeypatch.setattr(transformer, "dropout_factors", masks := Masks())
    trunk.train()(states)
    assert [probability for _, probability in masks.asked] == [0.25] * (1 + 3 * 4)


@pytest.mark.parametrize(("n_tokens", "width"), [(16, 64), (5, 6), (5, 7), (1, 1)])
def test_sinusoidal_positions_are_those_of_a_loop(n_tokens, width):
    found = sinusoidal_positions(n_tokens, width)
    assert found.shape == (n_tokens, width)
    for position in range(n_tokens):
        for i in range(width):
            angle = position / 10_000 ** (i // 2 * 2 / width)
            expected = math.sin(angle) if i % 2 == 0 else math.cos(angle)
            assert found[position, i].item() == pytest.approx(expected, abs=1e-5)


def test_initialisation_has_torchs_bounds_and_spreads():
    torch.manual_seed(1)
    theirs = nn.TransformerEncoderLayer(64, 8, 96, batch_first=True).state_dict()
    ours = EncoderLayer(64, 8, 96, 0.1).state_dict()
    assert {torchs_name(name) for name in theirs} == ours.keys()
    for name, expected in theirs.items():
        found = ours[torchs_name(name)]
        assert found.shape == expected.shape, name
        if expected.std() == 0:
            assert torch.equal(found, expected), name  # zeros of attention's biases, ones and zeros of norms
        else:
            # Both uniform within the same bounds; of a bias of 64 numbers the spread is known to a tenth.
            several = 4 * math.sqrt(1 / expected.numel())
            assert found.std().item() == pytest.approx(expected.std().item(), rel=several), name
            assert found.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=several), name
            assert stats.ks_2samp(found.flatten().numpy(), expected.flatten().numpy()).pvalue > 1e-4, name


def test_embedding_starts_standard_normal_and_layers_start_different():
    torch.manual_seed(1)
    trunk = Trunk(15, 256, width=64, n_layers=2, n_heads=8, ff_width=64, dropout=0.1)
    assert stats.kstest(trunk.embedding.weight.detach().flatten().numpy(), "norm").pvalue > 1e-4
    first, second = (layer.up.weight for layer in trunk.layers)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_drops_the_share_asked_for_and_keeps_the_expectation(probability):
    torch.manual_seed(1)
    shape = torch.Size([1_000, 1_001])  # not a multiple of the lanes
    factors = dropout_factors(shape, probability, torch.ones(1))
    assert factors.shape == shape and factors.dtype == torch.float32
    assert sorted(set(factors.flatten().tolist())) == pytest.approx([0.0, 1 / (1 - probability)])
    error = math.sqrt(probability * (1 - probability) / factors.numel())
    dropped = (factors == 0).double()
    assert dropped.mean().item() == pytest.approx(probability, abs=5 * error + 2**-17)
    assert factors.double().mean().item() == pytest.approx(1.0, abs=(5 * error + 2**-17) / (1 - probability))
    for lane in range(transformer.LANES):
        of_lane = dropped.flatten()[lane :: transformer.LANES]
        assert of_lane.mean().item() == pytest.approx(probability, abs=10 * error + 2**-17)


def test_dropout_is_independent_across_elements_lanes_rows_and_calls():
    torch.manual_seed(1)
    probability, shape = 0.3, torch.Size([2_000, 400])
    first, second = ((dropout_factors(shape, probability, torch.ones(1)) == 0).double() for _ in range(2))
    lanes = first.view(-1, transformer.LANES).numpy().astype(int)
    observed = np.bincount(lanes @ [8, 4, 2, 1], minlength=16)
    expected = [len(lanes) * math.prod(0.3 if pattern >> i & 1 else 0.7 for i in range(4)) for pattern in range(16)]
    assert stats.chisquare(observed, expected).pvalue > 1e-4

    def correlation(left, right):
        return torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1].item()

    limit = 5 / math.sqrt(first.numel())
    flat = first.flatten()
    assert max(abs(correlation(flat[:-lag], flat[lag:])) for lag in (*range(1, 18), 400, 800)) < limit
    assert abs(correlation(first, second)) < limit
    torch.manual_seed(1)
    assert torch.equal((dropout_factors(shape, probability, torch.ones(1)) == 0).double(), first)


@pytest.mark.parametrize("probability", [0.01, 0.9999, 0.999995])
def test_dropout_of_extreme_probabilities(probability):
    torch.manual_seed(1)
    factors = dropout_factors(torch.Size([100_000]), probability, torch.ones(1))
    assert (factors == 0).double().mean().item() == pytest.approx(probability, abs=2e-3)


def test_dropout_module_scales_inputs_and_gradients_by_the_same_factors():
    layer, inputs = Dropout(0.4).train(), torch.randn(50, 7, 3, requires_grad=True)
    torch.manual_seed(9)
    layer(inputs).sum().backward()
    torch.manual_seed(9)
    factors = dropout_factors(inputs.shape, 0.4, inputs)
    assert torch.equal(inputs.grad, factors)
    torch.manual_seed(9)
    assert torch.equal(layer(inputs), inputs * factors)


@pytest.mark.parametrize(("probability", "training"), [(0.0, True), (0.0, False), (0.4, False)])
def test_no_dropout_is_the_identity_and_draws_nothing(probability, training):
    inputs, state = torch.randn(5, 3), torch.get_rng_state()
    assert Dropout(probability).train(training)(inputs) is inputs
    assert torch.equal(torch.get_rng_state(), state)
