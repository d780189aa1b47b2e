"""Trajectories from P_F and backward ones from P_B, as flat transitions; equal states of a batch are evaluated once."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mols.environments.base import STOP, Environment, States, concatenate, rows_of
from mols.policies.model import Policies

BELOW_ONE = 1 - 2.0**-50  # keeps a random number times a rounded total strictly below the total


class Transitions(NamedTuple):
    """M transitions of N complete trajectories, trajectory after trajectory, each in order of time.

    The U distinct states among them are listed once, so that a network sees each of them once.

    Attributes:
        visited: U rows, the distinct states.
        state_row: (M,) row in ``visited`` of the state that each transition leaves.
        next_row: (M,) row of the state that it reaches; its own state's where it stops.
        actions: (M,) forward actions.
        undo: (M,) the backward action that undoes each; of stops, any.
        trajectory_index: (M,) in 0..N-1, not decreasing.
        is_stop: (M,) boolean, the last transition of each trajectory.
    """

    visited: States
    state_row: Tensor
    next_row: Tensor
    actions: Tensor
    undo: Tensor
    trajectory_index: Tensor
    is_stop: Tensor

    @property
    def n_trajectories(self) -> int:
        """N."""
        return int(self.trajectory_index[-1]) + 1

    @property
    def terminal_states(self) -> States:
        """N rows: where the trajectories stopped."""
        return rows_of(self.visited, self.state_row[self.is_stop])


def taken_log_pb(log_pb: Tensor, transitions: Transitions) -> Tensor:
    """(M,) log P_B(s_t | s_{t+1}) of the transitions taken; 0 on stops.

    Args:
        log_pb: (U, B) log P_B at the distinct states.
        transitions: the M transitions.
    """
    moves = ~transitions.is_stop
    taken = log_pb[transitions.next_row[moves], transitions.undo[moves]]
    return log_pb.new_zeros(len(moves)).index_put((moves.nonzero().squeeze(1),), taken)


def distinct(states: States, environment: Environment) -> tuple[States, Tensor]:
    """The distinct states of M, and (M,) the row of each among them."""
    keys, inverse = environment.keys(states).unique(return_inverse=True)
    # Any of the equal ones: the last one written.
    some = inverse.new_zeros(len(keys)).scatter(0, inverse, torch.arange(len(inverse), device=inverse.device))
    return rows_of(states, some), inverse


@torch.no_grad()
def sample_trajectories(
    policies: Policies,
    environment: Environment,
    n_trajectories: int,
    rng: np.random.Generator,
    *,
    coefficient: float = 1.0,
    rand_action_prob: float = 0.0,
) -> Transitions:
    """N trajectories of P_F = softmax(forward heads / coefficient).

    Args:
        policies: whose weights sample.
        environment: the graphs.
        n_trajectories: N.
        rng: the sampling stream.
        coefficient: entropy coefficient; 1 for the objectives whose heads give log P_F itself.
        rand_action_prob: how often an action is drawn uniformly among the legal ones instead.
    """
    states, running = environment.initial_states(n_trajectories), torch.arange(n_trajectories)
    visited, steps, n_visited, tables = [], [], 0, policies.tables()
    while len(running):
        unique, row = distinct(states, environment)
        logits = policies.forward_logits(unique, policies.features(unique, tables)) / coefficient
        # One draw for every trajectory, running or not, so that no trajectory's numbers depend on another's length.
        explore, uniform = torch.from_numpy(rng.random((2, n_trajectories)))[:, running].to(row.device)
        weights = logits.double().softmax(-1)[row]
        weights = torch.where((explore < rand_action_prob)[:, None], (logits[row] > -torch.inf).double(), weights)
        actions = draw(weights, uniform)
        steps.append((running, n_visited + row, actions, environment.undo(states, actions)))
        visited.append(unique)
        n_visited += len(unique[0])
        states = environment.step(states, actions)
        goes_on = (actions != STOP).cpu()
        states, running = rows_of(states, goes_on), running[goes_on]
    return _in_order(visited, steps)


def _in_order(visited: list[States], steps: list[tuple[Tensor, ...]]) -> Transitions:
    """Transitions trajectory by trajectory, from those step by step."""
    trajectory, row, actions, undo = (torch.cat(column) for column in zip(*steps, strict=True))
    order = trajectory.argsort(stable=True)
    trajectory, row, actions, undo = trajectory[order], row[order], actions[order], undo[order]
    is_stop = actions == STOP
    return Transitions(
        visited=concatenate(visited),
        state_row=row,
        next_row=torch.where(is_stop, row, row.roll(-1)),
        actions=actions,
        undo=undo,
        trajectory_index=trajectory.to(row.device),
        is_stop=is_stop,
    )


def draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """(N,) indices drawn with probability proportional to (N, K) float64 weights, from (N,) numbers in [0, 1)."""
    cumulative = weights.cumsum(-1)
    threshold = uniform[:, None] * cumulative[:, -1:] * BELOW_ONE
    return (cumulative <= threshold).sum(-1)  # an index without weight is never the first one above


@torch.no_grad()
def estimated_log_prob(
    finished: States,
    policies: Policies,
    environment: Environment,
    rng: np.random.Generator,
    *,
    rounds: int,
    coefficient: float = 1.0,
) -> Tensor:
    """(S,) estimates of log P(x), nats: the log of the mean of P_F(tau) / P_B(tau | x) over backward trajectories.

    Isomorphic parents are not merged, so that a tree counts once for each of its symmetries: what the estimates tend to
    is their number times P_F's probability of the tree.

    Args:
        finished: S states that can stop.
        policies: P_F and the P_B that the trajectories are drawn from.
        environment: the graphs.
        rng: the evaluation stream.
        rounds: backward trajectories for each state.
        coefficient: P_F = softmax(forward heads / coefficient).
    """
    n_states = len(finished[0])
    states = rows_of(finished, torch.arange(n_states).repeat(rounds))
    actions = torch.full((len(states[0]),), STOP, device=states[0].device)
    log_ratio = torch.zeros(len(actions), device=states[0].device)
    running, tables = torch.arange(len(actions)), policies.tables()
    while True:
        unique, row = distinct(states, environment)
        features = policies.features(unique, tables)
        logits = policies.forward_logits(unique, features) / coefficient
        log_ratio[running] += (logits - logits.logsumexp(-1, keepdim=True))[row, actions]
        goes_on = ~environment.is_empty(states)
        if not goes_on.any():
            break
        log_pb = policies.backward_log_probs(unique, features)
        states, row, running = rows_of(states, goes_on), row[goes_on], running[goes_on.cpu()]
        uniform = torch.from_numpy(rng.random(len(running))).to(row.device)
        backward = draw(log_pb.double().exp()[row], uniform)
        log_ratio[running] -= log_pb[row, backward]
        states, actions = environment.backward_step(states, backward)
    return log_ratio.view(rounds, -1).logsumexp(0) - np.log(rounds)
