"""Trees of a small vocabulary by plain Python: moves, all states, all trajectories, and exact solutions."""

import itertools
import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mols.environments.base import STOP
from mols.environments.fragments import FragmentEnvironment, Trees
from mols.sampling import Transitions

State = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]  # a row of ``Trees``, as plain integers


def plain(states: Trees) -> list[State]:
    """M states as tuples."""
    fragments, ends = states.fragment.tolist(), states.attachment.tolist()
    return [(tuple(f), tuple(map(tuple, e))) for f, e in zip(fragments, ends, strict=True)]


def forward_moves(environment: FragmentEnvironment, state: State) -> list[tuple[int, State, int]]:
    """(action, state that it reaches, backward action that undoes it) of every legal action but stop."""
    (fragment, ends), n_slots = state, environment.n_slots
    nodes = [i for i in range(n_slots) if fragment[i] != environment.n_fragments]
    points = {i: len(environment.vocabulary[fragment[i]].points) for i in nodes}
    moves = []
    for i in nodes or [0]:
        if len(nodes) < n_slots and (not nodes or sum(end > 0 for end in ends[i]) < points[i]):
            new = min(set(range(n_slots)) - set(nodes))
            joined = changed(changed(ends, i, new, 1), new, i, 1) if nodes else ends
            for f in range(environment.n_fragments):
                kinds = (*fragment[:new], f, *fragment[new + 1 :])
                moves.append((1 + i * environment.n_fragments + f, (kinds, joined), new))
    for i, j in ((i, j) for i in nodes for j in nodes if ends[i][j] == 1):
        for a in range(points[i]):
            if 2 + a not in ends[i]:
                action = environment.first_set + (i * n_slots + j) * environment.n_points + a
                moves.append((action, (fragment, changed(ends, i, j, 2 + a)), n_slots + i * n_slots + j))
    return moves


def backward_moves(environment: FragmentEnvironment, state: State) -> list[tuple[int, State]]:
    """(backward action, state that it reaches) of every legal backward action."""
    (fragment, ends), n_slots, empty = state, environment.n_slots, environment.n_fragments
    moves = []
    for i in (i for i in range(n_slots) if fragment[i] != empty):
        neighbours = [j for j in range(n_slots) if ends[i][j]]
        if not neighbours or (len(neighbours) == 1 and ends[i][neighbours[0]] == ends[neighbours[0]][i] == 1):
            without = ends
            for j in neighbours:
                without = changed(changed(without, i, j, 0), j, i, 0)
            moves.append((i, ((*fragment[:i], empty, *fragment[i + 1 :]), without)))
        for j in (j for j in neighbours if ends[i][j] > 1):
            moves.append((n_slots + i * n_slots + j, (fragment, changed(ends, i, j, 1))))
    return moves


def redone(environment: FragmentEnvironment, state: State, backward: int) -> int:
    """The action that leads back to a state, or to one whose slots have other names, after a backward action."""
    (fragment, ends), n_slots = state, environment.n_slots
    if backward < n_slots:
        neighbour = next((j for j in range(n_slots) if ends[backward][j]), 0)
        return 1 + neighbour * environment.n_fragments + fragment[backward]
    i, j = divmod(backward - n_slots, n_slots)
    return environment.first_set + (i * n_slots + j) * environment.n_points + ends[i][j] - 2


def changed(ends: tuple, i: int, j: int, value: int) -> tuple:
    """The ends with another one at [i, j]."""
    return tuple(tuple(value if (k, m) == (i, j) else end for m, end in enumerate(row)) for k, row in enumerate(ends))


def is_finished(environment: FragmentEnvironment, state: State) -> bool:
    """Whether stop is legal."""
    fragment, ends = state
    return any(f != environment.n_fragments for f in fragment) and all(end != 1 for row in ends for end in row)


def renamings(state: State) -> list[State]:
    """The state under every order of its slots."""
    fragment, ends = state
    orders = itertools.permutations(range(len(fragment)))
    return [(tuple(fragment[i] for i in o), tuple(tuple(ends[i][j] for j in o) for i in o)) for o in orders]


def symmetries(environment: FragmentEnvironment, state: State) -> int:
    """Number of orders of the nodes that leave the tree as it is."""
    empty = state[0].count(environment.n_fragments)
    return renamings(state).count(state) // math.factorial(empty)


class Solution(NamedTuple):
    """(S, A) log P_F, (S, B) log P_B and (S,) log F of every state, -inf where illegal."""

    log_pf: Tensor
    log_pb: Tensor
    log_flow: Tensor


