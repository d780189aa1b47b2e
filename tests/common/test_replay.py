"""Prioritised replay: what is kept, how often it is drawn, and with which weight."""

import numpy as np
import pytest
from scipy import stats

from hypergrid.common.replay import PrioritisedReplay


def make_replay(n_items, *, capacity=None, priority_exponent=0.5, importance_exponent=0.0):
    """A buffer of n items, whose state is (i, 10 i) and whose action is i."""
    replay = PrioritisedReplay(
        capacity or n_items, 2, priority_exponent=priority_exponent, importance_exponent=importance_exponent
    )
    push(replay, np.arange(n_items))
    return replay


def push(replay, items, priorities=1.0):
    replay.push(np.stack([items, 10 * items], axis=1), items, priorities)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_draws_are_proportional_to_the_priorities(alpha):
    priorities = np.array([0.1, 4.0, 1.0, 0.5, 2.0])
    replay = make_replay(5, capacity=9, priority_exponent=alpha)
    replay.update(np.arange(5), priorities)
    positions, states, actions, weights = replay.draw(50_000, np.random.default_rng(2))
    expected = priorities**alpha
    counts = np.bincount(positions, minlength=5)
    assert stats.chisquare(counts, 50_000 * expected / expected.sum()).pvalue > 1e-4
    assert np.array_equal(states, np.stack([positions, 10 * positions], axis=1))
    assert np.array_equal(actions, positions)
    assert np.array_equal(weights, np.ones(50_000))  # importance exponent 0


@pytest.mark.parametrize("beta", [0.1, 0.4, 1.0])
def test_importance_weights_by_hand(beta):
    priorities = np.array([0.25, 1.0, 4.0])
    replay = make_replay(3, importance_exponent=beta)
    replay.update(np.arange(3), priorities)
    positions, _, _, weights = replay.draw(500, np.random.default_rng(3))
    probability = np.sqrt(priorities) / np.sqrt(priorities).sum()  # 1/7, 2/7, 4/7
    raw = (3 * probability) ** -beta
    assert set(positions) == {0, 1, 2}
    np.testing.assert_allclose(weights, raw[positions] / raw.max(), rtol=1e-6)
    assert weights.max() == 1.0


def test_importance_weights_make_the_mean_unbiased():
    """At exponent 1 the weighted mean of drawn values is proportional to their plain mean."""
    rng, n_items = np.random.default_rng(4), 20
    values, replay = rng.normal(size=n_items), make_replay(n_items, importance_exponent=1.0)
    replay.update(np.arange(n_items), rng.uniform(0.1, 3.0, n_items))
    positions, _, _, weights = replay.draw(200_000, rng)
    assert np.average(values[positions], weights=weights) == pytest.approx(values.mean(), abs=0.015)


def test_the_oldest_are_overwritten_in_order():
    replay = make_replay(3, capacity=5)
    assert len(replay) == 3
    push(replay, np.arange(3, 7))
    assert len(replay) == 5
    _, states, actions, _ = replay.draw(500, np.random.default_rng(1))
    assert set(actions) == {2, 3, 4, 5, 6}
    assert np.array_equal(states, np.stack([actions, 10 * actions], axis=1))


def test_of_a_batch_beyond_the_capacity_the_last_stay():
    replay = make_replay(13, capacity=5)
    assert len(replay) == 5
    assert set(replay.draw(500, np.random.default_rng(1))[2]) == {8, 9, 10, 11, 12}
    push(replay, np.array([13]))
    assert set(replay.draw(500, np.random.default_rng(1))[2]) == {9, 10, 11, 12, 13}


def test_new_items_get_the_priorities_they_come_with():
    replay = make_replay(2, capacity=4, priority_exponent=1.0)
    replay.update(np.arange(2), np.array([9.0, 3.0]))
    replay.update(np.arange(1), np.array([1.0]))
    push(replay, np.array([2, 3]), np.array([4.0, 5.0]))
    counts = np.bincount(replay.draw(13_000, np.random.default_rng(5))[0], minlength=4)
    assert stats.chisquare(counts, [1_000, 3_000, 4_000, 5_000]).pvalue > 1e-4


def test_the_largest_priority_is_remembered_when_no_item_has_it_any_more():
    replay = make_replay(2, capacity=4)
    assert replay.largest == 1.0
    push(replay, np.array([2]), np.array([9.0]))
    replay.update(np.arange(3), np.array([1.0, 2.0, 3.0]))
    assert replay.largest == 9.0


def test_a_priority_of_zero_is_still_drawn_from_without_a_failure():
    replay = make_replay(3)
    replay.update(np.arange(3), np.zeros(3))
    assert set(replay.draw(100, np.random.default_rng(1))[0]) == {0, 1, 2}


@pytest.mark.parametrize("n_items", [3, 5, 8])
def test_round_trip_gives_the_same_draws_and_the_same_future(n_items):
    options = {"capacity": 5, "priority_exponent": 0.7, "importance_exponent": 0.3}
    replay, restored = make_replay(n_items, **options), make_replay(1, **options)
    replay.update(np.array([0, 1]), np.array([5.0, 0.1]))
    restored.load_state_dict(replay.state_dict())
    for seed in range(3):
        mine, theirs = (buffer.draw(50, np.random.default_rng(seed)) for buffer in (replay, restored))
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
        for buffer in (replay, restored):
            push(buffer, np.array([20 + seed, 30 + seed]))
