"""States of ``AtomEnvironment``, and its moves by number: tables of what each writes and what undoes it."""

from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from mols.environments.atom_vocabulary import N_ATTRIBUTES, AtomVocabulary

NO_BOND, DEFAULT_BOND = 0, 1  # values of a state's ``bond``; types other than the default come after
STOP_KIND, ATOM, ATTRIBUTE, BOND = range(4)  # what a move changes
FROM_STATE = -1  # in ``undo``: stop, or the slot that the new atom takes


class Graphs(NamedTuple):
    """M states.

    Attributes:
        element: (M, S) in 0..K; K at empty slots.
        attribute: (M, S, A) index of each attribute's value; 0, the default, at empty slots.
        bond: (M, S, S) symmetric: 0 without a bond, 1 + its type with one.
    """

    element: Tensor
    attribute: Tensor
    bond: Tensor


class AtomMoves:
    """Every forward and backward action by number, in the order that mols/environments/atoms.py states.

    Args:
        vocabulary: elements, attributes and bonds.
        n_slots: S.
        device: of the tables.

    Attributes:
        pairs: (2, P) slots, the lower first, in lexicographic order.
        columns: (V, 2) attribute and index of the value.
        forward: (4, n_actions) kind; slot; other slot or attribute; element, value or bond to write.
        undo: (n_actions,) the backward action; ``FROM_STATE`` for stop and for adding.
        backward: (4, n_backward_actions) likewise, with the default to write.
        redo: (n_backward_actions,) the forward action, less what the state holds there: the element and K times the
            neighbour's slot, the attribute's value, the bond.
    """

    def __init__(self, vocabulary: AtomVocabulary, n_slots: int, device: torch.device) -> None:
        sizes = [len(values) for values in vocabulary.attributes]
        elements, types = range(len(vocabulary.elements)), range(DEFAULT_BOND + 1, DEFAULT_BOND + len(vocabulary.bonds))
        columns = [(a, value) for a, size in enumerate(sizes) for value in range(1, size)]
        slots, attributes = range(n_slots), range(N_ATTRIBUTES)
        pairs = [(i, j) for i in slots for j in slots if i < j]
        forward = [
            [(STOP_KIND, 0, 0, 0)],
            [(ATOM, i, 0, k) for i in slots for k in elements],
            [(ATTRIBUTE, i, a, value) for i in slots for a, value in columns],
            [(BOND, i, j, DEFAULT_BOND) for i, j in pairs],
            [(BOND, i, j, bond) for i, j in pairs for bond in types],
        ]
        backward = [
            [(ATOM, i, 0, len(elements)) for i in slots],
            [(ATTRIBUTE, i, a, 0) for i in slots for a in attributes],
            [(BOND, i, j, NO_BOND) for i, j in pairs],
            [(BOND, i, j, DEFAULT_BOND) for i, j in pairs],
        ]
        first, back = _starts(forward), _starts(backward)
        undo = [
            *[FROM_STATE] * first[2],
            *[back[1] + i * N_ATTRIBUTES + a for i in slots for a, _ in columns],
            *[back[2] + p for p in range(len(pairs))],
            *[back[3] + p for p in range(len(pairs)) for _ in types],
        ]
        redo = [
            *[first[1] for _ in slots],
            *[first[2] + i * len(columns) + sum(sizes[:a]) - a - 1 for i in slots for a in attributes],
            *[first[3] + p - DEFAULT_BOND for p in range(len(pairs))],
            *[first[4] + p * len(types) - types.start for p in range(len(pairs))],
        ]
        self.pairs = _table(pairs, 2, device)
        self.columns = _table(columns, 2, device).T
        self.forward, self.undo = _table([*chain(*forward)], 4, device), torch.tensor(undo, device=device)
        self.backward, self.redo = _table([*chain(*backward)], 4, device), torch.tensor(redo, device=device)


def _starts(groups: list[list]) -> list[int]:
    """The number of each group's first move."""
    return [sum(map(len, groups[:group])) for group in range(len(groups))]


def _table(rows: list[tuple], n_columns: int, device: torch.device) -> Tensor:
    """(n_columns, rows)."""
    return torch.tensor(rows, dtype=torch.long, device=device).view(-1, n_columns).T.contiguous()
