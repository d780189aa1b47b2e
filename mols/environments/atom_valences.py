"""What an atom has room for: bonds and explicit hydrogens use up its capacity.

Neutral nitrogen has a fourth valence on the way; its charge +1 is then pending, without which the graph cannot stop.
Beside a double-bonded oxygen it has a fifth, as in N(=O)=O, which RDKit rewrites with charges. Without charge +1 in the
vocabulary it keeps to three.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mols.environments.atom_moves import DEFAULT_BOND, NO_BOND, Graphs
from mols.environments.atom_vocabulary import (
    CAPACITY,
    CHARGE,
    CHIRALITY,
    DEFAULT,
    HYDROGENS,
    NO_IMPLICIT,
    AtomVocabulary,
)

CHIRAL_BONDS = 3  # at least


class Valences(NamedTuple):
    """Of the atoms of M states, all (M, S).

    Attributes:
        used: orders of bonds and explicit hydrogens.
        room: what these leave of the capacity.
        lacks_oxide: which neutral nitrogens would have a further valence beside a double-bonded oxygen.
        is_pending: which neutral nitrogens need their charge.
    """

    used: Tensor
    room: Tensor
    lacks_oxide: Tensor
    is_pending: Tensor


class AtomValences:
    """Valences of M states at once.

    Args:
        vocabulary: elements, attributes and bonds.
        device: where states live.

    Attributes:
        most: the largest number of valences that an atom can use.
    """

    def __init__(self, vocabulary: AtomVocabulary, device: torch.device) -> None:
        self.vocabulary = vocabulary
        capacity = [[CAPACITY[element][charge] for charge in vocabulary.charges] for element in vocabulary.elements]
        self._capacity = torch.tensor([*capacity, [0] * len(vocabulary.charges)], device=device)  # last: an empty slot
        symbols = [*vocabulary.elements, None]
        self._grows = torch.tensor([symbol == "N" and 1 in vocabulary.charges for symbol in symbols], device=device)
        self._capacity[:, DEFAULT] += self._grows
        self._is_oxygen = torch.tensor([symbol == "O" for symbol in symbols], device=device)
        self._hydrogens = torch.tensor(vocabulary.hydrogens, device=device)
        self._order = torch.tensor([0, *vocabulary.bonds], device=device)
        self.most = int(self._capacity.max()) + int(self._grows.any())

    def of(self, states: Graphs) -> Valences:
        """What bonds and hydrogens use of each atom's capacity."""
        element, attribute, bond = states
        order = self._order[bond]
        used = order.sum(2) + self._hydrogens[attribute[..., HYDROGENS]]
        grows = self._grows[element] & (attribute[..., CHARGE] == DEFAULT)
        has_oxide = grows & ((order == 2) & self._is_oxygen[element][:, None]).any(2)
        room = self._capacity[element, attribute[..., CHARGE]] + has_oxide - used
        return Valences(used, room, grows & ~has_oxide, grows & (used == CAPACITY["N"][1]))

    def settable(self, states: Graphs, valences: Valences) -> Tensor:
        """(M, S, V) the attributes that can be set."""
        element, attribute, bond = states
        single = ((bond != NO_BOND).sum(2) >= CHIRAL_BONDS) & (bond <= DEFAULT_BOND).all(2)
        fits = {
            CHARGE: valences.used[..., None] <= self._capacity[element],
            CHIRALITY: single[..., None],
            HYDROGENS: self._hydrogens <= valences.room[..., None],
            NO_IMPLICIT: torch.ones_like(single)[..., None],
        }
        can_be_set = (attribute == DEFAULT) & (element != len(self.vocabulary.elements))[..., None]
        return torch.cat(
            [
                (fits[a] & can_be_set[..., a, None]).expand(-1, -1, len(values))[..., 1:]
                for a, values in enumerate(self.vocabulary.attributes)
            ],
            2,
        )

    def types(self, states: Graphs, valences: Valences) -> Tensor:
        """(M, S, S, T - 1) whether both ends of a single bond have room for each other type."""
        order = self._order[DEFAULT_BOND + 1 :]
        becomes_oxide = valences.lacks_oxide[:, :, None] & self._is_oxygen[states.element][:, None]
        room = valences.room[:, :, None, None] + (becomes_oxide[..., None] & (order == 2))
        fits = order - 1 <= room
        return fits & fits.transpose(1, 2)
