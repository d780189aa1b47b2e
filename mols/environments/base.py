"""What every environment of molecule graphs is, and what the states of all have in common.

States, their forward masks and so on are rows of tensors: M states at once. Actions are numbers; forward, ``STOP`` is
the first. Parents that are isomorphic are not merged: every forward action is undone by one backward action.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

STOP = 0  # the forward action
MAX_MOVES = 10_000  # from the states of one length, where all states are listed
KEY_SEED = 0  # of the multipliers of ``keys``: the same in every run


class States(Protocol):
    """M states: a NamedTuple of tensors, a row for each state; its first names what stands in each of S slots."""

    def _make(self, tensors: Iterable[Tensor], /) -> Self: ...
    def __iter__(self) -> Iterator[Tensor]: ...
    def __getitem__(self, number: int, /) -> Tensor: ...


AnyStates = TypeVar("AnyStates", bound=States)


class Environment(Protocol[AnyStates]):
    """Graphs of at most S nodes: masks and transitions of M states at once.

    Attributes:
        device: where states live.
        n_slots: S.
        n_node_values: how many values each attribute of a node has.
        n_end_kinds: values that an edge has at each of its ends.
        n_actions, n_backward_actions: how many numbers there are.
        max_length: no trajectory has more transitions, stop included.
    """

    device: torch.device
    n_slots: int
    n_node_values: tuple[int, ...]
    n_end_kinds: int
    n_actions: int
    n_backward_actions: int
    max_length: int

    def initial_states(self, n_states: int) -> AnyStates:
        """N copies of s_0, the empty graph."""

    def n_nodes(self, states: AnyStates) -> Tensor:
        """(M,) nodes of each graph."""

    def is_empty(self, states: AnyStates) -> Tensor:
        """(M,) boolean: s_0."""

    def node_kinds(self, states: AnyStates) -> Tensor:
        """(M, S) a number for each combination of a node's values; how many there are, at empty slots."""

    def ends(self, states: AnyStates) -> Tensor:
        """(M, S, S) at [i, j]: 0 without an edge i-j, else 1 + the value of its end at i, below ``n_end_kinds``."""

    def forward_mask(self, states: AnyStates) -> Any:
        """The legal forward actions, a NamedTuple of the environment's own with ``stop``, (M,), and others."""

    def legal_actions(self, states: AnyStates) -> Tensor:
        """(M, n_actions) boolean: the forward mask in the order of the actions' numbers."""

    def backward_mask(self, states: AnyStates) -> Tensor:
        """(M, n_backward_actions) boolean: the legal backward actions."""

    def step(self, states: AnyStates, actions: Tensor) -> AnyStates:
        """The states after M legal actions; stop leaves a state as it is."""

    def undo(self, states: AnyStates, actions: Tensor) -> Tensor:
        """(M,) the backward action, at the state reached, that undoes a forward action at ``states``; -1 for stop."""

    def backward_step(self, states: AnyStates, actions: Tensor) -> tuple[AnyStates, Tensor]:
        """The states after M legal backward actions, and (M,) the forward actions that undo these."""

    def keys(self, states: AnyStates) -> Tensor:
        """(M,) int64, equal for equal states, and by all odds for no others."""


def rows_of(states: AnyStates, rows: Tensor) -> AnyStates:
    """The states that an index or a boolean mask picks."""
    return states._make(tensor[rows] for tensor in states)


def concatenate(batches: Sequence[AnyStates]) -> AnyStates:
    """Batches of states, one after the other."""
    return batches[0]._make(torch.cat(tensors) for tensors in zip(*batches, strict=True))


def finished_states(environment: Environment[AnyStates]) -> tuple[AnyStates, Tensor] | None:
    """Every finished state, and its (N,) float64 weight in Z = sum of weight * R; None where there are too many.

    The weights of the states of one graph, which differ in their slots, add up to 1 / (its symmetries). They are
    computed with a uniform P_B; with every P_B that does not see the slots, their sum is the same.
    """
    level, weight, found = environment.initial_states(1), torch.ones(1, dtype=torch.float64), []
    while len(weight):  # states of so many moves; each is reached by paths of this length alone
        stop = environment.forward_mask(level).stop.cpu()
        found.append((rows_of(level, stop), weight[stop]))
        row, action = environment.legal_actions(level)[:, 1:].nonzero(as_tuple=True)
        if len(row) > MAX_MOVES:
            return None
        after = environment.step(rows_of(level, row), action + 1)
        share = weight[row.cpu()] / environment.backward_mask(after).sum(1).cpu()
        keys, first, place = np.unique(environment.keys(after).cpu(), return_index=True, return_inverse=True)
        level = rows_of(after, torch.from_numpy(first))
        weight = share.new_zeros(len(keys)).index_add(0, torch.from_numpy(place), share)
    states, weights = zip(*found, strict=True)
    return concatenate(states), torch.cat(weights)


def multipliers(n: int) -> Tensor:
    """(n,) random integers of 64 bits, of the linear hash that ``keys`` are."""
    largest = torch.iinfo(torch.int64)
    return torch.randint(largest.min, largest.max, (n,), generator=torch.Generator().manual_seed(KEY_SEED))
