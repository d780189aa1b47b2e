"""The hypergrid: torchgfn's ``HyperGrid`` with what a flat, vectorised training loop needs beside it.

States are {0..H-1}^D, an action adds 1 to one coordinate or stops, s_0 = 0 and every state can terminate.
With a_d = |s_d / (H-1) - 0.5|,

    R(s) = R0 + R1 prod_d [a_d > 0.25] + R2 prod_d [0.3 < a_d < 0.4]        (Bengio et al. 2021)

in exact arithmetic. torchgfn computes a_d in floating point, where of the mirror cells 1 and 9 of H = 11, both at a =
0.4, one gets R2 and the other does not; so too for H = 21, 31 and so on. State indices are torchgfn's canonical ones
(row-major). Actions 0..D-1 add 1 to that coordinate, action D stops. A grid of too many states to list has no tables;
all else is the same.
"""

import math

import numpy as np
import torch
from gfn.gym import HyperGrid
from gfn.gym.hypergrid import OriginalReward
from torch import Tensor

from hypergrid.settings import MAX_ENUMERATED


class ExactReward(OriginalReward):
    """torchgfn's ``original`` reward in whole numbers: with a = b / (2 (H-1)), b = |2 s - (H-1)|."""

    def __call__(self, states: Tensor) -> Tensor:
        """(..., D) whole states -> (...,) rewards, in the default float type."""
        shell, band = self.zones(states)
        return self.kwargs["R0"] + shell.prod(-1) * self.kwargs["R1"] + band.prod(-1) * self.kwargs["R2"]

    def zones(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Whole numbers -> of each whether a > 0.25, and whether 0.3 < a < 0.4."""
        span = self.height - 1
        twice = (2 * coordinates - span).abs()
        return 2 * twice > span, (5 * twice > 3 * span) & (5 * twice < 4 * span)


class ExactGrid(HyperGrid):
    """torchgfn's ``HyperGrid`` whose reward is ``ExactReward``.

    Args:
        ndim, height: D and H.
        store_all_states: whether they fit into memory.
        levels: R0, R1 and R2.
    """

    def __init__(self, ndim: int, height: int, *, store_all_states: bool = True, **levels: float) -> None:
        super().__init__(
            ndim=ndim,
            height=height,
            reward_fn_kwargs=levels,
            store_all_states=store_all_states,
            validate_modes=False,  # it would refuse heights under 5
        )
        self.reward_fn = ExactReward(height, ndim, **levels)

    def _enumerate_all_states_tensor(self, batch_size: int = 0) -> None:
        """All states in the order of their indices; torchgfn's own starts a process per core for it."""
        if self.store_all_states:
            grid = torch.cartesian_prod(*[torch.arange(self.height)] * self.ndim)
            self._all_states_tensor = grid.view(-1, self.ndim)
            self._log_partition = self.reward_fn(self._all_states_tensor).sum().log().item()

    def log_partition(self, condition: None = None) -> float:
        """log Z in closed form, nats: Z = R0 H^D + R1 shell^D + R2 band^D, of the H coordinates those in each zone."""
        counts = [self.height, *(int(zone.sum()) for zone in self.reward_fn.zones(torch.arange(self.height)))]
        levels = (self.reward_fn.kwargs[name] for name in ("R0", "R1", "R2"))
        return math.log(sum(level * count**self.ndim for level, count in zip(levels, counts, strict=True)))


class GridEnvironment:
    """A hypergrid with its reward, exact distribution, masks and state indices.

    Args:
        ndim: D, at least 1.
        height: H, at least 3.
        R0, R1, R2: the reward's levels; R0 positive.
        device: where states and rewards of training live.

    Attributes:
        gfn: the torchgfn environment.
        n_states: H**D, all of them terminating.
        log_z: log sum of R, nats.
        enumerated: whether there are at most ``MAX_ENUMERATED`` states; the tables below exist only then.
        log_rewards: (H**D,) log R of every state, nats, on ``device``.
        modes: (H**D,) the number of the mode that each state is in, -1 for none.
        true_distribution: (H**D,) float64 NumPy array R / Z.
        probability_levels: (K,) its few distinct values, and (K,) how many states have each.
    """

    def __init__(self, ndim: int, height: int, R0: float, R1: float, R2: float, device: str = "cpu") -> None:
        self.ndim, self.height, self.device = ndim, height, torch.device(device)
        self.n_states = height**ndim
        self.stop_action = ndim
        self.max_length = ndim * (height - 1) + 1
        self.enumerated = self.n_states <= MAX_ENUMERATED
        self.gfn = ExactGrid(ndim, height, store_all_states=self.enumerated, R0=R0, R1=R1, R2=R2)
        self.log_z = self.gfn.log_partition()
        self.strides = torch.tensor([height ** (ndim - 1 - d) for d in range(ndim)], device=self.device)
        if self.enumerated:
            states = self.gfn.all_states.tensor
            self.log_rewards = self._log_reward(states).to(self.device)
            self.modes = self._mode(states).to(self.device)
            rewards = self.gfn.reward_fn(states).double()
            self.true_distribution = (rewards / rewards.sum()).numpy()
            self.probability_levels = np.unique(self.true_distribution, return_counts=True)

    def index(self, states: Tensor) -> Tensor:
        """(M, D) states -> (M,) canonical indices."""
        return (states * self.strides).sum(-1)

    def states_at(self, index: Tensor) -> Tensor:
        """(M,) canonical indices -> (M, D) states."""
        return index.unsqueeze(-1) // self.strides % self.height

    def log_reward(self, states: Tensor) -> Tensor:
        """(M, D) -> (M,) log R in nats."""
        return self.log_rewards[self.index(states)] if self.enumerated else self._log_reward(states)

    def mode(self, states: Tensor) -> Tensor:
        """(M, D) -> (M,) number of the mode, one of 2^D corners, that each state is in; -1: in none."""
        return self.modes[self.index(states)] if self.enumerated else self._mode(states)

    def _log_reward(self, states: Tensor) -> Tensor:
        return self.gfn.reward_fn(states).double().log().to(torch.get_default_dtype())

    def _mode(self, states: Tensor) -> Tensor:
        _, band = self.gfn.reward_fn.zones(states)
        corner = ((2 * states >= self.height) * 2 ** torch.arange(self.ndim, device=states.device)).sum(-1)
        return torch.where(band.all(-1), corner, -1)

    def forward_mask(self, states: Tensor) -> Tensor:
        """(M, D) -> (M, D+1) boolean: coordinates below H-1 can grow, stop is always legal."""
        return torch.nn.functional.pad(states < self.height - 1, (0, 1), value=True)

    def backward_mask(self, states: Tensor) -> Tensor:
        """(M, D) -> (M, D) boolean: coordinates above 0 can shrink."""
        return states > 0

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """(M, D), (M,) -> (M, D) next states; a stop leaves the state as it is."""
        return states + torch.nn.functional.one_hot(actions, self.ndim + 1)[:, : self.ndim]

    def levels(self) -> list[np.ndarray]:
        """State indices grouped by coordinate sum, 0..D(H-1): a topological order of the graph."""
        total = self.states_at(torch.arange(self.n_states, device=self.device)).sum(-1).cpu().numpy()
        order = np.argsort(total, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(total[order])) + 1)
