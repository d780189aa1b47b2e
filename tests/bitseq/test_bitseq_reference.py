"""What a perfect sampler scores, against enumeration and a Markov chain; the best independent words, by enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from each import each

from bitseq import reference
from bitseq.environment import mode_bits, mode_strings


def enumerated(n: int, m_size: int, exponent: float) -> tuple[float, float]:
    """log Z and the mean log R of R/Z, by a plain loop over all strings."""
    modes = [int(mode, 2) for mode in mode_strings(n, m_size)]
    log_reward = [-exponent * min((x ^ mode).bit_count() for mode in modes) for x in range(2**n)]
    z = sum(map(math.exp, log_reward))
    return math.log(z), sum(value * math.exp(value) for value in log_reward) / z


# With modes that repeat (5 of 8 bits), that lie 4 bits apart (25 of 16), and with balls as wide as the space (0.3).
@each("n,k,m_size,exponent", [(8, 2, 5, 2.0), (16, 4, 25, 2.0), (16, 8, 25, 0.3), (16, 8, 4, 3.0)])
def test_a_perfect_sampler_is_that_of_enumeration(strings, n, k, m_size, exponent):
    environment, expected = strings(n, k, m_size, exponent), enumerated(n, m_size, exponent)
    assert reference.perfect(environment) == pytest.approx(expected, abs=1e-6)
    log_z, mean = reference.corrected(environment)  # which longer strings take
    assert log_z == pytest.approx(expected[0], abs=3e-3) and mean == pytest.approx(expected[1], abs=1.5e-2)
    closed = reference.separate_modes(environment)
    assert closed[0] > expected[0] and closed[1] < expected[1], "it counts strings twice"


def test_the_closed_form_is_exact_for_one_mode(strings):
    environment = strings(16, 8, 1)
    assert reference.separate_modes(environment) == pytest.approx(enumerated(16, 1, 2.0), abs=1e-9)
    assert reference.corrected(environment) == pytest.approx(reference.separate_modes(environment), abs=1e-9)


def test_a_perfect_sampler_of_the_papers_strings(strings):
    expected = math.log(60) + 120 * math.log(1 + math.exp(-2)), -240 / (1 + math.exp(2))
    assert reference.separate_modes(strings(120, 8, 60)) == pytest.approx(expected)
    assert reference.perfect(strings(120, 8, 60)) == pytest.approx(expected, abs=1e-4)
    assert expected == pytest.approx((19.3, -28.6), abs=0.05)


def chain_means(n: int, exponents: np.ndarray, n_chains: int = 300, n_moves: int = 3000) -> np.ndarray:
    """Mean distance to the nearest of 60 modes under exp(-exponent * distance) / Z, by Metropolis, for each exponent.

    A move flips a bit, or carries a string over to where it would lie at another mode.
    """
    rng, modes = np.random.default_rng(1), mode_bits(n, 60)
    signs = (1 - 2 * modes.T).astype(np.float32)

    def distance(x):
        return (x.astype(np.float32) @ signs + modes.sum(1)).min(1)

    x = rng.integers(2, size=(n_chains, n))
    now, means, chains = distance(x), [], np.arange(n_chains)
    for exponent in exponents:
        sums = 0.0
        for move in range(n_moves):
            new = x.copy()
            if move % 2:
                new ^= modes[rng.integers(60, size=n_chains)] ^ modes[rng.integers(60, size=n_chains)]
            else:
                new[chains, rng.integers(n, size=n_chains)] ^= 1
            proposed = distance(new)
            accepted = rng.random(n_chains) < np.exp(-exponent * (proposed - now))
            x[accepted], now[accepted] = new[accepted], proposed[accepted]
            sums += now.mean() * (move >= n_moves // 4)
        means.append(sums / (n_moves - n_moves // 4))
    return np.array(means)


@pytest.mark.slow
@pytest.mark.parametrize("n", [24, 64])
def test_a_perfect_sampler_is_that_of_a_long_markov_chain(strings, n):
    """log Z by thermodynamic integration: its derivative by the exponent is minus the mean distance."""
    exponents = np.linspace(0, 2, 17)
    means = chain_means(n, exponents)
    weights = np.array([1, *[4, 2] * 7, 4, 1]) * (exponents[1] - exponents[0]) / 3  # Simpson's
    log_z, mean = reference.perfect(strings(n, 8, 60))
    assert -2 * means[-1] == pytest.approx(mean, abs=0.25)
    assert n * math.log(2) - weights @ means == pytest.approx(log_z, abs=0.1)


@each("shared", [True, False])
def test_independent_words_are_a_stationary_point_of_the_divergence(strings, shared):
    """log q(w) = const + mean over positions of E_q[log R(x with w there)], expectations over all 256 strings."""
    environment = strings(8, 2, 5)
    q, mean = reference.independent_words(environment, 30, shared)
    everything = torch.tensor(list(itertools.product(range(4), repeat=4)))
    log_reward = environment.log_reward(everything).double()
    probability = torch.stack([q[i][everything[:, i]] for i in range(4)]).prod(0)
    assert mean == pytest.approx((probability * log_reward).sum().item(), abs=0.05)
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for i, word in itertools.product(range(4), range(4)):
        here = everything[:, i] == word
        expected[i, word] = (probability * log_reward)[here].sum() / q[i, word]
    expected = expected.mean(0, keepdim=True) if shared else expected
    torch.testing.assert_close(q, expected.log_softmax(1).exp().expand(4, 4), atol=0.03, rtol=0)
    assert (q - q.mean(0)).abs().max() < 1e-12 if shared else (q - 0.25).abs().max() > 0.1


def test_independent_words_start_as_random_strings(strings):
    q, mean = reference.independent_words(strings(16, 4, 6), 0)
    assert torch.equal(q, torch.full((4, 16), 1 / 16))
    bits = np.array([[int(bit) for bit in format(x, "016b")] for x in range(2**16)])
    nearest = (bits[:, None] != mode_bits(16, 6)).sum(-1).min(1)
    assert mean == pytest.approx(-2 * nearest.mean(), abs=0.1)


def test_the_command_prints_both_references(capsys):
    assert reference.main(["--n", "16", "--k", "8"]) == 2
    assert "--M_size is 60: strings of 16 bits have at most 25 modes" in capsys.readouterr().err
    assert reference.main(["--n", "32", "--k", "16", "--M_size", "5"]) == 2
    assert "lists pairs of words, take at most 12 bits" in capsys.readouterr().err
    assert reference.main(["--n", "8", "--k", "2", "--M_size", "5"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert reference.main(["--n", "24", "--k", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a perfect sampler: log Z 6.776, mean log R -5.12" and len(lines) == 5
