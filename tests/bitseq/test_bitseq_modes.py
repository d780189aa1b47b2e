"""What training has found so far, against a plain loop over texts of 0 and 1."""

import copy

import numpy as np
import pytest
import torch
from each import each

from bitseq import evaluation
from bitseq.environment import mode_strings
from bitseq.evaluation import ModeTracker


def hamming(left, right):
    return sum(a != b for a, b in zip(left, right, strict=True))


def as_text(environment, state):
    return "".join(format(word, f"0{environment.k}b") for word in state)


@each("threshold", [0, 2, 16])
@each("reward_exponent", [2.0, 0.7])
def test_mode_tracker_is_a_plain_loop(strings, monkeypatch, threshold, reward_exponent):
    monkeypatch.setattr(evaluation, "N_CURRENT", 20)
    environment = strings(16, 4, 6, reward_exponent)
    tracker, rng = ModeTracker(environment, threshold), np.random.default_rng(3)
    modes, n_sampled, rewards, everything = mode_strings(16, 6), 0, [], []
    found_at, best, text_of_best = [-1] * 6, [17] * 6, [None] * 6
    assert tracker.modes_found == 0 and tracker.best_distance.tolist() == best
    for step in range(60):
        batch = torch.from_numpy(rng.integers(16, size=(1 + step % 5, 4)))
        if step == 40:
            batch[0] = environment.test_states[2 * 16 + threshold % 16]  # at the threshold's distance of the third mode
        tracker.push(batch)
        texts = [as_text(environment, state) for state in batch.tolist()]
        n_sampled, everything = n_sampled + len(texts), everything + texts
        rewards += [-reward_exponent * min(hamming(text, mode) for mode in modes) for text in texts]
        for m, mode in enumerate(modes):
            apart = [hamming(text, mode) for text in texts]
            if min(apart) <= threshold and found_at[m] < 0:
                found_at[m] = n_sampled
            if min(apart) < best[m]:
                best[m], text_of_best[m] = min(apart), [t for t, d in zip(texts, apart, strict=True) if d == min(apart)]
        assert tracker.found_at.tolist() == found_at
        assert tracker.best_distance.tolist() == best
        kept = [as_text(environment, state) for state in tracker.best_string.tolist()]
        assert all(text in candidates for text, candidates in zip(kept, text_of_best, strict=True))
        if step % 9 == 4:
            metrics = tracker.metrics()
            assert metrics.keys() == {"modes_found", "modes_current", "mean_reward", "mean_log_reward"}
            near = [min(hamming(text, mode) for text in everything[-20:]) <= threshold for mode in modes]
            assert metrics["modes_current"] == sum(near)
            assert metrics["modes_found"] == sum(at >= 0 for at in found_at)
            assert metrics["mean_log_reward"] == pytest.approx(np.mean(rewards), rel=1e-6)
            assert metrics["mean_reward"] == pytest.approx(np.mean(np.exp(rewards)), rel=1e-6)
            rewards = []  # since the last call
            assert tracker.metrics().keys() == {"modes_found", "modes_current"}, "there is no mean of nothing"
    assert found_at[2] >= 0 and (threshold or -1 in found_at)
    assert threshold or metrics["modes_current"] < metrics["modes_found"], "forgotten again"


def test_a_mode_is_found_at_the_threshold_and_not_one_bit_further(strings):
    environment = strings(120, 8, 60)
    for threshold, distance, found in [(30, 30, True), (30, 31, False), (0, 0, True), (0, 1, False), (120, 119, True)]:
        tracker = ModeTracker(environment, threshold)
        string = environment.test_states[distance][None]  # of the first mode
        assert environment.distances(string)[0, 0] == distance
        tracker.push(string)
        assert (tracker.found_at[0] == 1) == found
        assert tracker.modes_found == int((environment.distances(string) <= threshold).sum())


def test_repeated_modes_are_found_together(strings):
    environment = strings(8, 2)
    modes = mode_strings(8, 5)
    first = next(m for m, mode in enumerate(modes) if modes.count(mode) > 1)
    tracker = ModeTracker(environment, 0)
    tracker.push(environment.test_states[first * 8][None])
    assert (tracker.found_at >= 0).tolist() == [mode == modes[first] for mode in modes]


def test_mode_tracker_survives_a_round_trip(strings):
    environment, rng = strings(8, 2), np.random.default_rng(1)
    tracker, restored = ModeTracker(environment, 1), ModeTracker(environment, 1)
    tracker.push(torch.from_numpy(rng.integers(4, size=(3, 4))))
    tracker.metrics()
    tracker.push(torch.from_numpy(rng.integers(4, size=(2, 4))))  # in the middle of an interval
    restored.load_state_dict(copy.deepcopy(tracker.state_dict()))
    for _ in range(4):
        batch = torch.from_numpy(rng.integers(4, size=(5, 4)))
        for one in (tracker, restored):
            one.push(batch)
        for name in ("found_at", "seen_at", "best_distance", "best_string"):
            assert torch.equal(getattr(restored, name), getattr(tracker, name))
        assert restored.metrics() == tracker.metrics()
