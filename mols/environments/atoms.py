"""Molecules grown atom by atom: connected graphs of atoms with attributes, whose valences leave room for each move.

A state has S slots for atoms, each empty or one of K elements with A = 4 attributes (charge, chirality, explicit
hydrogens, no implicit hydrogens), and a bond of one of T types or none at each of the P = S (S - 1) / 2 pairs of slots,
(0, 1), (0, 2) and so on. A new atom takes the lowest empty slot, joined by a bond of the default type; removing an atom
can leave a hole. The attributes' values other than their defaults are V columns. s_0 is the empty graph. Actions are
numbers:

    forward     0                                stop
                1 + i K + k                      add an atom of element k, joined to slot i (in s_0 i = 0, to nothing)
                1 + S K + i V + v                set an attribute of slot i as column v says
                1 + S (K + V) + p                join pair p, which closes a ring
                1 + S (K + V) + P + p (T-1) + t  give pair p's bond the type 1 + t instead of the default 0
    backward    i                                remove the leaf in slot i: no attribute is set, nor its bond's type
                S + i A + a                      unset attribute a of slot i
                S (1 + A) + p                    open a ring at pair p, whose bond has the default type
                S (1 + A) + P + p                unset the type of pair p's bond

Every forward action is undone by one backward action and the other way round; parents that are isomorphic are not
merged. What a mask asks of a state stays true when things are taken away, so that going back needs no valences:

* Bonds and explicit hydrogens use up an atom's capacity. Neutral nitrogen has a fourth valence on the way and cannot
  stop with it: charge +1 is to come. Beside a double-bonded oxygen it has a fifth, as in N(=O)=O, which RDKit rewrites
  with charges.
* A chirality needs three bonds, all single, and holds its atom's bonds fast: it is relative to their order, that of
  their slots, so that it is set after and unset before them.

(Concepts: recursionpharma/gflownet's MolBuildingEnvContext. Its masks ask for one free valence where a charge or
hydrogens take more, and let chirality come before the bonds that give it a meaning.)
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mols.common.terminal import ExperimentError
from mols.environments.atom_moves import ATOM, ATTRIBUTE, BOND, DEFAULT_BOND, NO_BOND, AtomMoves, Graphs
from mols.environments.atom_valences import AtomValences
from mols.environments.atom_vocabulary import ATOMS, CHIRALITY, DEFAULT, N_ATTRIBUTES, AtomVocabulary
from mols.environments.base import multipliers


class AtomMask(NamedTuple):
    """The legal forward actions of M states, boolean.

    Attributes:
        stop: (M,).
        add: (M, S) where an atom can be joined, whatever its element.
        set: (M, S, V).
        edge: (M, P).
        bond: (M, P, T - 1).
    """

    stop: Tensor
    add: Tensor
    set: Tensor
    edge: Tensor
    bond: Tensor


class AtomEnvironment:
    """Graphs of at most S atoms: masks and transitions of M states at once.

    Args:
        vocabulary: elements, attributes and bonds; without charge +1, nitrogen keeps to three valences.
        max_atoms: S.
        device: where states live.

    Attributes:
        n_slots: S.
        n_elements: K, which is also what stands in an empty slot.
        n_values: V.
        n_pairs: P.
        n_bonds: T.
        moves: the actions by number, with ``pairs`` and ``columns``.
        valences: what atoms have room for.
        n_node_values: elements, and values of each attribute of an atom.
        n_node_kinds, n_end_kinds: what ``node_kinds`` and ``ends`` count up to.
        n_actions, n_backward_actions: how many numbers there are.
        max_length: no trajectory has more transitions, stop included.

    Raises:
        ExperimentError: no slot, or a vocabulary that ``check`` refuses.
    """

    def __init__(
        self, vocabulary: AtomVocabulary = ATOMS, max_atoms: int = 8, device: torch.device | str = "cpu"
    ) -> None:
        vocabulary.check()
        if max_atoms < 1:
            raise ExperimentError(f"a molecule of at most {max_atoms} atoms is none: choose 1 or more")
        self.vocabulary, self.n_slots, self.device = vocabulary, max_atoms, torch.device(device)
        self.moves = AtomMoves(vocabulary, max_atoms, self.device)
        self.n_elements, self.n_bonds = len(vocabulary.elements), len(vocabulary.bonds)
        self.n_values, self.n_pairs = len(self.moves.columns), self.moves.pairs.shape[1]
        self.n_actions, self.n_backward_actions = len(self.moves.undo), len(self.moves.redo)
        self.n_node_values = self.n_elements, *map(len, vocabulary.attributes)
        self.n_node_kinds, self.n_end_kinds = math.prod(self.n_node_values), self.n_bonds
        self._radix = self.n_node_kinds // torch.tensor(self.n_node_values, device=self.device).cumprod(0)
        self.valences = AtomValences(vocabulary, self.device)
        # Every move at a bond takes one or more of the orders that atoms can have.
        orders = min(self.n_slots * self.valences.most // 2, self.n_pairs * self.n_bonds)
        self.max_length = 1 + orders + N_ATTRIBUTES * self.n_slots + 1
        self._key = multipliers(self.n_slots * (1 + N_ATTRIBUTES + self.n_slots)).to(self.device)

    def initial_states(self, n_states: int) -> Graphs:
        """N copies of s_0."""
        element = torch.full((n_states, self.n_slots), self.n_elements, device=self.device)
        attribute = element.new_zeros(n_states, self.n_slots, N_ATTRIBUTES)
        return Graphs(element, attribute, element.new_zeros(n_states, self.n_slots, self.n_slots))

    def n_nodes(self, states: Graphs) -> Tensor:
        """(M,) atoms of each graph."""
        return (states.element != self.n_elements).sum(1)

    def is_empty(self, states: Graphs) -> Tensor:
        """(M,) boolean: s_0."""
        return self.n_nodes(states) == 0

    def node_kinds(self, states: Graphs) -> Tensor:
        """(M, S) a number for each element with its attributes; ``n_node_kinds``, the largest, at empty slots."""
        return (torch.cat([states.element[..., None], states.attribute], 2) * self._radix).sum(2)

    def ends(self, states: Graphs) -> Tensor:
        """(M, S, S) 0 without a bond, else 1 + its type: the same at both ends."""
        return states.bond

    def room(self, states: Graphs) -> Tensor:
        """(M, S) what bonds and explicit hydrogens leave of each atom's capacity; negative in no state of a walk."""
        return self.valences.of(states).room

    def forward_mask(self, states: Graphs) -> AtomMask:
        """The legal forward actions of M states."""
        element, attribute, bond = states
        n_nodes, valences = self.n_nodes(states), self.valences.of(states)
        loose = (element != self.n_elements) & (attribute[..., CHIRALITY] == DEFAULT)
        joinable = loose & (valences.room > 0)
        add = joinable & (n_nodes < self.n_slots)[:, None]
        add[:, 0] |= n_nodes == 0
        left, right = self.moves.pairs
        between = bond[:, left, right]
        return AtomMask(
            stop=(n_nodes > 0) & ~valences.is_pending.any(1),
            add=add,
            set=self.valences.settable(states, valences),
            edge=(between == NO_BOND) & joinable[:, left] & joinable[:, right],
            bond=((between == DEFAULT_BOND) & loose[:, left] & loose[:, right])[..., None]
            & self.valences.types(states, valences)[:, left, right],
        )

    def legal_actions(self, states: Graphs) -> Tensor:
        """(M, n_actions) boolean: the forward mask in the order of the actions' numbers."""
        mask = self.forward_mask(states)
        add = mask.add.repeat_interleave(self.n_elements, dim=1)
        return torch.cat([mask.stop[:, None], add, mask.set.flatten(1), mask.edge, mask.bond.flatten(1)], 1)

    def backward_mask(self, states: Graphs) -> Tensor:
        """(M, S + S A + 2 P) boolean: leaves to remove, attributes to unset, rings to open, bonds to make default."""
        element, attribute, bond = states
        is_set, joined = attribute != DEFAULT, bond != NO_BOND
        chiral = is_set[..., CHIRALITY]
        plain = ~is_set.any(2) & (bond <= DEFAULT_BOND).all(2) & ~(joined & chiral[:, None]).any(2)
        leaf = (element != self.n_elements) & (joined.sum(2) <= 1) & plain
        left, right = self.moves.pairs
        between = bond[:, left, right]
        opening = self._in_rings(states, (between == DEFAULT_BOND) & ~chiral[:, left] & ~chiral[:, right])
        return torch.cat([leaf, is_set.flatten(1), opening, between > DEFAULT_BOND], 1)

    def step(self, states: Graphs, actions: Tensor) -> Graphs:
        """The states after M legal actions; stop leaves a state as it is."""
        after = Graphs(*(tensor.clone() for tensor in states))
        moves = self.moves.forward[:, actions]
        _write(after, moves)
        row = (moves[0] == ATOM).nonzero().squeeze(1)
        _, parent, _, element = moves[:, row]
        slot = self._new_slot(states.element[row])
        joined = (states.element[row] != self.n_elements).any(1).long() * DEFAULT_BOND
        after.element[row, slot] = element
        after.bond[row, slot, parent] = joined
        after.bond[row, parent, slot] = joined
        return after

    def undo(self, states: Graphs, actions: Tensor) -> Tensor:
        """(M,) the backward action, at the state reached, that undoes a forward action at ``states``; -1 for stop."""
        adds = self.moves.forward[0, actions] == ATOM
        return torch.where(adds, self._new_slot(states.element), self.moves.undo[actions])

    def backward_step(self, states: Graphs, actions: Tensor) -> tuple[Graphs, Tensor]:
        """The states after M legal backward actions, and (M,) the forward actions that undo these.

        A leaf comes back in the lowest empty slot, which is another one where there were holes.
        """
        before, forward = Graphs(*(tensor.clone() for tensor in states)), self.moves.redo[actions]
        moves = self.moves.backward[:, actions]
        kind, here, there, _ = moves
        for changed, held in ((ATTRIBUTE, states.attribute), (BOND, states.bond)):
            row = (kind == changed).nonzero().squeeze(1)
            forward[row] += held[row, here[row], there[row]]
        _write(before, moves)
        row = (kind == ATOM).nonzero().squeeze(1)
        slot = here[row]
        neighbour = states.bond[row, slot].argmax(1)  # 0 for the only atom
        forward[row] += neighbour * self.n_elements + states.element[row, slot]
        before.element[row, slot] = self.n_elements
        before.bond[row, slot, neighbour] = NO_BOND
        before.bond[row, neighbour, slot] = NO_BOND
        return before, forward

    def keys(self, states: Graphs) -> Tensor:
        """(M,) int64, equal for equal states: a random linear hash modulo 2^64.

        Two given states that differ share a key with probability 2^-62 at most (no numbers differ by more than 4).
        """
        return (torch.cat([tensor.flatten(1) for tensor in states], 1) * self._key).sum(1)

    def _in_rings(self, states: Graphs, candidates: Tensor) -> Tensor:
        """(M, P) those of the candidate bonds without which their graph is still connected."""
        joined = states.bond != NO_BOND
        has_ring = joined.sum((1, 2)) // 2 >= self.n_nodes(states)
        row, pair = (candidates & has_ring[:, None]).nonzero(as_tuple=True)
        each, (left, right) = torch.arange(len(row), device=row.device), self.moves.pairs[:, pair]
        reach = joined[row].float()
        reach[each, left, right] = 0.0
        reach[each, right, left] = 0.0
        reach.diagonal(dim1=1, dim2=2).fill_(1.0)
        for _ in range((self.n_slots - 1).bit_length()):  # each time, paths of twice the length
            reach = torch.bmm(reach, reach).clamp_(max=1.0)
        return torch.zeros_like(candidates).index_put_((row, pair), reach[each, left, right] > 0)

    def _new_slot(self, element: Tensor) -> Tensor:
        """(M, S) elements -> (M,) the lowest empty slot."""
        return (element == self.n_elements).to(torch.uint8).argmax(1)


def _write(states: Graphs, moves: Tensor) -> None:
    """Write the attributes and bonds that (4, M) moves change."""
    kind, here, there, value = moves
    row = (kind == ATTRIBUTE).nonzero().squeeze(1)
    states.attribute[row, here[row], there[row]] = value[row]
    row = (kind == BOND).nonzero().squeeze(1)
    states.bond[row, here[row], there[row]] = value[row]
    states.bond[row, there[row], here[row]] = value[row]
