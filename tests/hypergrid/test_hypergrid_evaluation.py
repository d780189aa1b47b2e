"""Distances by hand, the perfect sampler's floor, and the histogram against a plain queue."""

from collections import deque

import numpy as np
import pytest
import torch
from scipy import stats

from hypergrid import evaluation
from hypergrid.environment import GridEnvironment
from hypergrid.evaluation import TerminalHistogram, distances, perfect_l1_dist


def test_distances_by_hand():
    """l1_dist is a mean over states: a quarter of the L1 norm here, not the norm itself."""
    sampled, true = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.4, 0.3, 0.2, 0.1])
    found = distances(sampled, true)
    assert found["l1_dist"] == pytest.approx((0.1 + 0.2 + 0.2 + 0.1) / 4)
    assert found["total_variation"] == pytest.approx(0.3)
    logs = np.log([0.4 / (0.5 + 1e-9), 0.3 / (0.5 + 1e-9), 0.2 / 1e-9, 0.1 / 1e-9])
    assert found["kl_dist"] == pytest.approx((true * logs).sum())
    assert set(found) == {"l1_dist", "total_variation", "kl_dist"}


def test_distances_of_the_truth_are_zero():
    true = np.array([0.4, 0.3, 0.2, 0.1])
    found = distances(true, true)
    assert found["l1_dist"] == found["total_variation"] == 0.0
    assert found["kl_dist"] == pytest.approx(0.0, abs=1e-7)


def test_floor_is_the_mean_distance_of_perfect_samples():
    """4,000 repetitions; the tolerance is five standard errors of their mean."""
    rng, true, n_samples = np.random.default_rng(8), np.array([0.5, 0.2, 0.15, 0.1, 0.04, 0.01]), 37
    samples = rng.multinomial(n_samples, true, size=4_000) / n_samples
    simulated = np.array([distances(sample, true)["l1_dist"] for sample in samples])
    error = simulated.std() / np.sqrt(len(simulated))
    assert perfect_l1_dist(*np.unique(true, return_counts=True), n_samples) == pytest.approx(
        simulated.mean(), abs=5 * error
    )


@pytest.mark.parametrize("n_samples", [1, 2, 10, 1000])
def test_floor_is_the_exact_mean_absolute_deviation_of_binomials(n_samples):
    true = np.array([0.6, 0.25, 0.1, 0.05])
    counts = np.arange(n_samples + 1)
    means = [np.sum(np.abs(counts / n_samples - p) * stats.binom.pmf(counts, n_samples, p)) for p in true]
    assert perfect_l1_dist(*np.unique(true, return_counts=True), n_samples) == pytest.approx(np.mean(means), rel=1e-9)


@pytest.mark.parametrize(("rewards", "floor"), [((1e-3, 0.5, 2.0), 1.403e-6), ((1e-4, 1.0, 3.0), 1.120e-6)])
def test_floor_of_the_papers_grids(rewards, floor):
    environment = GridEnvironment(4, 20, *rewards)
    assert perfect_l1_dist(*environment.probability_levels, 200_000) == pytest.approx(floor, rel=2e-3)


@pytest.mark.parametrize("capacity", [1, 7, 50])
def test_histogram_is_a_plain_queue(capacity):
    rng, n_states = np.random.default_rng(capacity), 5
    histogram, queue = TerminalHistogram(capacity), deque(maxlen=capacity)
    for _ in range(300):
        batch = rng.integers(n_states, size=rng.integers(1, 20))  # often more than the capacity of 7
        histogram.push(batch)
        queue.extend(batch.tolist())
        assert len(histogram) == len(queue)
        expected = np.bincount(list(queue), minlength=n_states) / len(queue)
        np.testing.assert_array_equal(histogram.frequencies(n_states), expected)


@pytest.mark.parametrize("n_pushed", [3, 10, 24])
def test_histogram_survives_a_round_trip(n_pushed):
    rng = np.random.default_rng(1)
    histogram, restored = TerminalHistogram(10), TerminalHistogram(10)
    histogram.push(rng.integers(4, size=n_pushed // 2))
    histogram.push(rng.integers(4, size=n_pushed - n_pushed // 2))
    restored.load_state_dict(histogram.state_dict())
    for _ in range(4):
        np.testing.assert_array_equal(restored.frequencies(4), histogram.frequencies(4))
        batch = rng.integers(4, size=3)
        histogram.push(batch)
        restored.push(batch)


@pytest.mark.parametrize("coefficient", [1.0, 1 / 0.85])
def test_forward_probabilities_are_the_masked_softmax_of_every_state(grid, new_policies, coefficient):
    environment, policies = grid(2, 4), new_policies(2, 4, scale=5.0)
    found = evaluation.forward_probabilities(policies, environment, coefficient)
    for index in range(environment.n_states):
        state = environment.states_at(torch.tensor([index]))
        output = policies.forward_head(policies.trunk(state))[0].detach().double().numpy() / coefficient
        expected = np.exp(output) * environment.forward_mask(state)[0].numpy()
        np.testing.assert_allclose(found[index], expected / expected.sum(), rtol=1e-5)


def test_probabilities_of_a_large_grid_do_not_depend_on_the_chunks(grid, new_policies, monkeypatch):
    environment, policies = grid(2, 8), new_policies(2, 8, scale=5.0)
    whole = evaluation.forward_probabilities(policies, environment)
    monkeypatch.setattr(evaluation, "CHUNK", 7)
    np.testing.assert_allclose(evaluation.forward_probabilities(policies, environment), whole, rtol=1e-5)
