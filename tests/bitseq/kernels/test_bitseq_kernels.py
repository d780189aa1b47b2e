"""The parts of an encoder layer against numpy, torch and, for dropout, against what probability says."""

import itertools
import math

import numpy as np
import pytest
import torch
from each import each
from scipy import stats

from bitseq.kernels import LANES, attention
from bitseq.kernels import primitives as kernels

U = np.uint64  # as the compiled functions are called: another type would be another compilation


def new_key(number):
    return tuple(np.random.default_rng(number).integers(0, 2**32, 2, dtype=np.uint32))


def factors_of(n, probability, key, position=0):
    """0 where dropped, else 1 over the probability to be kept."""
    ones = np.ones(n, np.float32)
    kernels.dropout(ones, U(0), U(n), U(position), key, np.uint32(round(probability * 2**32)))
    return ones


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_drops_the_share_asked_for_and_keeps_the_expectation(probability):
    n = 1_000_003
    error = 5 * math.sqrt(probability * (1 - probability) / n)
    for key in map(new_key, range(5)):
        factors = factors_of(n, probability, key)
        assert factors.dtype == np.float32
        assert np.unique(factors).tolist() == pytest.approx([0.0, 1 / (1 - probability)])
        assert (factors == 0).mean() == pytest.approx(probability, abs=error)
        assert factors.mean(dtype=np.float64) == pytest.approx(1.0, abs=error / (1 - probability))


def test_dropout_of_every_position_has_the_probability_over_the_keys():
    n_keys, n = 5_000, 512
    dropped = sum((factors_of(n, 0.1, new_key(number)) == 0).astype(int) for number in range(n_keys))
    z = (dropped - 0.1 * n_keys) / math.sqrt(0.09 * n_keys)
    assert stats.kstest(z, "norm").pvalue > 1e-4
    assert abs(z).max() < 5


def correlation(left, right):
    return np.corrcoef(left, right)[0, 1]


def test_dropout_is_independent_across_neighbouring_elements():
    dropped = (factors_of(2**20, 0.3, new_key(1)) == 0).astype(int)
    patterns = dropped.reshape(-1, 8) @ (1 << np.arange(8))
    expected = [len(patterns) * 0.3 ** (ones := number.bit_count()) * 0.7 ** (8 - ones) for number in range(256)]
    assert stats.chisquare(np.bincount(patterns, minlength=256), expected).pvalue > 1e-4
    limit = 5 / math.sqrt(len(dropped))
    assert max(abs(correlation(dropped[:-lag], dropped[lag:])) for lag in range(1, 18)) < limit
    # At distances of powers of two the hash falls short of that, by up to 0.012 of a key.
    assert max(abs(correlation(dropped[: -(2**k)], dropped[2**k :])) for k in range(5, 17)) < 0.015


def test_dropout_is_independent_across_keys():
    dropped = [(factors_of(2**16, 0.3, new_key(number)) == 0).astype(float) for number in range(12)]
    found = [correlation(left, right) for left, right in itertools.combinations(dropped, 2)]
    assert max(map(abs, found)) < 5 / 2**8
    assert np.std(found) == pytest.approx(1 / 2**8, rel=0.4)  # 66 of them
    one, two = new_key(1)
    for other in [(one, one), (two, two), (two, one)]:  # both words count
        assert abs(correlation(dropped[1], factors_of(2**16, 0.3, other) == 0)) < 5 / 2**8


@pytest.mark.parametrize("probability", [1e-4, 0.01, 0.99, 0.9999])
def test_dropout_of_extreme_probabilities(probability):
    n = 2**22
    factors = factors_of(n, probability, new_key(1))
    assert (factors == 0).mean() == pytest.approx(probability, abs=5 * math.sqrt(probability * (1 - probability) / n))
    assert factors.max() == pytest.approx(1 / (1 - probability), rel=1e-4)


def test_dropout_of_probability_zero_is_the_identity():
    values = np.array([1.5, -0.0, np.nan, np.inf, 1e-45], np.float32)
    untouched = values.tobytes()
    kernels.dropout(values, U(0), U(5), U(0), new_key(1), np.uint32(0))
    assert values.tobytes() == untouched


@pytest.mark.parametrize("position", [0, 37, 2**32 - 5])
def test_dropout_is_a_function_of_key_and_position_and_scales_what_is_there(position):
    key, values = new_key(3), np.random.default_rng(1).normal(size=100).astype(np.float32)
    around = factors_of(100, 0.4, key, position)
    assert np.array_equal(factors_of(60, 0.4, key, position + 17), around[17:77])
    scaled = values.copy()
    kernels.dropout(scaled, U(20), U(50), U(position), key, np.uint32(round(0.4 * 2**32)))
    assert np.array_equal(scaled[20:70], values[20:70] * around[:50])
    assert np.array_equal(scaled[:20], values[:20]) and np.array_equal(scaled[70:], values[70:])


COUNTS = [1, 3, 4, 5, 7, 8, 10]  # below, at and above multiples of the four that go together


