"""Prioritised replay of transitions (Schaul et al. 2016), on flat NumPy arrays.

A transition's priority is (|temporal-difference error| + 1e-8)^alpha; a new one gets the largest seen, so that
everything is replayed at least once in expectation. What is stored are states and actions: rewards and log P_B
are recomputed when a transition is drawn, so that nothing in the buffer can go stale.
This file is the same, byte for byte, in every suite.
"""

from typing import Any

import numpy as np
import torch

EPSILON = 1e-8


class PrioritisedReplay:
    """A ring buffer drawn with probability proportional to priority, with replacement.

    Args:
        capacity: transitions kept; the oldest leave.
        state_size: length of a state vector.
        priority_exponent: alpha; 0 draws uniformly.
        importance_exponent: beta of the weights (n * probability)^-beta / max; 0 gives ones.
    """

    def __init__(
        self, capacity: int, state_size: int, *, priority_exponent: float, importance_exponent: float = 0.0
    ) -> None:
        self.capacity, self.alpha, self.beta = capacity, priority_exponent, importance_exponent
        self._states = np.zeros((capacity, state_size), np.int32)
        self._actions = np.zeros(capacity, np.int32)
        self._priority = np.zeros(capacity, np.float64)
        self._next, self._size, self._largest = 0, 0, 1.0

    def __len__(self) -> int:
        return self._size

    def push(self, states: np.ndarray, actions: np.ndarray) -> None:
        """Store (M, state_size) states and (M,) actions with the largest priority so far."""
        where = (self._next + np.arange(len(actions))) % self.capacity
        self._states[where], self._actions[where], self._priority[where] = states, actions, self._largest
        self._next = (self._next + len(actions)) % self.capacity
        self._size = min(self._size + len(actions), self.capacity)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draw n transitions.

        Returns:
            (n,) positions for ``update``, (n, state_size) states, (n,) actions, (n,) float64 importance weights.
        """
        cumulative = self._priority[: self._size].cumsum()
        total = cumulative[-1]
        positions = np.searchsorted(cumulative, rng.random(n) * total, side="right").clip(max=self._size - 1)
        weights = (self._size * self._priority[positions] / total) ** -self.beta
        return positions, self._states[positions], self._actions[positions], weights / weights.max()

    def update(self, positions: np.ndarray, errors: np.ndarray) -> None:
        """Set the priorities of drawn transitions from their (n,) temporal-difference errors."""
        priority = (np.abs(errors) + EPSILON) ** self.alpha
        self._priority[positions] = priority
        self._largest = max(self._largest, float(priority.max()))

    def state_dict(self) -> dict[str, Any]:
        """What is stored, for a checkpoint."""
        arrays = (self._states, self._actions, self._priority)
        stored = [torch.from_numpy(array[: self._size].copy()) for array in arrays]
        return {"stored": stored, "next": self._next, "largest": self._largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._size = len(state["stored"][0])
        for array, stored in zip((self._states, self._actions, self._priority), state["stored"], strict=True):
            array[: self._size] = stored.numpy()
        self._next, self._largest = state["next"], state["largest"]
