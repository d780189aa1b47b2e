"""Prioritised replay of transitions (Schaul et al. 2016), on flat NumPy arrays.

A transition is drawn with probability proportional to (priority + 1e-8)^alpha. Which priority a new or a drawn
transition gets is the caller's rule; the buffer only keeps it. What is stored are states and actions: rewards and
log P_B are recomputed when a transition is drawn, so that nothing in the buffer can go stale.
This file is the same, byte for byte, in every suite.
"""

from typing import Any

import numpy as np
import torch

EPSILON = 1e-8


class PrioritisedReplay:
    """A ring buffer drawn by priority, with replacement.

    ``largest`` is the largest priority given so far, 1 at first.

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
        self._weight = np.zeros(capacity, np.float64)
        self._next, self._size, self.largest = 0, 0, 1.0

    def __len__(self) -> int:
        return self._size

    def push(self, states: np.ndarray, actions: np.ndarray, priorities: np.ndarray | float) -> None:
        """Store (M, state_size) states and (M,) actions with their (M,) priorities, or one for all, at least 0."""
        where = (self._next + np.arange(len(actions))) % self.capacity
        self._states[where], self._actions[where] = states, actions
        self.update(where, priorities)
        self._next = (self._next + len(actions)) % self.capacity
        self._size = min(self._size + len(actions), self.capacity)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draw n transitions.

        Returns:
            (n,) positions for ``update``, (n, state_size) states, (n,) actions, (n,) float64 importance weights.
        """
        cumulative = self._weight[: self._size].cumsum()
        total = cumulative[-1]
        positions = np.searchsorted(cumulative, rng.random(n) * total, side="right").clip(max=self._size - 1)
        weights = (self._size * self._weight[positions] / total) ** -self.beta
        return positions, self._states[positions], self._actions[positions], weights / weights.max()

    def update(self, positions: np.ndarray, priorities: np.ndarray | float) -> None:
        """Set the priorities of the transitions at (n,) positions, as ``draw`` returned them; at least 0."""
        self._weight[positions] = (np.asarray(priorities, np.float64) + EPSILON) ** self.alpha
        self.largest = max(self.largest, float(np.max(priorities)))

    def state_dict(self) -> dict[str, Any]:
        """What is stored, for a checkpoint."""
        arrays = (self._states, self._actions, self._weight)
        stored = [torch.from_numpy(array[: self._size].copy()) for array in arrays]
        return {"stored": stored, "next": self._next, "largest": self.largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._size = len(state["stored"][0])
        arrays: tuple[np.ndarray, ...] = (self._states, self._actions, self._weight)
        for array, stored in zip(arrays, state["stored"], strict=True):
            array[: self._size] = stored.numpy()
        self._next, self.largest = state["next"], state["largest"]