@each("transposed", [False, True])
@each("n_columns", [1, 6, 33])
def test_add_product_is_numpys(n_columns, transposed):
    rng = np.random.default_rng(1)
    for n_rows, n_inner in itertools.product(COUNTS, COUNTS):
        left, right = rng.normal(size=(n_rows, n_inner)), rng.normal(size=(n_inner, n_columns))
        stored = left.T if transposed else left
        lefts, rights = (np.r_[[np.nan] * 5, a.ravel(), [np.nan] * 9].astype(np.float32) for a in (stored, right))
        out = rng.normal(size=3 + n_rows * n_columns + 4).astype(np.float32)
        expected = out.copy()
        expected[3:-4] += (left.astype(np.float32) @ right.astype(np.float32)).ravel()
        steps = (U(1), U(n_rows)) if transposed else (U(n_inner), U(1))
        sizes = (U(n_rows), U(n_inner))
        kernels.add_product(lefts, U(5), *steps, *sizes, rights, U(5), U(n_columns), out, U(3))
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@each("scale", [1.0, 1e3, 1e-4])  # at the last one, epsilon counts
@each("n_rows,width", [(1, 3), (3, 7), (5, 64)])
def test_normalise_and_its_gradient_are_torchs(n_rows, width, scale):
    torch.manual_seed(2)
    rows = (scale * (torch.randn(n_rows, width) + 0.5)).double().requires_grad_()
    gain, offset, direction = torch.randn(width).double(), torch.randn(width).double(), torch.randn(n_rows, width)
    parameters = [gain.requires_grad_(), offset.requires_grad_()]
    expected = torch.nn.functional.layer_norm(rows, (width,), *parameters)
    theirs = torch.autograd.grad(expected, [rows, *parameters], direction.double())

    flat = np.r_[[np.nan] * 3, gain.detach(), offset.detach()].astype(np.float32)
    inverse_at, normal_at = U(1), U(1 + n_rows)
    normal, out = np.zeros(1 + n_rows + n_rows * width, np.float32), np.zeros(2 + n_rows * width, np.float32)
    sizes = (U(n_rows), U(width))
    inputs = rows.detach().float().numpy().ravel()
    kernels.normalise(inputs, flat, U(3), *sizes, normal, normal_at, inverse_at, out, U(2))
    np.testing.assert_allclose(out[2:], expected.detach().numpy().ravel(), rtol=1e-4, atol=1e-5)

    of_rows, of_parameters = np.full(n_rows * width, 9, np.float32), np.ones_like(flat)  # filled; added to
    gradient = direction.numpy().ravel()
    kernels.normalise_backward(normal, normal_at, inverse_at, flat, U(3), *sizes, gradient, of_rows, of_parameters)
    atol = 1e-5 * theirs[0].abs().max().item()
    np.testing.assert_allclose(of_rows, theirs[0].numpy().ravel(), rtol=1e-4, atol=atol)
    np.testing.assert_allclose(of_parameters[:3], 1)
    np.testing.assert_allclose(of_parameters[3:] - 1, np.r_[theirs[1], theirs[2]], rtol=1e-4, atol=1e-5)


def softmax(scores, scale):
    """(n, LANES) by the compiled function, at an offset."""
    found = np.r_[np.full(7, 5.0), scores.ravel()].astype(np.float32)
    attention._softmax(found, U(7), U(len(scores)), np.float32(scale))
    assert (found[:7] == 5).all()
    return found[7:].reshape(scores.shape)


@each("spread", [0.0, 1.0, 30.0, 1e4, 1e30])
@each("n", [1, 2, 16])
def test_softmax_is_torchs_however_large_the_scores(n, spread):
    scores = (spread * np.random.default_rng(1).normal(size=(n, LANES))).astype(np.float32)
    for scale in (1.0, 0.35):
        found = softmax(scores, scale)
        expected = (torch.from_numpy(scores).double() * np.float32(scale)).softmax(0).numpy()
        np.testing.assert_allclose(found, expected, rtol=3e-5 if spread > 1 else 1e-6, atol=1e-30)
        np.testing.assert_allclose(found.sum(0, dtype=float), 1, rtol=1e-6)


def test_softmax_of_the_largest_floats_and_of_equal_ones():
    scores = np.zeros((3, LANES), np.float32)
    scores[:, 0], scores[:, 1], scores[:, 2] = [3e38, -3e38, 0], [-3e38] * 3, [3e38, 3e38, -3e38]
    found = softmax(scores, 1.0)
    for lane, expected in enumerate(([1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0], [1 / 3] * 3)):
        assert found[:, lane].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-37)


@each("bad", [math.nan, math.inf])
@each("row", range(4))
def test_softmax_passes_on_what_is_not_finite_in_its_lane_alone(bad, row):
    scores = np.random.default_rng(1).normal(size=(4, LANES))
    scores[row, 9] = bad
    assert np.isnan(softmax(scores, 1.0)).any(0).tolist() == [lane == 9 for lane in range(LANES)]
