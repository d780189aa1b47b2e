"""How far a sampler is from R / Z: by what it sampled, and exactly.

Empirical distances compare the last terminal states of training with the true distribution p:

    l1_dist = mean over states of |q - p|,   kl_dist = sum p log(p / (q + 1e-9)),   total_variation = sum |q - p| / 2

``l1_dist`` is a mean over states: times their number it is the L1 norm. A perfect sampler scores ``l1_floor``,
not 0. The exact distances have no sampling noise: P_F's own distribution over terminal states by dynamic
programming, mu(s_0) = 1, mu(s') = sum_s mu(s) P_F(s'|s), P(x) = mu(x) P_F(stop|x).

A grid that is too large to list its states has only ``mean_log_reward``, in nats, and ``modes_visited``, of 2^D, both
of the last terminal states, and the error of log Z.
"""

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from hypergrid.environment import GridEnvironment
from hypergrid.policies import Policies

KL_EPSILON = 1e-9
MAX_EXACT_STATES = 1_000_000
CHUNK = 8192


class TerminalHistogram:
    """Of the last ``capacity`` terminal states, by their indices."""

    def __init__(self, capacity: int) -> None:
        self._index = np.zeros(capacity, np.int64)
        self._total = 0

    def __len__(self) -> int:
        return min(self._total, len(self._index))

    @property
    def index(self) -> np.ndarray:
        """(len,) indices, in no order."""
        return self._index[: len(self)]

    def push(self, index: np.ndarray) -> None:
        """Add (N,) state indices; the oldest leave once ``capacity`` is reached."""
        index = index[-len(self._index) :]
        self._index[(self._total + np.arange(len(index))) % len(self._index)] = index
        self._total += len(index)

    def frequencies(self, n_states: int) -> np.ndarray:
        """(n_states,) empirical distribution. At least one draw is needed."""
        return np.bincount(self.index, minlength=n_states) / len(self)

    def state_dict(self) -> dict[str, int | Tensor]:
        """What is kept, for a checkpoint."""
        return {"recent": torch.from_numpy(self.index.copy()), "total": self._total}

    def load_state_dict(self, state: dict[str, int | Tensor]) -> None:
        """Restore what ``state_dict`` returned."""
        self._total = state["total"]
        self._index[: len(self)] = state["recent"].numpy()


def distances(sampled: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """l1_dist, kl_dist (nats) and total_variation of (n_states,) distributions."""
    difference = np.abs(sampled - true)
    return {
        "l1_dist": float(difference.mean()),
        "kl_dist": float((true * np.log(true / (sampled + KL_EPSILON))).sum()),
        "total_variation": float(difference.sum() / 2),
    }


def perfect_l1_dist(levels: np.ndarray, count: np.ndarray, n_samples: int) -> float:
    """Expected l1_dist of n independent draws from the true distribution itself: the floor of every curve.

    Args:
        levels: (K,) its distinct values.
        count: (K,) how many states have each.
        n_samples: n.

    The mean absolute deviation of a binomial is 2 m (1-p) b(m; n, p) with m = floor(np) + 1 (De Moivre).
    """
    m = np.floor(n_samples * levels) + 1
    deviation = 2 * m * (1 - levels) * binom.pmf(m, n_samples, levels) / n_samples
    return float((deviation * count).sum() / count.sum())


@torch.no_grad()
def forward_probabilities(policies: Policies, environment: GridEnvironment, coefficient: float = 1.0) -> np.ndarray:
    """(n_states, D+1) P_F of every state, float64."""
    index = torch.arange(environment.n_states, device=environment.device)
    chunks = []
    for part in index.split(CHUNK):
        states = environment.states_at(part)
        logits = policies.forward_logits(states, policies.trunk(states)) / coefficient
        chunks.append(logits.double().softmax(-1).cpu().numpy())
    return np.concatenate(chunks)


def terminal_distribution(probabilities: np.ndarray, environment: GridEnvironment) -> np.ndarray:
    """(n_states,) exact probability that a trajectory stops in each state, by dynamic programming.

    Args:
        probabilities: (n_states, D+1) P_F of every state, 0 where illegal.
        environment: the grid.
    """
    visit = np.zeros(environment.n_states)
    visit[0] = 1.0
    strides = environment.strides.tolist()
    for level in environment.levels():
        for dimension, stride in enumerate(strides):
            flow = visit[level] * probabilities[level, dimension]
            moving = flow > 0
            visit[level[moving] + stride] += flow[moving]
    return visit * probabilities[:, -1]