class Enumeration:
    """Every state that is reached from s_0, by breadth-first search; s_0 is row 0, and no state precedes its parents.

    Args:
        environment: the graphs.
        holes: whether backward moves are followed too: they leave slots empty that no rollout leaves empty.

    Attributes:
        plain: the S states as tuples.
        row: their rows.
        trees: (S, ...).
        finished: (S,) boolean: stop is legal.
        edges: (parent's row, action, child's row, backward action that undoes it) of all moves but stop.
    """

    def __init__(self, environment: FragmentEnvironment, *, holes: bool = False) -> None:
        self.environment = environment
        n_slots, empty = environment.n_slots, environment.n_fragments
        first = (empty,) * n_slots, ((0,) * n_slots,) * n_slots
        queue, edges = [first], []
        seen = {first}
        for state in queue:  # grows meanwhile
            moves = forward_moves(environment, state)
            edges += [(state, action, child, undo) for action, child, undo in moves]
            following = [child for _, child, _ in moves]
            following += [parent for _, parent in backward_moves(environment, state)] if holes else []
            queue += (new := list(dict.fromkeys(s for s in following if s not in seen)))
            seen.update(new)
        self.plain: list[State] = sorted(queue, key=self.depth)
        self.row = {state: row for row, state in enumerate(self.plain)}
        self.trees = Trees(*(torch.tensor(column) for column in zip(*self.plain, strict=True)))
        self.finished = torch.tensor([is_finished(environment, state) for state in self.plain])
        self.edges = sorted((self.row[parent], a, self.row[child], b) for parent, a, child, b in edges)

    def depth(self, state: State) -> int:
        """Moves that lead to a state: its nodes and the ends that are set."""
        fragment, ends = state
        return sum(f != self.environment.n_fragments for f in fragment) + sum(e > 1 for row in ends for e in row)

    def rows_of(self, states: Trees) -> list[int]:
        """Rows of M states."""
        return [self.row[state] for state in plain(states)]

    @cached_property
    def backward_edges(self) -> list[tuple[int, int, int, int]]:
        """(child's row, backward action, parent's row, action that redoes it); where states with holes are listed."""
        environment, edges = self.environment, []
        for child, state in enumerate(self.plain):
            for backward, parent in backward_moves(environment, state):
                edges.append((child, backward, self.row[parent], redone(environment, state, backward)))
        return edges

    def reversed_sums(self, pf: Tensor) -> Tensor:
        """(S,) sum over all backward trajectories from each state of the (S, A) P_F's probability of going back.

        With an ``pf`` of ones, the number of trajectories n(s). Needs the states with holes.
        """
        sums, pf = [1.0] + [0.0] * (len(self.plain) - 1), pf.tolist()
        for child, _, parent, action in self.backward_edges:
            sums[child] += sums[parent] * pf[parent][action]
        return torch.tensor(sums, dtype=torch.float64)

    def backward_table(self, kind: str) -> Tensor:
        """(S, B) log P_B, uniform or random, normalised over the legal backward actions; -inf elsewhere."""
        legal = torch.zeros(len(self.plain), self.environment.n_backward_actions, dtype=torch.bool)
        for row, state in enumerate(self.plain):
            legal[row, [action for action, _ in backward_moves(self.environment, state)]] = True
        weight = np.random.default_rng(3).normal(size=legal.shape) * (2 if kind == "random" else 0)
        weight = torch.from_numpy(np.exp(weight)) * legal
        return (weight / weight.sum(1, keepdim=True).clamp(min=1e-30)).log()

    def visits(self, pf: Tensor) -> Tensor:
        """(S,) probability that a trajectory of the (S, A) P_F passes through each state; times P_F(stop): of x."""
        visit, pf = [1.0] + [0.0] * (len(self.plain) - 1), pf.tolist()
        for parent, action, child, _ in self.edges:  # ordered by parents, which come before their children
            visit[child] += visit[parent] * pf[parent][action]
        return torch.tensor(visit, dtype=torch.float64)

    def solve(self, log_pb: Tensor, log_reward: Tensor) -> "Solution":
        """The one P_F and F that satisfy every balance condition with this P_B, from the last states to the first.

        F(s) = R(s), if s can stop, + sum_s' F(s') P_B(s|s'),  P_F(s'|s) = F(s') P_B(s|s') / F(s),  P_F(stop|s) = R / F.
        """
        pb, reward = log_pb.exp().tolist(), torch.where(self.finished, log_reward.exp(), 0.0).double()
        flow, edge = reward.tolist(), torch.zeros(len(self.plain), self.environment.n_actions, dtype=torch.float64)
        edge[:, 0] = reward
        for parent, action, child, undo in reversed(self.edges):
            edge[parent, action] = flow[child] * pb[child][undo]
            flow[parent] += flow[child] * pb[child][undo]
        flow = torch.tensor(flow, dtype=torch.float64)
        return Solution((edge / flow[:, None]).log(), log_pb, flow.log())

    def all_trajectories(self) -> Transitions:
        """Every trajectory from s_0 to a stop, once; ``visited`` are the states of the enumeration."""
        moves: list[list[tuple[int, int, int]]] = [[] for _ in self.plain]
        for parent, action, child, undo in self.edges:
            moves[parent].append((action, child, undo))
        columns: list[list] = [[], [], [], [], []]
        pending, finished = [(0, ())], self.finished.tolist()
        while pending:
            row, before = pending.pop()
            if finished[row]:
                for column, values in zip(columns, zip(*before, (row, row, STOP, -1, True), strict=True), strict=True):
                    column += values
            pending += [(child, (*before, (row, child, a, undo, False))) for a, child, undo in moves[row]]
        state, following, actions, undo, is_stop = (torch.tensor(column) for column in columns)
        index = is_stop.long().cumsum(0) - is_stop.long()
        return Transitions(self.trees, state, following, actions, undo, index, is_stop)
