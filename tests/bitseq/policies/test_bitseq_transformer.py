"""The trunk by hand: tokens, positions, its layers, in either form."""

import math

import pytest
import torch
from each import each
from scipy import stats
from torch import nn

from bitseq.policies.forms import TORCH, form_of
from bitseq.policies.transformer import Trunk, sinusoidal_positions

WIDTH, HEADS, FF_WIDTH = 16, 4, 24  # all different, and different from the numbers of rows and tokens
STATES = torch.tensor([[0, 7, 6, 3], [7, 7, 7, 7], [1, 2, 3, 4]])  # 7 words, 7 is empty, 8 the begin token


def new_trunk(n_layers=2, dropout=0.1, n_heads=HEADS, width=WIDTH, kernels="compiled"):
    torch.manual_seed(3)
    sizes = {"width": width, "n_layers": n_layers, "n_heads": n_heads, "ff_width": FF_WIDTH}
    return Trunk(4, 7, **sizes, dropout=dropout, form=form_of(kernels))


def by_torch(trunk, states):
    """The trunk's features by torch's layers alone."""
    hidden = trunk.embedding(nn.functional.pad(states, (1, 0), value=8)) + trunk.positions
    hidden = nn.functional.dropout(hidden, trunk.dropout, trunk.training)
    for layer in trunk.layers:
        hidden = layer(hidden)
    return hidden


@pytest.mark.parametrize("begin_only", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_trunk_encodes_a_begin_token_words_and_empty_marks_with_positions(training, begin_only):
    trunk, calls = new_trunk(dropout=0.25).train(training), []

    def recorded(*arguments):
        calls.append(arguments)
        return "features"

    trunk.form = TORCH._replace(encode=recorded)
    assert trunk(STATES, begin_only=begin_only) == "features"
    ((layers, tokens, probability, n_read),) = calls
    assert layers is trunk.layers and probability == (0.25 if training else 0) and n_read == (1 if begin_only else 5)
    assert trunk.embedding.weight.shape == (9, WIDTH) and tokens.shape == (3, 5, WIDTH)
    for row, state in enumerate(STATES.tolist()):
        for position, token in enumerate([8, *state]):
            expected = trunk.embedding.weight[token] + sinusoidal_positions(5, WIDTH)[position]
            torch.testing.assert_close(tokens[row, position], expected)


def test_trunk_is_torchs_layers_one_after_another():
    trunk = new_trunk(n_layers=3).eval()
    found = trunk(STATES)
    assert found.shape == (3, 5, WIDTH) and found.dtype == torch.float32
    torch.testing.assert_close(found, by_torch(trunk, STATES), rtol=1e-4, atol=1e-5)
    assert (found[0] - found[1]).abs().min() > 0  # an embedding of words, not of positions alone


def test_trunk_of_the_begin_token_alone_is_the_first_row():
    trunk = new_trunk(n_layers=3).eval()
    found = trunk(STATES, begin_only=True)
    assert found.shape == (3, 1, WIDTH)
    torch.testing.assert_close(found, trunk(STATES)[:, :1], rtol=1e-5, atol=1e-5)


@each("n_layers", [1, 3])
@each("kernels,dtype", [("compiled", torch.float32), ("torch", torch.float64)])
@each("positions", [[[], [], []], [[1], [3], [0]], [[3, 0, 1], [0, 1, 2], [2, 1, 3]]])
def test_reading_some_positions_gives_their_features(n_layers, kernels, dtype, positions):
    trunk = new_trunk(n_layers=n_layers, kernels=kernels).eval().to(dtype)
    index = torch.tensor(positions, dtype=torch.long).view(3, -1)
    found, whole = trunk.read(STATES, index), trunk(STATES)
    expected = torch.stack([whole[row, [0, *(1 + p for p in some)]] for row, some in enumerate(positions)])
    assert not found.requires_grad and found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_reading_many_strings_gives_the_features_of_each():
    """More than fit into a block, and a last block that is not full."""
    trunk, generator = new_trunk(n_layers=2).eval(), torch.Generator().manual_seed(2)
    states = torch.randint(8, (77, 4), generator=generator)
    index = torch.rand(77, 4, generator=generator).argsort(1)[:, :2]
    whole = trunk(states)[:, 1:].gather(1, index.unsqueeze(2).expand(-1, -1, WIDTH))
    torch.testing.assert_close(trunk.read(states, index)[:, 1:], whole, rtol=1e-4, atol=1e-5)


def test_layers_are_torchs_defaults_with_the_sizes_and_the_dropout_asked_for():
    layers = new_trunk(n_layers=3, dropout=0.25).layers
    assert len(layers) == 3
    for layer in layers:
        assert type(layer) is nn.TransformerEncoderLayer and layer.self_attn.batch_first and not layer.norm_first
        assert layer.activation is nn.functional.relu and layer.norm1.eps == layer.norm2.eps == 1e-5
        assert layer.self_attn.num_heads == HEADS and layer.linear1.weight.shape == (FF_WIDTH, WIDTH)
        dropouts = [module.p for module in layer.modules() if isinstance(module, nn.Dropout)]
        assert [*dropouts, layer.self_attn.dropout] == [0.25] * 4


def test_dropout_moves_features_in_training_alone():
    trunk = new_trunk(dropout=0.25)
    assert not torch.equal(trunk.train()(STATES), trunk(STATES))
    assert torch.equal(trunk.eval()(STATES), trunk(STATES))
    without = new_trunk(dropout=0.0)
    state = torch.get_rng_state()
    assert torch.equal(without.train()(STATES), trunk(STATES))
    assert torch.equal(torch.get_rng_state(), state)


def gradients(trunk, features):
    """Along a fixed direction, of all parameters."""
    direction = torch.randn(features.shape, generator=torch.Generator().manual_seed(1), dtype=features.dtype)
    return torch.autograd.grad((features * direction).sum(), list(trunk.parameters()))


@each("begin_only", [False, True])
def test_both_forms_of_the_trunk_are_torchs_layers_in_value_and_gradient(begin_only):
    compiled, torchs = new_trunk(kernels="compiled").eval(), new_trunk(kernels="torch").eval()
    expected = by_torch(torchs, STATES)[:, : 1 if begin_only else None]
    by_hand = gradients(torchs, expected)
    for trunk, tolerance in ((torchs, 1e-6), (compiled, 1e-4)):
        found = trunk(STATES, begin_only=begin_only)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance / 10)
        for gradient, other in zip(gradients(trunk, found), by_hand, strict=True):
            torch.testing.assert_close(gradient, other, rtol=tolerance, atol=tolerance * other.abs().max().item())


