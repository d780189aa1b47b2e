"""The backward approaches as one table, and the pure functions that train and score P_B.

A GFlowNet objective trains P_F against a backward policy P_B. The approaches compared here differ in
where that P_B comes from, and every difference is a field of one row of ``APPROACHES``:

    approach     P_B       loss of P_B       on which batch  scored by the P_F objective
    uniform      uniform   -                 -               fixed
    naive        learned   -                 -               online, gradient reaches P_B
    maxent       maxent    maxent residual*  current         fixed
    tlm          learned   likelihood        current         EMA target
    pessimistic  learned   likelihood        recent          online, detached

    * only where log n(s) has no closed form and is learned.

Trajectory likelihood maximisation (TLM) minimises, over the backward policy alone,

    L_TLM(tau) = - sum_t log P_B(s_{t-1} | s_t),       tau ~ P_F          (Gritsaev et al. 2025, Algorithm 1)

whose minimiser at fixed P_F is Bayes' reversal P_B(s | s') = mu(s) P_F(s' | s) / mu(s').

Conventions: M transitions of N trajectories lie flat, A backward actions, log-probabilities in nats.
This file is the same, byte for byte, in every suite.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

N_RECENT_BATCHES = 20  # the buffer of Jang et al. 2024, as the paper's comparison uses it


@dataclass(frozen=True)
class BackwardApproach:
    """One row of the table: everything in which two approaches differ."""

    name: str
    policy: Literal["uniform", "maxent", "learned"]
    loss: str | None  # a name of LOSSES, or maxent_residual
    batch: Literal["current", "recent"] | None
    scored: Literal["fixed", "online", "online_detached", "target"]
    decays_learning_rate: bool
    source: str  # BibTeX key

    @property
    def forward_gradient_reaches_backward(self) -> bool:
        """Whether the P_F objective's own gradient trains P_B."""
        return self.scored == "online"


APPROACHES: dict[str, BackwardApproach] = {
    row.name: row
    for row in (
        BackwardApproach("uniform", "uniform", None, None, "fixed", False, "malkin2022trajectory"),
        BackwardApproach("naive", "learned", None, None, "online", False, "bengio2023gflownet"),
        BackwardApproach("maxent", "maxent", "maxent_residual", "current", "fixed", False, "mohammadpour2024maximum"),
        BackwardApproach("tlm", "learned", "likelihood", "current", "target", True, "gritsaev2025optimizing"),
        BackwardApproach(
            "pessimistic", "learned", "likelihood", "recent", "online_detached", False, "jang2024pessimistic"
        ),
    )
}


def trajectory_negative_log_likelihood(log_pb: Tensor, n_trajectories: int) -> Tensor:
    """Mean over trajectories of the summed -log P_B, the TLM loss (Gritsaev et al. 2025, Algorithm 1).

    Args:
        log_pb: (M,) log P_B(s_t | s_{t+1}) of all transitions of the batch, in nats.
        n_trajectories: N.

    Returns:
        Scalar, in nats per trajectory.
    """
    return -log_pb.sum() / n_trajectories


# The losses of P_B that need no more than log P_B of the transitions taken; every suite finds them here by name.
LOSSES: dict[str, Callable[[Tensor, int], Tensor]] = {"likelihood": trajectory_negative_log_likelihood}


def uniform_log_pb(legal: Tensor) -> Tensor:
    """(M, A) log of 1 / number of legal backward actions; -inf where illegal (Malkin et al. 2022).

    Args:
        legal: (M, A) boolean.
    """
    log_count = legal.sum(-1, keepdim=True).clamp(min=1).to(torch.get_default_dtype()).log()
    return (-log_count).expand(legal.shape).masked_fill(~legal, -torch.inf)


def maxent_log_pb(log_n_parents: Tensor, legal: Tensor) -> Tensor:
    """(M, A) log n(s) / n(s'), the maximum-entropy P_B (Mohammadpour et al. 2024).

    Args:
        log_n_parents: (M, A) log number of trajectories from s_0 to each parent; an additive constant per row
            cancels, because n(s') is the sum of n over the parents.
        legal: (M, A) boolean.

    Returns:
        (M, A) nats, -inf where illegal; the initial state's row, which has no parent, is -inf throughout.
    """
    log_n = log_n_parents.masked_fill(~legal, -torch.inf)
    return (log_n - torch.logsumexp(log_n, -1, keepdim=True)).masked_fill(~legal, -torch.inf)


def maxent_residual(log_n_child: Tensor, log_n_parent: Tensor, log_pb: Tensor) -> Tensor:
    """(M,) log n(s') + log P_B(s | s') - log n(s); all 0 exactly at the maximum-entropy P_B.

    Args:
        log_n_child: (M,) learned log n(s').
        log_n_parent: (M,) learned log n(s).
        log_pb: (M,) log P_B(s | s') in nats.
    """
    return log_n_child + log_pb - log_n_parent


def uniform_deviation(log_pb: Tensor, legal: Tensor) -> Tensor:
    """Mean |log P_B - log uniform| over the legal backward actions of non-initial states; 0 for uniform.

    Args:
        log_pb: (M, A) online log P_B in nats; illegal entries are ignored.
        legal: (M, A) boolean; a row without a legal action is an initial state and does not count.
    """
    difference = (log_pb - uniform_log_pb(legal).to(log_pb.dtype))[legal]
    return difference.abs().mean() if difference.numel() else log_pb.new_zeros(())


@torch.no_grad()
def ema_update(target: Iterable[Tensor], online: Iterable[Tensor], decay: float) -> None:
    """In place: target <- decay * target + (1 - decay) * online. ``decay`` is the weight of the OLD parameters."""
    target, online = list(target), list(online)
    if target:
        torch._foreach_lerp_(target, online, 1.0 - decay)


class RecentBatches:
    """The last batches of trajectories, one of which is drawn for a ``recent`` P_B loss (Jang et al. 2024)."""

    def __init__(self, capacity: int = N_RECENT_BATCHES) -> None:
        self._batches: deque[Any] = deque(maxlen=capacity)

    def push(self, batch: Any) -> None:
        """Append a batch; the oldest leaves once the buffer is full."""
        self._batches.append(batch)

    def draw(self, rng: np.random.Generator) -> Any:
        """One stored batch, uniformly. Raises IndexError when nothing was pushed."""
        if not self._batches:
            raise IndexError("no batch was pushed yet")
        return self._batches[int(rng.integers(len(self._batches)))]

    def state_dict(self) -> list[Any]:
        """The stored batches, oldest first."""
        return list(self._batches)

    def load_state_dict(self, batches: Iterable[Any]) -> None:
        """Replace what is stored."""
        self._batches = deque(batches, maxlen=self._batches.maxlen)
