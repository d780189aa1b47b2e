"""What a run has found and how well its P_F knows the reward: modes, the best molecules, correlations.

A mode is a molecule with a reward r of at least a threshold that is unlike every mode before it: Tanimoto similarity of
RDKit's topological fingerprints below 0.7. ``ModeCounter`` accepts molecules in the order in which training finds them
and never takes one back, so that the count is a curve; ``sorted_modes`` accepts them best first, as the paper does, and
is counted once, at the end.
"""

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.DataStructs import BulkTanimotoSimilarity, ExplicitBitVect

MAX_SIMILARITY = 0.7
N_TOP = 100
MEANS = {"mean_reward": "reward", "mean_log_reward": "log_reward", "invalid_share": "invalid"}  # since the last row


class Found(NamedTuple):
    """A molecule of training: canonical SMILES, reward r, and the step that found it first."""

    smiles: str
    reward: float
    step: int


def fingerprint(smiles: str) -> ExplicitBitVect:
    """RDKit's topological fingerprint."""
    return Chem.RDKFingerprint(Chem.MolFromSmiles(smiles))


class ModeCounter:
    """Modes in the order of their discovery.

    Args:
        threshold: smallest reward r of a mode.

    Attributes:
        modes: accepted so far.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.modes: list[Found] = []
        self._fingerprints: list[ExplicitBitVect] = []

    def push(self, found: Found, bits: ExplicitBitVect) -> None:
        """Accept a molecule with its fingerprint if it is one."""
        if found.reward >= self.threshold and is_unlike(bits, self._fingerprints):
            self.modes.append(found)
            self._fingerprints.append(bits)

    def restore(self, modes: Sequence[Found]) -> None:
        """Replace the modes."""
        self.modes = list(modes)
        self._fingerprints = [fingerprint(mode.smiles) for mode in self.modes]


def is_unlike(bits: ExplicitBitVect, others: list[ExplicitBitVect]) -> bool:
    """Whether a fingerprint's similarity to every other one is below 0.7."""
    return max(BulkTanimotoSimilarity(bits, others), default=0.0) < MAX_SIMILARITY


def sorted_modes(candidates: Sequence[Found], threshold: float, most: int | None = None) -> list[Found]:
    """Modes accepted best first, ties in the order of discovery; the first ``most``, or all.

    Those of a higher threshold are the first ones of a lower, up to where their rewards end.
    """
    counter = ModeCounter(threshold)
    for found in sorted(candidates, key=lambda found: -found.reward):
        if found.reward < threshold or len(counter.modes) == most:
            break
        counter.push(found, fingerprint(found.smiles))
    return counter.modes


class MoleculeTracker:
    """What training has found so far, updated by each batch of molecules.

    Args:
        thresholds: rewards r from which on a molecule may be a mode, the lowest first.

    Attributes:
        counters: one ``ModeCounter`` for each threshold.
        candidates: every molecule with a reward of at least the lowest threshold, by SMILES.
    """

    def __init__(self, thresholds: Sequence[float]) -> None:
        self.thresholds = tuple(thresholds)
        self.counters = [ModeCounter(threshold) for threshold in thresholds]
        self.candidates: dict[str, Found] = {}
        self._top: list[tuple[float, int, str]] = []  # a heap of (reward, - order of discovery, SMILES)
        self._n_seen = 0
        self._recent = {"reward": 0.0, "log_reward": 0.0, "invalid": 0, "molecules": 0}

    def push(
        self, smiles: Sequence[str | None], rewards: Sequence[float], log_rewards: Sequence[float], step: int
    ) -> None:
        """Take note of a batch; SMILES None is an invalid molecule, log R in nats."""
        self._recent["reward"] += float(sum(rewards))
        self._recent["log_reward"] += float(sum(log_rewards))
        self._recent["molecules"] += len(smiles)
        for text, reward in zip(smiles, rewards, strict=True):
            if text is None:
                self._recent["invalid"] += 1
                continue
            found = Found(text, float(reward), step)
            self._push_top(found)
            if found.reward >= self.thresholds[0] and text not in self.candidates:
                self.candidates[text] = found
                bits = fingerprint(text)
                for counter in self.counters:
                    counter.push(found, bits)

    def _push_top(self, found: Found) -> None:
        self._n_seen += 1
        if len(self._top) == N_TOP and found.reward <= self._top[0][0]:
            return
        if any(found.smiles == text for _, _, text in self._top):
            return
        entry = (found.reward, -self._n_seen, found.smiles)
        (heapq.heappushpop if len(self._top) == N_TOP else heapq.heappush)(self._top, entry)

    @property
    def top(self) -> list[tuple[str, float]]:
        """The best distinct molecules so far, at most 100, best first: (SMILES, reward)."""
        return [(smiles, reward) for reward, _, smiles in sorted(self._top, reverse=True)]

    def metrics(self) -> dict[str, float]:
        """Modes and the best molecules so far; of what came since the last call, if any, the ``MEANS``."""
        count, top = self._recent["molecules"], self.top
        metrics = {f"modes_found_{c.threshold:g}": len(c.modes) for c in self.counters}
        metrics |= {name: self._recent[part] / count for name, part in MEANS.items() if count}
        metrics |= {
            "top_100_reward": float(np.mean([reward for _, reward in top])) if top else 0.0,
            "top_100_diversity": diversity([smiles for smiles, _ in top]),
        }
        self._recent = dict.fromkeys(self._recent, 0)
        return metrics

    def best_first(self) -> dict[str, int]:
        """Modes accepted best first, at each threshold."""
        modes = sorted_modes(list(self.candidates.values()), self.thresholds[0])
        return {f"modes_sorted_{each:g}": sum(mode.reward >= each for mode in modes) for each in self.thresholds}

    def state_dict(self) -> dict[str, Any]:
        """What was found, for a checkpoint: text and numbers."""
        return {
            "candidates": [tuple(found) for found in self.candidates.values()],
            "modes": [[mode.smiles for mode in counter.modes] for counter in self.counters],
            "top": self._top,
            "n_seen": self._n_seen,
            "recent": self._recent,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.candidates = {smiles: Found(smiles, reward, step) for smiles, reward, step in state["candidates"]}
        for counter, modes in zip(self.counters, state["modes"], strict=True):
            counter.restore([self.candidates[smiles] for smiles in modes])
        self._top = [tuple(entry) for entry in state["top"]]
        self._n_seen, self._recent = state["n_seen"], state["recent"]


def diversity(smiles: Sequence[str]) -> float:
    """Mean over all pairs of 1 - Tanimoto similarity; 0 for fewer than two molecules."""
    bits = [fingerprint(text) for text in smiles]
    pairs = [s for i in range(1, len(bits)) for s in BulkTanimotoSimilarity(bits[i], bits[:i])]
    return 1.0 - float(np.mean(pairs)) if pairs else 0.0


def pearson(first: np.ndarray, second: np.ndarray) -> float | None:
    """Pearson's correlation of two (S,) arrays; None, an empty cell, where it is not defined."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])
