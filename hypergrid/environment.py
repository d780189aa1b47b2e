"""The hypergrid: torchgfn's ``HyperGrid`` with what a flat, vectorised training loop needs beside it.

States are {0..H-1}^D, an action adds 1 to one coordinate or stops, s_0 = 0 and every state can terminate.
With a_d = |s_d / (H-1) - 0.5|,

    R(s) = R0 + R1 prod_d [a_d > 0.25] + R2 prod_d [0.3 < a_d < 0.4]        (Bengio et al. 2021)

in exact arithmetic. torchgfn computes a_d in floating point, where of the mirror cells 1 and 9 of H = 11, both at
a = 0.4, one gets R2 and the other does not; so too for H = 21, 31 and so on. The states class and the exact
distribution are torchgfn's; state indices are its canonical ones (row-major). Actions 0..D-1 add 1 to that coordinate,
action D stops.
"""

import math

import numpy as np
import torch
from gfn.gym import HyperGrid
from gfn.gym.hypergrid import OriginalReward
from torch import Tensor


class ExactReward(OriginalReward):
    """torchgfn's ``original`` reward in whole numbers: with a = b / (2 (H-1)), b = |2 s - (H-1)|."""

    def __call__(self, states: Tensor) -> Tensor:
        """(..., D) whole states -> (...,) rewards, in the default float type."""
        span = self.height - 1
        twice = (2 * states - span).abs()
        shell = (2 * twice > span).prod(-1)
        band = ((5 * twice > 3 * span) & (5 * twice < 4 * span)).prod(-1)
        return self.kwargs["R0"] + shell * self.kwargs["R1"] + band * self.kwargs["R2"]


class ExactGrid(HyperGrid):
    """torchgfn's ``HyperGrid`` whose reward is ``ExactReward``; all states are stored.

    Args:
        ndim, height: D and H.
        levels: R0, R1 and R2.
    """

    def __init__(self, ndim: int, height: int, **levels: float) -> None:
        # Modes are not validated: that would refuse heights under 5.
        super().__init__(ndim=ndim, height=height, reward_fn_kwargs=levels, store_all_states=True, validate_modes=False)
        self.reward_fn = ExactReward(height, ndim, **levels)

    def log_partition(self, condition: None = None) -> float:
        """Log sum of the rewards, nats; torchgfn's own was computed before the reward was replaced."""
        return math.log(self.reward(self.all_states).double().sum().item())


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
        log_rewards: (H**D,) log R of every state, nats, on ``device``.
        true_distribution: (H**D,) float64 NumPy array R / Z.
        probability_levels: (K,) its few distinct values, and (K,) how many states have each.
        log_z: log sum of R, nats.
    """

    def __init__(self, ndim: int, height: int, R0: float, R1: float, R2: float, device: str = "cpu") -> None:
        self.ndim, self.height, self.device = ndim, height, torch.device(device)
        self.n_states = height**ndim
        self.stop_action = ndim
        self.max_length = ndim * (height - 1) + 1
        self.gfn = ExactGrid(ndim, height, R0=R0, R1=R1, R2=R2)
        rewards = self.gfn.reward(self.gfn.all_states).double()
        self.log_z = self.gfn.log_partition()
        self.true_distribution = (rewards / rewards.sum()).numpy()
        self.probability_levels = np.unique(self.true_distribution, return_counts=True)
        self.log_rewards = rewards.log().to(device=self.device, dtype=torch.get_default_dtype())
        self.strides = torch.tensor([height ** (ndim - 1 - d) for d in range(ndim)], device=self.device)

    def index(self, states: Tensor) -> Tensor:
        """(M, D) states -> (M,) canonical indices."""
        return (states * self.strides).sum(-1)

    def states_at(self, index: Tensor) -> Tensor:
        """(M,) canonical indices -> (M, D) states."""
        return index.unsqueeze(-1) // self.strides % self.height

    def log_reward(self, states: Tensor) -> Tensor:
        """(M, D) -> (M,) log R in nats."""
        return self.log_rewards[self.index(states)]

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
