"""Trajectories from the current P_F, or by P_B back from strings, as flat transitions.

All trajectories have L transitions, so the batch walks in step: one network pass per step, no string by itself.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bitseq.environment import StringEnvironment
from bitseq.policies.backward import Backward
from bitseq.policies.logits import ActionLogits
from bitseq.policies.model import Policies

BELOW_ONE = 1 - 2.0**-50  # keeps a random number times a rounded total strictly below the total


class Transitions(NamedTuple):
    """M = N L transitions of N complete trajectories, trajectory after trajectory, each in order of time.

    Attributes:
        visited: (M + N, L) every state once: the M that the transitions leave, in their order, then the N strings.
        next_row: (M,) row in ``visited`` of the state that each transition reaches.
        actions: (M,).
        trajectory_index: (M,) in 0..N-1, not decreasing.
        is_last: (M,) boolean, the transitions that complete a string.
    """

    visited: Tensor
    next_row: Tensor
    actions: Tensor
    trajectory_index: Tensor
    is_last: Tensor

    @property
    def n_trajectories(self) -> int:
        """N."""
        return len(self.visited) - len(self.actions)

    @property
    def states(self) -> Tensor:
        """(M, L) the state that each transition leaves."""
        return self.visited[: len(self.actions)]

    @property
    def next_states(self) -> Tensor:
        """(M, L) the state that each transition reaches."""
        return self.visited[self.next_row]

    @property
    def terminal_states(self) -> Tensor:
        """(N, L) the complete strings."""
        return self.visited[len(self.actions) :]


def taken_log_pb(log_pb: Tensor, actions: Tensor, n_words: int) -> Tensor:
    """(M,) log P_B(s_t | s_{t+1}) of the transitions taken.

    Args:
        log_pb: (M, L) log P_B at the states that the transitions reach.
        actions: (M,) of the transitions.
        n_words: V.
    """
    return log_pb.gather(1, (actions // n_words).unsqueeze(1)).squeeze(1)


@torch.no_grad()
def sample_trajectories(
    policies: Policies,
    environment: StringEnvironment,
    n_trajectories: int,
    rng: np.random.Generator,
    *,
    coefficient: float = 1.0,
    rand_action_prob: float = 0.0,
) -> Transitions:
    """N trajectories of P_F = softmax(forward head / coefficient), in whatever mode (dropout) the policies are.

    Args:
        policies: the current weights.
        environment: the strings.
        n_trajectories: N.
        rng: the sampling stream.
        coefficient: entropy coefficient; 1 for the objectives whose head gives log P_F itself.
        rand_action_prob: how often an action is drawn uniformly among the legal ones instead.
    """
    length, device = environment.length, environment.device
    draws = torch.from_numpy(rng.random((length, 3, n_trajectories))).to(device)
    states, actions = [environment.initial_states(n_trajectories)], []
    for explore, *uniform in draws:
        logits = policies.forward_logits(states[-1], policies.trunk(states[-1])).over(coefficient)
        actions.append(draw_actions(logits, states[-1] == environment.empty, explore < rand_action_prob, *uniform))
        states.append(environment.step(states[-1], actions[-1]))
    return _transitions(torch.stack(states, dim=1), torch.stack(actions, dim=1))


@torch.no_grad()
def backward_trajectories(
    strings: Tensor, backward: Backward, environment: StringEnvironment, rng: np.random.Generator
) -> Transitions:
    """One trajectory of P_B from each of (N, L) complete strings, in the order in which P_F would go it."""
    draws = torch.from_numpy(rng.random((environment.length, len(strings)))).to(strings.device)
    states, actions = [strings], []
    for uniform in draws:
        position = draw(backward.log_probs(states[0]).exp().double(), uniform)
        state, action = environment.backward_step(states[0], position)
        states, actions = [state, *states], [action, *actions]
    return _transitions(torch.stack(states, dim=1), torch.stack(actions, dim=1))


def joined(one: Transitions, other: Transitions) -> Transitions:
    """The trajectories of both, those of ``other`` behind."""
    parts = [batch.states.view(batch.n_trajectories, -1, batch.visited.shape[1]) for batch in (one, other)]
    full = torch.cat([one.terminal_states, other.terminal_states]).unsqueeze(1)
    actions = [batch.actions.view(batch.n_trajectories, -1) for batch in (one, other)]
    return _transitions(torch.cat([torch.cat(parts), full], dim=1), torch.cat(actions))


def _transitions(states: Tensor, actions: Tensor) -> Transitions:
    """Of N trajectories' (N, L + 1, L) states, the first s_0, and (N, L) actions."""
    n_trajectories, length = actions.shape
    trajectory = torch.arange(n_trajectories, device=states.device).repeat_interleave(length)
    is_last = (torch.arange(length, device=states.device) == length - 1).repeat(n_trajectories)
    row = torch.arange(len(trajectory), device=states.device)
    return Transitions(
        visited=torch.cat([states[:, :-1].flatten(0, 1), states[:, -1]]),
        next_row=torch.where(is_last, len(row) + trajectory, row + 1),
        actions=actions.flatten(),
        trajectory_index=trajectory,
        is_last=is_last,
    )


def draw_actions(
    logits: ActionLogits, legal: Tensor, explore: Tensor, for_position: Tensor, for_word: Tensor
) -> Tensor:
    """(N,) actions of the softmax of the logits, or uniform ones: first the position, then the word in it.

    Args:
        logits: of N states.
        legal: (N, L) the empty positions.
        explore: (N,) boolean, where the action is uniform over the legal ones.
        for_position, for_word: (N,) float64 random numbers in [0, 1).
    """
    weights = logits.of_positions().softmax(-1).double()
    position = draw(torch.where(explore[:, None], legal.double(), weights), for_position)
    weights = logits.words_at(position).softmax(-1).double()
    word = draw(torch.where(explore[:, None], 1.0, weights), for_word)
    return position * logits.word.shape[1] + word


def draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """(N,) indices drawn with probability proportional to (N, K) float64 weights, from (N,) numbers in [0, 1)."""
    cumulative = weights.cumsum(-1)
    threshold = uniform[:, None] * cumulative[:, -1:] * BELOW_ONE
    return (cumulative <= threshold).sum(-1)  # an index without weight is never the first one above
