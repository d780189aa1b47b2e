"""From finished trees of fragments to RDKit molecules, and back by cutting a molecule at single bonds.

A molecule is cut into the fewest fragments that it can be. Whether a fragment fits somewhere depends on its own atoms
and their bonds outwards alone, and a bond that is cut lies in no ring, so that what is beyond it is a problem by
itself, solved once: dynamic programming over bonds, polynomial in the number of atoms.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate, chain, combinations
from typing import NamedTuple

from rdkit import Chem
from rdkit.rdBase import BlockLogs

from mols.environments.fragments import FIRST_POINT, FragmentEnvironment, Trees

MAX_MATCHES = 10**6  # of a fragment in a molecule: all of them; RDKit's default is 1,000


class Placement(NamedTuple):
    """A fragment that fits somewhere in a molecule.

    Attributes:
        fragment: its number.
        atoms: the molecule's atoms, in the fragment's order.
        ends: for each bond that leaves it: the atom inside, the atom outside, the attachment point inside.
    """

    fragment: int
    atoms: tuple[int, ...]
    ends: tuple[tuple[int, int, int], ...]


class AtomKind(NamedTuple):
    """How an atom of a fragment looks.

    Attributes:
        free: its signature without a bond outwards.
        joined: with one; None where it can have none.
        point: the attachment point that it is; None where it is none.
    """

    free: tuple
    joined: tuple | None
    point: int | None


class FragmentMolecules:
    """The molecules of an environment's finished states.

    Args:
        environment: whose vocabulary and size count.
    """

    def __init__(self, environment: FragmentEnvironment) -> None:
        self.environment, self.vocabulary = environment, environment.vocabulary
        self._parts = [Chem.MolFromSmiles(fragment.smiles) for fragment in self.vocabulary]
        self._kinds = [self._atom_kinds(fragment) for fragment in range(len(self.vocabulary))]
        self._max_atoms = environment.n_slots * max(part.GetNumAtoms() for part in self._parts)

    def to_molecules(self, states: Trees) -> list[Chem.Mol | None]:
        """The molecules of N finished states; None where RDKit finds a valence that cannot be.

        Raises:
            ValueError: a state is not finished.
        """
        if not self.environment.forward_mask(states).stop.all():
            raise ValueError("a state that cannot stop is not a molecule")
        return [
            self._molecule(*rows) for rows in zip(states.fragment.tolist(), states.attachment.tolist(), strict=True)
        ]

    def to_smiles(self, states: Trees) -> list[str | None]:
        """The canonical SMILES of N finished states; None where the molecule is invalid."""
        return [molecule and Chem.MolToSmiles(molecule) for molecule in self.to_molecules(states)]

    def from_molecule(self, molecule: Chem.Mol | str) -> Trees | None:
        """One finished state whose canonical SMILES is the molecule's, of the fewest fragments.

        Args:
            molecule: of RDKit, or a SMILES.

        Returns:
            None if there is none, or if RDKit cannot read the SMILES.
        """
        if isinstance(molecule, str):
            with BlockLogs():
                molecule = Chem.MolFromSmiles(molecule)
        if molecule is None or not 0 < molecule.GetNumAtoms() <= self._max_atoms:
            return None
        cover = fewest_placements(self._placements(molecule))
        if cover is None or len(cover) > self.environment.n_slots:
            return None
        states = self._tree(cover)
        # What atoms and bonds do not show: stereochemistry, a second component.
        return states if self.to_smiles(states) == [Chem.MolToSmiles(molecule)] else None

    def _molecule(self, fragment: list[int], attachment: list[list[int]]) -> Chem.Mol | None:
        """The molecule of one state."""
        slots = [slot for slot, number in enumerate(fragment) if number != self.environment.n_fragments]
        bonds = []
        for (left, i), (right, j) in combinations(enumerate(slots), 2):
            if attachment[i][j]:
                points = self.vocabulary[fragment[i]].points, self.vocabulary[fragment[j]].points
                atoms = points[0][attachment[i][j] - FIRST_POINT], points[1][attachment[j][i] - FIRST_POINT]
                bonds.append((left, atoms[0], right, atoms[1]))
        return join([self._parts[fragment[slot]] for slot in slots], bonds)

    def _atom_kinds(self, number: int) -> list[AtomKind]:
        """How each atom of a fragment looks with and without a bond outwards."""
        part, points = self._parts[number], self.vocabulary[number].points
        kinds = []
        for atom in part.GetAtoms():
            point = points.index(atom.GetIdx()) if atom.GetIdx() in points else None
            tried = None if point is None else join([part, Chem.MolFromSmiles("C")], [(0, atom.GetIdx(), 1, 0)])
            joined = tried and signature(tried.GetAtomWithIdx(atom.GetIdx()))
            kinds.append(AtomKind(signature(atom), joined, point))
        return kinds

    def _placements(self, molecule: Chem.Mol) -> Iterator[Placement]:
        """Every place where a fragment fits, once."""
        atoms = [signature(atom) for atom in molecule.GetAtoms()]
        neighbours: list[dict[int, bool]] = [{} for _ in atoms]  # and whether the bond to it can be cut
        for bond in molecule.GetBonds():
            left, right = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            can_be_cut = bond.GetBondType() == Chem.BondType.SINGLE and not bond.IsInRing()
            neighbours[left][right] = neighbours[right][left] = can_be_cut
        for number, part in enumerate(self._parts):
            found = set()  # another match of the same atoms is a symmetry of the fragment
            for match in molecule.GetSubstructMatches(part, uniquify=False, maxMatches=MAX_MATCHES):
                if frozenset(match) not in found:
                    ends = self._ends(number, match, atoms, neighbours)
                    if ends is not None:
                        found.add(frozenset(match))
                        yield Placement(number, match, ends)

    def _ends(
        self, number: int, match: tuple[int, ...], atoms: list[tuple], neighbours: list[dict[int, bool]]
    ) -> tuple | None:
        """The bonds that leave a match of a fragment, as in ``Placement``; None if it does not fit there."""
        inside, ends = set(match), []
        for atom, kind in zip(match, self._kinds[number], strict=True):
            outside = [other for other in neighbours[atom] if other not in inside]
            if len(outside) > 1 or atoms[atom] != (kind.joined if outside else kind.free):
                return None
            if outside and not neighbours[atom][outside[0]]:
                return None
            ends += [(atom, other, kind.point) for other in outside]
        return tuple(ends)

    def _tree(self, cover: Sequence[Placement]) -> Trees:
        """The one state of placements that cover a molecule."""
        states = self.environment.initial_states(1)
        slot_of = {atom: slot for slot, placement in enumerate(cover) for atom in placement.atoms}
        for slot, placement in enumerate(cover):
            states.fragment[0, slot] = placement.fragment
            for _, outside, point in placement.ends:
                states.attachment[0, slot, slot_of[outside]] = FIRST_POINT + point
        return states


def join(parts: Sequence[Chem.Mol], bonds: Sequence[tuple[int, int, int, int]]) -> Chem.Mol | None:
    """Molecules joined by single bonds (part, atom, part, atom); None if RDKit finds the result invalid."""
    first = [0, *accumulate(part.GetNumAtoms() for part in parts)]
    molecule = Chem.RWMol()
    for part in parts:
        molecule.InsertMol(part)
    for left, left_atom, right, right_atom in bonds:
        pair = first[left] + left_atom, first[right] + right_atom
        molecule.AddBond(*pair, Chem.BondType.SINGLE)
        for atom in map(molecule.GetAtomWithIdx, pair):  # hydrogens that SMILES writes, as of [nH], do not adjust
            atom.SetNumExplicitHs(max(atom.GetNumExplicitHs() - 1, 0))
    try:
        with BlockLogs():
            Chem.SanitizeMol(molecule)
    except Chem.MolSanitizeException:
        return None
    return molecule.GetMol()


def signature(atom: Chem.Atom) -> tuple[int, int]:
    """Charge and hydrogens: what a match of a fragment does not compare."""
    return atom.GetFormalCharge(), atom.GetTotalNumHs()


def fewest_placements(placements: Iterator[Placement]) -> list[Placement] | None:
    """The fewest placements that cover the component of atom 0; of equally few, the first; None if none do."""
    entered = defaultdict(list)  # by an atom inside and the atom outside from which it is entered
    for placement in placements:
        for inside, outside, _ in placement.ends:
            entered[inside, outside].append(placement)
        if 0 in placement.atoms:
            entered[0, None].append(placement)

    @cache
    def fewest(inside: int, outside: int | None) -> list[Placement] | None:
        """Cover the atom inside and all that is beyond it as seen from outside."""
        covers = []
        for placement in entered[inside, outside]:
            beyond = [fewest(far, near) for near, far, _ in placement.ends if far != outside]
            if None not in beyond:
                covers.append([placement, *chain.from_iterable(beyond)])
        return min(covers, key=len, default=None)

    return fewest(0, None)
