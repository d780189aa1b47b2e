"""Trees of fragments, grown node by node; the attachment atom of each end of each edge is set on the way.

A state has S slots for nodes, each empty or one of F fragments. Removing a node can leave a hole; a new node takes the
lowest empty slot. An edge joins two attachment points, one at each end, each set by an action of its own; a point
serves one edge. s_0 is the empty tree. A tree whose ends are all set can stop. Actions are numbers:

    forward     0                          stop
                1 + i F + f                add fragment f, joined to slot i (in the empty tree i = 0, joined to nothing)
                1 + S F + (i S + j) A + a  set the end at i of edge i-j to point a of the A that a fragment has at most
    backward    i                          remove the leaf in slot i, none of whose edge's ends is set
                S + i S + j                unset the end at i of edge i-j

Every removable leaf and every set end is one backward action: parents that are isomorphic are not merged.
(Concepts: Bengio et al. 2021; recursionpharma/gflownet.)
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mols.common.terminal import ExperimentError
from mols.environments.base import STOP, multipliers
from mols.environments.vocabulary import FRAGMENTS, Fragment

UNSET, FIRST_POINT = 1, 2  # values of an edge's end: not set, set to the first point


class Trees(NamedTuple):
    """M states.

    Attributes:
        fragment: (M, S) in 0..F; F at empty slots.
        attachment: (M, S, S) at [i, j]: 0 without an edge i-j, 1 with one whose end at i is not set, 2 + a with one
            whose end at i uses point a of the fragment in slot i.
    """

    fragment: Tensor
    attachment: Tensor


class ForwardMask(NamedTuple):
    """The legal forward actions of M states, boolean.

    Attributes:
        stop: (M,).
        add: (M, S) where a node can be joined, whatever its fragment.
        set: (M, S, S, A).
    """

    stop: Tensor
    add: Tensor
    set: Tensor


class FragmentEnvironment:
    """Trees of at most S fragments: masks and transitions of M states at once.

    Args:
        vocabulary: the fragments, each with one attachment point at least.
        max_fragments: S.
        device: where states live.

    Attributes:
        n_slots: S.
        n_fragments: F, which is also what stands in an empty slot.
        n_points: A, attachment points of the fragment that has most.
        n_node_values: of each attribute of a node; the fragment is the only one.
        n_end_kinds: what ``ends`` counts up to.
        n_actions, n_backward_actions: how many numbers there are.
        max_length: transitions of the longest trajectory, stop included.

    Raises:
        ExperimentError: no slot.
    """

    def __init__(
        self, vocabulary: Sequence[Fragment] = FRAGMENTS, max_fragments: int = 8, device: torch.device | str = "cpu"
    ) -> None:
        if max_fragments < 1:
            raise ExperimentError(f"a molecule of at most {max_fragments} fragments is none: choose 1 or more")
        self.vocabulary, self.n_slots, self.device = tuple(vocabulary), max_fragments, torch.device(device)
        self.n_fragments = len(self.vocabulary)
        sizes = [len(fragment.points) for fragment in self.vocabulary]
        self.n_points = max(sizes)
        self.n_node_values, self.n_end_kinds = (self.n_fragments,), 1 + self.n_points
        self.first_set = 1 + self.n_slots * self.n_fragments
        self.n_backward_actions = self.n_slots + self.n_slots**2
        self.n_actions = self.first_set + self.n_slots**2 * self.n_points
        self.max_length = 3 * self.n_slots - 1  # S nodes, 2 (S - 1) ends, stop
        self._points_of = torch.tensor([*sizes, 0], device=self.device)  # an empty slot has none
        self._has_point = torch.arange(self.n_points, device=self.device) < self._points_of[:, None]
        self._key = multipliers(self.n_slots * (1 + self.n_slots)).to(self.device)

    def initial_states(self, n_states: int) -> Trees:
        """N copies of s_0."""
        fragment = torch.full((n_states, self.n_slots), self.n_fragments, device=self.device)
        return Trees(fragment, fragment.new_zeros(n_states, self.n_slots, self.n_slots))

    def n_nodes(self, states: Trees) -> Tensor:
        """(M,) fragments of each tree."""
        return (states.fragment != self.n_fragments).sum(1)

    def is_empty(self, states: Trees) -> Tensor:
        """(M,) boolean: s_0."""
        return self.n_nodes(states) == 0

    def node_kinds(self, states: Trees) -> Tensor:
        """(M, S) the fragments; their number at empty slots."""
        return states.fragment

    def ends(self, states: Trees) -> Tensor:
        """(M, S, S) at [i, j]: 0 without an edge, else 1 + the value of its end at i, below ``n_end_kinds``."""
        return states.attachment

    def forward_mask(self, states: Trees) -> ForwardMask:
        """The legal forward actions of M states."""
        ends, n_nodes = states.attachment, self.n_nodes(states)
        add = ((ends > 0).sum(2) < self._points_of[states.fragment]) & (n_nodes < self.n_slots)[:, None]
        add[:, 0] |= n_nodes == 0
        unset = ends == UNSET
        used = torch.zeros(*ends.shape[:2], FIRST_POINT + self.n_points, dtype=torch.bool, device=ends.device)
        free = self._has_point[states.fragment] & ~used.scatter_(2, ends, True)[..., FIRST_POINT:]
        return ForwardMask((n_nodes > 0) & ~unset.flatten(1).any(1), add, unset[..., None] & free[:, :, None])

    def legal_actions(self, states: Trees) -> Tensor:
        """(M, n_actions) boolean: the forward mask in the order of the actions' numbers."""
        mask = self.forward_mask(states)
        add = mask.add.repeat_interleave(self.n_fragments, dim=1)
        return torch.cat([mask.stop[:, None], add, mask.set.flatten(1)], 1)

    def backward_mask(self, states: Trees) -> Tensor:
        """(M, S + S^2) boolean: the leaves that can be removed, then the ends that can be unset."""
        ends = states.attachment
        is_set = ends >= FIRST_POINT
        untouched = ~(is_set.any(1) | is_set.any(2))
        leaf = (states.fragment != self.n_fragments) & ((ends > 0).sum(2) <= 1) & untouched
        return torch.cat([leaf, is_set.flatten(1)], 1)

    def step(self, states: Trees, actions: Tensor) -> Trees:
        """The states after M legal actions; stop leaves a state as it is."""
        after = Trees(*(tensor.clone() for tensor in states))
        row, parent, fragment = self._adds(actions)
        before = states.fragment[row]
        slot = self._new_slot(before)
        joined = (before != self.n_fragments).any(1).long() * UNSET
        after.fragment[row, slot] = fragment
        after.attachment[row, slot, parent] = joined
        after.attachment[row, parent, slot] = joined
        row, here, there, point = self._sets(actions)
        after.attachment[row, here, there] = FIRST_POINT + point
        return after

    def undo(self, states: Trees, actions: Tensor) -> Tensor:
        """(M,) the backward action, at the state reached, that undoes a forward action at ``states``; -1 for stop."""
        backward = torch.full_like(actions, -1)
        row, *_ = self._adds(actions)
        backward[row] = self._new_slot(states.fragment[row])
        row, here, there, _ = self._sets(actions)
        backward[row] = self.n_slots * (1 + here) + there
        return backward

    def backward_step(self, states: Trees, actions: Tensor) -> tuple[Trees, Tensor]:
        """The states after M legal backward actions, and (M,) the forward actions that undo these.

        A leaf comes back in the lowest empty slot, which is another one where there were holes.
        """
        before, forward = Trees(*(tensor.clone() for tensor in states)), torch.empty_like(actions)
        row = (actions < self.n_slots).nonzero().squeeze(1)
        slot = actions[row]
        neighbour = states.attachment[row, slot].argmax(1)  # 0 for the only node
        forward[row] = 1 + neighbour * self.n_fragments + states.fragment[row, slot]
        before.fragment[row, slot] = self.n_fragments
        before.attachment[row, slot, neighbour] = 0
        before.attachment[row, neighbour, slot] = 0
        row = (actions >= self.n_slots).nonzero().squeeze(1)
        end = actions[row] - self.n_slots
        here, there = end // self.n_slots, end % self.n_slots
        point = states.attachment[row, here, there] - FIRST_POINT
        forward[row] = self.first_set + end * self.n_points + point
        before.attachment[row, here, there] = UNSET
        return before, forward

    def keys(self, states: Trees) -> Tensor:
        """(M,) int64, equal for equal states: a random linear hash modulo 2^64.

        Two given states that differ share a key with probability 2^-58 (of fragments there are 72, not 128).
        """
        return (torch.cat([states.fragment, states.attachment.flatten(1)], 1) * self._key).sum(1)

    def _new_slot(self, fragment: Tensor) -> Tensor:
        """(M, S) fragments -> (M,) the lowest empty slot."""
        return (fragment == self.n_fragments).to(torch.uint8).argmax(1)

    def _adds(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the actions that add: their rows, the slots to join, the new fragments."""
        row = ((actions > STOP) & (actions < self.first_set)).nonzero().squeeze(1)
        number = actions[row] - 1
        return row, number // self.n_fragments, number % self.n_fragments

    def _sets(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the actions that set an end: their rows, the slots here and across, the points."""
        row = (actions >= self.first_set).nonzero().squeeze(1)
        number = actions[row] - self.first_set
        end = number // self.n_points
        return row, end // self.n_slots, end % self.n_slots, number % self.n_points
