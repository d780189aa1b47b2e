"""Tiny grids, their exact solutions and all their trajectories, against which the package is checked."""

from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from hypergrid_agents import grid_of
from torch import Tensor

from hypergrid.environment import GridEnvironment
from hypergrid.policies import maxent_grid_log_pb, uniform_grid_log_pb
from hypergrid.sampling import Transitions


def random_grid() -> GridEnvironment:
    """A 4x4 grid in double precision with a random reward, so that a swapped coordinate or a shifted index shows."""
    environment = copy(grid_of(2, 4, dtype=torch.float64))
    rewards = torch.from_numpy(np.random.default_rng(7).uniform(0.1, 3.0, environment.n_states))
    environment.log_rewards = rewards.log()
    environment.log_z = rewards.sum().log().item()
    environment.true_distribution = (rewards / rewards.sum()).numpy()
    return environment


@dataclass
class Solution:
    """P_F, P_B and log F of every state, -inf where illegal; exact if it comes from ``solve``.

    ``log_pf`` is (S, D+1), ``log_pb`` is (S, D), ``log_flow`` is (S,), for the S states in canonical order.
    """

    log_pf: Tensor
    log_pb: Tensor
    log_flow: Tensor


def children(environment: GridEnvironment, state: int) -> list[tuple[int, int]]:
    """(action, index of the state that it reaches) of every action that grows a coordinate; plain integers."""
    digits = [state // environment.height**d % environment.height for d in reversed(range(environment.ndim))]
    return [
        (d, state + environment.height ** (environment.ndim - 1 - d))
        for d in range(environment.ndim)
        if digits[d] < environment.height - 1
    ]


def backward_table(environment: GridEnvironment, kind: str) -> Tensor:
    """(S, D) log P_B of every state, uniform, maxent or random."""
    states = environment.states_at(torch.arange(environment.n_states))
    if kind == "random":
        logits = torch.from_numpy(np.random.default_rng(3).normal(size=states.shape) * 2)
        return logits.masked_fill(states == 0, -torch.inf).log_softmax(-1).masked_fill(states == 0, -torch.inf)
    return {"uniform": uniform_grid_log_pb, "maxent": maxent_grid_log_pb}[kind](states)


def solve(environment: GridEnvironment, log_pb: Tensor) -> Solution:
    """The one P_F and F that satisfy every balance condition with this P_B, by recursion from the last state.

    F(s) = R(s) + sum_s' F(s') P_B(s|s'),   P_F(s'|s) = F(s') P_B(s|s') / F(s),   P_F(stop|s) = R(s) / F(s).
    """
    n_states, ndim = environment.n_states, environment.ndim
    rewards = environment.log_rewards.exp()
    flow, edge = torch.zeros(n_states), torch.zeros(n_states, ndim + 1)
    for state in reversed(range(n_states)):  # a child's index is larger than its parent's
        edge[state, ndim] = rewards[state]
        for action, child in children(environment, state):
            edge[state, action] = flow[child] * log_pb[child, action].exp()
        flow[state] = edge[state].sum()
    return Solution((edge / flow[:, None]).log(), log_pb, flow.log())


def all_trajectories(environment: GridEnvironment) -> Transitions:
    """Every trajectory from s_0 to every stop, each once; ``visited`` is all states in canonical order."""
    rows = []  # (state, next state, action, trajectory)
    n_trajectories = 0

    def extend(history: list[tuple[int, int, int]], state: int) -> None:
        nonlocal n_trajectories
        stopped = [*history, (state, state, environment.ndim)]
        rows.extend((*step, n_trajectories) for step in stopped)
        n_trajectories += 1
        for action, child in children(environment, state):
            extend([*history, (state, child, action)], child)

    extend([], 0)
    state, following, action, trajectory = torch.tensor(rows).T
    visited = environment.states_at(torch.arange(environment.n_states))
    return Transitions(visited, state, following, action, trajectory, action == environment.ndim)


def random_policy(environment: GridEnvironment, seed: int) -> Tensor:
    """(S, D+1) log P_F drawn at random, -inf where illegal."""
    states = environment.states_at(torch.arange(environment.n_states))
    illegal = ~environment.forward_mask(states)
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=illegal.shape))
    return logits.masked_fill(illegal, -torch.inf).log_softmax(-1)


def sum_by_trajectory(values: Tensor, batch: Transitions) -> Tensor:
    """(M,) -> (N,) sums over each trajectory."""
    return torch.stack([values[batch.trajectory_index == n].sum() for n in range(batch.n_trajectories)])
