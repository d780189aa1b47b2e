"""What atoms and bonds of the QM9 task can be: C, N, F and O with charges, chirality and hydrogens (the facts of
recursionpharma/gflownet's QM9 task, as Gritsaev et al. 2025 use it)."""

from types import MappingProxyType
from typing import NamedTuple

from mols.common.terminal import ExperimentError

CAPACITY = MappingProxyType({  # orders of bonds and explicit hydrogens, by formal charge, which never makes room
    "C": MappingProxyType({0: 4, 1: 3, -1: 3}),
    "N": MappingProxyType({0: 3, 1: 4, -1: 2}),  # but here
    "O": MappingProxyType({0: 2, 1: 1, -1: 1}),
    "F": MappingProxyType({0: 1, 1: 0, -1: 0}),
})  # fmt: skip
CHARGE, CHIRALITY, HYDROGENS, NO_IMPLICIT = range(4)  # the attributes
N_ATTRIBUTES = 4
DEFAULT = 0  # index of every attribute's default value
DEFAULTS = (0, 0, 0, False)


class AtomVocabulary(NamedTuple):
    """The values that there are; of each attribute and of bonds, the default first.

    Attributes:
        elements: K symbols.
        charges: formal charges.
        chiralities: 0 none, 1 clockwise, 2 counterclockwise, over the neighbours in the order of their slots.
        hydrogens: numbers of explicit hydrogens.
        no_implicit: whether RDKit is to add no hydrogens of its own.
        bonds: T orders.
    """

    elements: tuple[str, ...] = ("C", "N", "F", "O")
    charges: tuple[int, ...] = (0, 1, -1)
    chiralities: tuple[int, ...] = (0, 1, 2)
    hydrogens: tuple[int, ...] = (0, 1, 2, 3)
    no_implicit: tuple[bool, ...] = (False, True)
    bonds: tuple[int, ...] = (1, 2, 3)

    @property
    def attributes(self) -> tuple[tuple, ...]:
        """The values of each attribute, by ``CHARGE`` etc."""
        return self.charges, self.chiralities, self.hydrogens, self.no_implicit

    def check(self) -> None:
        """Refuse what has no meaning.

        Raises:
            ExperimentError: an element or a charge without a known capacity; a default that is not the first value.
        """
        for element in self.elements:
            if element not in CAPACITY or not set(self.charges) <= set(CAPACITY[element]):
                raise ExperimentError(
                    f"the valence of {element} at charges {self.charges} is not known: choose elements among "
                    f"{', '.join(CAPACITY)} and charges among 0, 1 and -1"
                )
        first = (*(values[:1] for values in self.attributes), self.bonds[:1])
        if first != (*((default,) for default in DEFAULTS), (1,)):
            raise ExperimentError(f"the first values must be the defaults {DEFAULTS} and the single bond, not {first}")


ATOMS = AtomVocabulary()
# Neutral molecules without unpaired electrons, as QM9's are: RDKit counts all hydrogens, so that none can be missing.
NEUTRAL = AtomVocabulary(charges=(0,), hydrogens=(0,), no_implicit=(False,))
VOCABULARIES = MappingProxyType({"paper": ATOMS, "neutral": NEUTRAL})  # by --charges
