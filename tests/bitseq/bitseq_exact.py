"""Strings small enough to enumerate, their exact solutions and all their trajectories, to check the package against."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bitseq.environment import StringEnvironment
from bitseq.evaluation import all_states
from bitseq.policies.backward import FixedBackward
from bitseq.sampling import Transitions


class RandomReward(StringEnvironment):
    """Strings of 8 bits with a random reward each, so that a swapped position or a shifted word shows."""

    def __init__(self, k: int) -> None:
        super().__init__(8, k, m_size=2, reward_exponent=1.0)
        self.table = torch.from_numpy(np.random.default_rng(7).uniform(-2.0, 1.0, 2**self.n))
        self.log_z = self.table.logsumexp(0).item()

    def log_reward(self, states: Tensor) -> Tensor:
        """(N, L) full states -> (N,) log R in nats."""
        number = (states * self.n_words ** torch.arange(self.length - 1, -1, -1)).sum(-1)
        return self.table[number.clamp(0, len(self.table) - 1)]  # of states that are not full: anything


@dataclass
class Solution:
    """P_F, P_B and log F of every state, -inf where illegal; exact if it comes from ``solve``.

    ``log_pf`` is (S, L, V), ``log_pb`` is (S, L), ``log_flow`` is (S,), for the S states as ``all_states`` orders them.
    """

    log_pf: Tensor
    log_pb: Tensor
    log_flow: Tensor


def state_index(environment: StringEnvironment, states: Tensor) -> Tensor:
    """(M, L) -> (M,) rows of ``all_states``: the tokens as digits in base V + 1."""
    base = environment.n_words + 1
    return sum(states[:, d] * base ** (environment.length - 1 - d) for d in range(environment.length))


def children(environment: StringEnvironment, state: int) -> list[tuple[int, int, int]]:
    """(position, word, index of the state that it reaches) of every action; plain integers."""
    base = environment.n_words + 1
    found = []
    for position in range(environment.length):
        stride = base ** (environment.length - 1 - position)
        if state // stride % base == environment.empty:
            found += [(position, word, state + (word - environment.empty) * stride) for word in range(base - 1)]
    return found


def backward_table(environment: StringEnvironment, kind: str) -> Tensor:
    """(S, L) log P_B of every state, uniform, maxent or random; -inf where illegal."""
    states = all_states(environment)
    if kind == "random":
        empty = states == environment.empty
        logits = torch.from_numpy(np.random.default_rng(3).normal(size=states.shape) * 2).masked_fill(empty, -torch.inf)
        return logits.log_softmax(-1).masked_fill(empty, -torch.inf)
    return FixedBackward(kind, environment.empty).log_probs(states)


def solve(environment: StringEnvironment, log_pb: Tensor) -> Solution:
    """The one P_F and F that satisfy every balance condition with this P_B, by recursion from the full strings.

    F(x) = R(x),   F(s) = sum_s' F(s') P_B(s|s'),   P_F(s'|s) = F(s') P_B(s|s') / F(s).
    """
    states = all_states(environment)
    full = (states != environment.empty).all(1)
    flow, edge = torch.zeros(len(states)), torch.zeros(len(states), environment.length, environment.n_words)
    flow[full] = environment.log_reward(states[full]).exp()
    for state in sorted(range(len(states)), key=lambda s: -int((states[s] != environment.empty).sum())):
        for position, word, child in children(environment, state):
            edge[state, position, word] = flow[child] * log_pb[child, position].exp()
        if not full[state]:
            flow[state] = edge[state].sum()
    return Solution((edge / flow[:, None, None]).log(), log_pb, flow.log())


def all_trajectories(environment: StringEnvironment) -> Transitions:
    """Every trajectory once: each order of the positions with each word in every position."""
    length, n_words = environment.length, environment.n_words
    visited, actions, terminal = [], [], []
    for order in itertools.permutations(range(length)):
        for words in itertools.product(range(n_words), repeat=length):
            state = [environment.empty] * length
            for position, word in zip(order, words, strict=True):
                visited.append(list(state))
                actions.append(position * n_words + word)
                state[position] = word
            terminal.append(state)
    n, n_trajectories = len(actions), len(terminal)
    trajectory = torch.arange(n_trajectories).repeat_interleave(length)
    is_last = torch.arange(n) % length == length - 1
    next_row = torch.where(is_last, n + trajectory, torch.arange(n) + 1)
    return Transitions(torch.tensor(visited + terminal), next_row, torch.tensor(actions), trajectory, is_last)


def random_policy(environment: StringEnvironment, seed: int) -> Tensor:
    """(S, L, V) log P_F drawn at random, -inf where illegal; of full states it means nothing."""
    states = all_states(environment)
    shape = (len(states), environment.length, environment.n_words)
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=shape))
    logits = logits.masked_fill((states != environment.empty)[:, :, None], -torch.inf)
    return logits.flatten(1).log_softmax(-1).view(shape)


def sum_by_trajectory(values: Tensor, batch: Transitions) -> Tensor:
    """(M,) -> (N,) sums over each trajectory."""
    return values.view(batch.n_trajectories, -1).sum(1)
