"""Modes, the best molecules, diversity and correlation against plain loops over fingerprints as whole numbers."""

import copy
import io
import itertools
from functools import cache

import numpy as np
import pytest
import torch
from rdkit import Chem

from mols import evaluation
from mols.evaluation import Found, ModeCounter, MoleculeTracker, diversity, fingerprint, pearson, sorted_modes
from mols.tasks.seh_frag import THRESHOLDS

PIECES = ("C", "C", "N", "C=C")


def random_smiles(rng, n):
    """Chains of a few pieces, some of them more than once."""
    return ["".join(rng.choice(PIECES, size=rng.integers(2, 9))) for _ in range(n)]


@cache
def bits(smiles):
    """The fingerprint as one whole number."""
    return int(Chem.RDKFingerprint(Chem.MolFromSmiles(smiles)).ToBitString(), 2)


def similarity(left, right):
    """Tanimoto's: bits of both over bits of either."""
    return (left & right).bit_count() / (left | right).bit_count()


def plain_modes(founds, threshold):
    """SMILES accepted one after the other; every one is compared with every one before it."""
    modes = []
    for found in founds:
        if found.reward >= threshold and all(similarity(bits(found.smiles), other) < 0.7 for _, other in modes):
            modes.append((found.smiles, bits(found.smiles)))
    return [smiles for smiles, _ in modes]


@pytest.fixture(scope="module")
def founds():
    """Distinct molecules with rewards on both sides of the thresholds, some exactly at one, and many ties."""
    rng = np.random.default_rng(1)
    smiles = list(dict.fromkeys(random_smiles(rng, 240)))
    rewards = rng.choice([0.5, 0.86, 0.875, 0.9, 0.9375, 0.95, 1.0, 1.2], size=len(smiles))
    return [Found(text, float(r), step) for step, (text, r) in enumerate(zip(smiles, rewards, strict=True))]


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_modes_in_the_order_of_discovery_are_the_plain_loop_and_never_taken_back(founds, threshold):
    counter, before = ModeCounter(threshold), []
    for found in founds:
        counter.push(found, fingerprint(found.smiles))
        assert counter.modes[: len(before)] == before
        before = list(counter.modes)
    assert [mode.smiles for mode in counter.modes] == plain_modes(founds, threshold)
    assert any(mode.reward == threshold for mode in counter.modes)
    assert 5 < len(counter.modes) < sum(found.reward >= threshold for found in founds) - 2


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_sorted_modes_are_the_plain_loop_from_the_best_down(founds, threshold):
    in_order = []
    for reward in sorted({found.reward for found in founds}, reverse=True):
        in_order += [found for found in founds if found.reward == reward]  # ties as they were found
    modes = sorted_modes(founds, threshold)
    assert [mode.smiles for mode in modes] == plain_modes(in_order, threshold)
    assert [mode.smiles for mode in modes] != plain_modes(founds, threshold)


def test_a_similarity_of_seven_tenths_is_no_new_mode(monkeypatch):
    found = [Found(text, 1.0, step) for step, text in enumerate(("CCO", "CCN"))]
    for value, count in ((0.7, 1), (np.nextafter(0.7, 0), 2)):
        monkeypatch.setattr(evaluation, "BulkTanimotoSimilarity", lambda one, others, v=value: [v] * len(others))
        assert len(sorted_modes(found, 0.875)) == count
    assert sorted_modes([], 0.875) == []


def test_the_first_sorted_modes_and_those_of_a_higher_threshold_are_the_beginning_of_all(founds):
    modes = sorted_modes(founds, 0.5)
    assert len(modes) > 2
    for most in (0, 1, 2, len(modes) + 1):
        assert sorted_modes(founds, 0.5, most) == modes[:most]
    for threshold in {mode.reward for mode in modes}:
        assert sorted_modes(founds, threshold) == [mode for mode in modes if mode.reward >= threshold]


def test_tracker_is_a_plain_loop_over_all_that_was_pushed():
    """Distinct molecules by their first discovery, the 100 best, and means since the last call."""
    rng, tracker, seen, since = np.random.default_rng(2), MoleculeTracker(THRESHOLDS), {}, []
    for step in range(1, 31):
        batch = [None if rng.random() < 0.1 else text for text in random_smiles(rng, 12)]
        reward_of = {None: 1e-4} | {
            text: seen[text].reward if text in seen else rng.uniform(0.5, 1.2) for text in batch if text
        }
        rewards = [reward_of[text] for text in batch]
        tracker.push(batch, rewards, np.log(rewards), step)
        since += zip(batch, rewards, strict=True)
        for text, reward in zip(batch, rewards, strict=True):
            if text is not None:
                seen.setdefault(text, Found(text, reward, step))
        if step % 10:
            continue
        best = sorted(seen.values(), key=lambda found: -found.reward)[:100]
        assert tracker.top == [(found.smiles, found.reward) for found in best]
        assert len(best) == 100 or step == 10
        good = [found for found in seen.values() if found.reward >= 0.875]
        assert list(tracker.candidates.values()) == good
        metrics = tracker.metrics()
        assert metrics["mean_reward"] == pytest.approx(np.mean([reward for _, reward in since]))
        assert metrics["mean_log_reward"] == pytest.approx(np.mean([np.log(reward) for _, reward in since]))
        assert metrics["invalid_share"] == pytest.approx(np.mean([text is None for text, _ in since]))
        assert metrics["top_100_reward"] == pytest.approx(np.mean([found.reward for found in best]))
        assert metrics["top_100_reward"] != pytest.approx(metrics["mean_reward"], rel=1e-2)
        assert metrics["top_100_diversity"] == pytest.approx(diversity([found.smiles for found in best]))
        for threshold in THRESHOLDS:
            assert metrics[f"modes_found_{threshold:g}"] == len(plain_modes(good, threshold)) > 0
        assert len(metrics) == 5 + len(THRESHOLDS)
        since = []


