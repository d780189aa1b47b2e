"""Trajectories from the current P_F, as flat transitions."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hypergrid.environment import GridEnvironment
from hypergrid.kernels.rollout import Rollout, compiled_rollout, readable_rollout
from hypergrid.policies import Policies


class Transitions(NamedTuple):
    """M transitions of N complete trajectories, trajectory after trajectory, each in order of time.

    The U distinct states among them are listed once, so that a network sees each of them once; the transitions
    refer to their rows.

    Attributes:
        visited: (U, D) the distinct states.
        state_row: (M,) row in ``visited`` of the state that each transition leaves.
        next_row: (M,) row of the state that it reaches; its own state's where it stops.
        actions: (M,) in 0..D; D stops, once at the end of each trajectory.
        trajectory_index: (M,) in 0..N-1, not decreasing.
        is_stop: (M,) boolean.
    """

    visited: Tensor
    state_row: Tensor
    next_row: Tensor
    actions: Tensor
    trajectory_index: Tensor
    is_stop: Tensor

    @property
    def states(self) -> Tensor:
        """(M, D) the state that each transition leaves."""
        return self.visited[self.state_row]

    @property
    def n_trajectories(self) -> int:
        """N."""
        return int(self.trajectory_index[-1]) + 1

    @property
    def terminal_states(self) -> Tensor:
        """(N, D) where the trajectories stopped."""
        return self.visited[self.state_row[self.is_stop]]


def taken_log_pb(log_pb: Tensor, transitions: Transitions) -> Tensor:
    """(M,) log P_B(s_t | s_{t+1}) of the transitions taken; 0 on stops.

    Args:
        log_pb: (U, D) log P_B at the distinct states.
        transitions: the M transitions.
    """
    with_stop = torch.nn.functional.pad(log_pb, (0, 1))
    return with_stop[transitions.next_row, transitions.actions]


@torch.no_grad()
def sample_trajectories(
    policies: Policies,
    environment: GridEnvironment,
    n_trajectories: int,
    rng: np.random.Generator,
    coefficient: float = 1.0,
    kernels: str = "auto",
) -> Transitions:
    """N trajectories of P_F = softmax(forward head / coefficient), no exploration noise.

    Args:
        policies: the current weights.
        environment: the grid.
        n_trajectories: N.
        rng: the sampling stream.
        coefficient: entropy coefficient; 1 for the objectives whose head gives log P_F itself.
        kernels: torch, compiled or auto, which is compiled: a GPU would not walk so short a batch faster.
    """
    rollout = readable_rollout if kernels == "torch" else compiled_rollout
    return _transitions(rollout(policies, environment, n_trajectories, rng, coefficient), environment)


def _transitions(rollout: Rollout, environment: GridEnvironment) -> Transitions:
    visited, state_row, actions, trajectory_index = rollout
    is_stop = actions == environment.stop_action
    next_row = np.where(is_stop, state_row, np.append(state_row[1:], 0))
    strides = environment.height ** np.arange(environment.ndim - 1, -1, -1)
    coordinates = visited[:, None] // strides % environment.height
    arrays = (coordinates, state_row, next_row, actions, trajectory_index, is_stop)
    return Transitions(*(torch.from_numpy(array).to(environment.device) for array in arrays))