def test_in_the_torch_form_torchs_own_dropout_acts_on_the_embedding_too():
    trunk = new_trunk(dropout=0.25, kernels="torch").train()
    torch.manual_seed(5)
    found = trunk(STATES)
    torch.manual_seed(5)
    assert torch.equal(found, by_torch(trunk, STATES))
    assert not torch.equal(found, trunk(STATES))


@pytest.mark.parametrize(("n_tokens", "width"), [(16, 64), (5, 6), (5, 7), (1, 1)])
def test_sinusoidal_positions_are_those_of_a_loop(n_tokens, width):
    found = sinusoidal_positions(n_tokens, width)
    assert found.shape == (n_tokens, width)
    for position in range(n_tokens):
        for i in range(width):
            angle = position / 10_000 ** (i // 2 * 2 / width)
            expected = math.sin(angle) if i % 2 == 0 else math.cos(angle)
            assert found[position, i].item() == pytest.approx(expected, abs=1e-5)


def test_embedding_starts_standard_normal_and_layers_as_torchs_each_by_itself():
    torch.manual_seed(1)
    trunk = Trunk(15, 256, width=64, n_layers=3, n_heads=8, ff_width=96, dropout=0.1)
    torch.manual_seed(1)
    embedding = nn.Embedding(258, 64)
    layers = [nn.TransformerEncoderLayer(64, 8, 96, batch_first=True) for _ in range(3)]
    assert torch.equal(trunk.embedding.weight, embedding.weight)
    assert stats.kstest(embedding.weight.detach().flatten().numpy(), "norm").pvalue > 1e-4
    for found, expected in zip(trunk.layers, layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))
    for name, parameter in trunk.layers[0].named_parameters():
        others = [dict(layer.named_parameters())[name] for layer in trunk.layers[1:]]
        is_random = parameter.std() > 0  # not attention's biases nor the norms
        assert all(torch.equal(parameter, other) != is_random for other in others), name