def test_ties_at_the_end_of_the_best_stay_with_those_found_first():
    tracker = MoleculeTracker(THRESHOLDS)
    texts = ["C" * n for n in range(1, 121)]
    tracker.push(texts, [0.5] * 120, [0.0] * 120, 1)
    assert tracker.top == [(text, 0.5) for text in texts[:100]]
    tracker.push(["O", "O", "N"], [0.6, 0.6, 0.7], [0.0] * 3, 2)
    assert tracker.top == [("N", 0.7), ("O", 0.6)] + [(text, 0.5) for text in texts[:98]]


def test_tracker_of_nothing_but_invalid_molecules():
    tracker = MoleculeTracker(THRESHOLDS)
    tracker.push([None, None], [1e-4, 1e-4], [-75.0] * 2, 1)
    metrics = tracker.metrics()
    assert (metrics["invalid_share"], metrics["top_100_reward"], metrics["top_100_diversity"]) == (1.0, 0.0, 0.0)
    assert metrics["mean_reward"] == 1e-4 and tracker.top == [] and not tracker.candidates
    assert metrics.keys() - tracker.metrics().keys() == {"mean_reward", "mean_log_reward", "invalid_share"}


def test_modes_are_not_recounted(founds, monkeypatch):
    """One fingerprint for each candidate, whatever is asked how often."""
    calls, real = [], evaluation.fingerprint
    monkeypatch.setattr(evaluation, "fingerprint", lambda smiles: calls.append(smiles) or real(smiles))
    monkeypatch.setattr(evaluation, "diversity", lambda smiles: 0.0)
    tracker = MoleculeTracker(THRESHOLDS)
    for found in [*founds, *founds]:
        tracker.push([found.smiles], [found.reward], [0.0], found.step)
        tracker.metrics()
    assert calls == [found.smiles for found in founds if found.reward >= 0.875]


def test_tracker_survives_a_checkpoint(founds):
    tracker, restored = MoleculeTracker(THRESHOLDS), MoleculeTracker(THRESHOLDS)
    restored.push(["CCCCCC"], [1.1], [1.0], 1)  # to be forgotten
    half = len(founds) // 2
    for found in founds[:half]:
        tracker.push([found.smiles], [found.reward], [0.0], found.step)
    tracker.metrics()
    tracker.push([None, "CCO"], [1e-4, 0.7], [-75.0, -3.0], half)  # in the middle of an interval
    file = io.BytesIO()
    torch.save(copy.deepcopy(tracker.state_dict()), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    for found in founds[half:]:
        for each in (tracker, restored):
            each.push([found.smiles], [found.reward], [0.0], found.step)
    assert restored.top == tracker.top and restored.candidates == tracker.candidates
    assert [c.modes for c in restored.counters] == [c.modes for c in tracker.counters]
    assert all(isinstance(mode, Found) for counter in restored.counters for mode in counter.modes)
    assert restored.metrics() == tracker.metrics()


def test_diversity_is_the_mean_over_pairs():
    smiles = random_smiles(np.random.default_rng(5), 12)
    expected = np.mean([1 - similarity(bits(a), bits(b)) for a, b in itertools.combinations(smiles, 2)])
    assert diversity(smiles) == pytest.approx(expected)
    assert diversity(["CCO", "CCO"]) == 0.0 and diversity(["CCO"]) == diversity([]) == 0.0
    assert diversity(["CCO", "c1ccncc1"]) == pytest.approx(1 - similarity(bits("CCO"), bits("c1ccncc1")))


def test_pearson_by_hand():
    rng = np.random.default_rng(6)
    first = rng.normal(size=50)
    second = 0.5 * first + rng.normal(size=50)
    a, b = first - first.mean(), second - second.mean()
    expected = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
    assert pearson(first, second) == pytest.approx(expected) and 0.1 < expected < 0.9
    assert pearson(first, 3 * first + 1) == pytest.approx(1.0)
    assert pearson(first, -first) == pytest.approx(-1.0)
    assert isinstance(pearson(first, second), float)


@pytest.mark.parametrize("pair", [([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [3.0, 3.0])])
def test_a_correlation_that_is_not_defined_is_an_empty_cell(pair):
    assert pearson(*map(np.array, pair)) is None
