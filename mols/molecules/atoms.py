"""From finished graphs of atoms to RDKit molecules, and back to the graph that has the fewest attributes.

Bonds are kekulised both ways. What RDKit tells by itself is no attribute: hydrogens are explicit only where it would
count others (radicals, for one), so that of a molecule's states ``from_molecule`` gives one with the fewest moves.
"""

from itertools import combinations

from rdkit import Chem
from rdkit.rdBase import BlockLogs

from mols.environments.atom_moves import DEFAULT_BOND, NO_BOND
from mols.environments.atom_vocabulary import CHARGE, CHIRALITY, HYDROGENS, NO_IMPLICIT
from mols.environments.atoms import AtomEnvironment, Graphs

BOND_TYPES = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}  # by order
ORDERS = {bond: order for order, bond in BOND_TYPES.items()}
CHIRAL_TAGS = (
    Chem.ChiralType.CHI_UNSPECIFIED,
    Chem.ChiralType.CHI_TETRAHEDRAL_CW,
    Chem.ChiralType.CHI_TETRAHEDRAL_CCW,
)
MIRRORED = (0, 2, 1)  # chirality, where the neighbours come in an odd permutation


class AtomMolecules:
    """The molecules of an environment's finished states.

    Args:
        environment: whose vocabulary and size count.
    """

    def __init__(self, environment: AtomEnvironment) -> None:
        self.environment, self.vocabulary = environment, environment.vocabulary

    def to_molecules(self, states: Graphs) -> list[Chem.Mol | None]:
        """The sanitised molecules of N finished states; None where RDKit finds none, or cannot read its SMILES.

        Raises:
            ValueError: a state is not finished.
        """
        if not self.environment.forward_mask(states).stop.all():
            raise ValueError("a state that cannot stop is not a molecule")
        return [self._molecule(*row) for row in zip(*(tensor.tolist() for tensor in states), strict=True)]

    def to_smiles(self, states: Graphs) -> list[str | None]:
        """The canonical SMILES of N finished states; None where the molecule is invalid."""
        return [molecule and Chem.MolToSmiles(molecule) for molecule in self.to_molecules(states)]

    def from_molecule(self, molecule: Chem.Mol | str) -> Graphs | None:
        """One finished state whose canonical SMILES is the molecule's, with the fewest attributes.

        Args:
            molecule: of RDKit, or a SMILES.

        Returns:
            None if there is none, or if RDKit cannot read the SMILES. A state has no place for the geometry of double
            bonds, isotopes, or a second component.
        """
        if isinstance(molecule, str):
            with BlockLogs():
                molecule = Chem.MolFromSmiles(molecule)
        if molecule is None or len(Chem.GetMolFrags(molecule)) != 1:
            return None
        states = self._without_hydrogens(molecule)
        if states is None or not self._is_finished(states):
            return None
        built = self._molecule(*(tensor[0].tolist() for tensor in states))
        if built is None or not self._set_hydrogens(states, molecule, built) or not self._is_finished(states):
            return None
        return states if self.to_smiles(states) == [Chem.MolToSmiles(molecule)] else None

    def _molecule(self, element: list[int], attribute: list[list[int]], bond: list[list[int]]) -> Chem.Mol | None:
        """The molecule of one state."""
        vocabulary, molecule, number = self.vocabulary, Chem.RWMol(), {}
        for slot, (kind, values) in enumerate(zip(element, attribute, strict=True)):
            if kind != self.environment.n_elements:
                atom = Chem.Atom(vocabulary.elements[kind])
                atom.SetFormalCharge(vocabulary.charges[values[CHARGE]])
                atom.SetChiralTag(CHIRAL_TAGS[vocabulary.chiralities[values[CHIRALITY]]])
                atom.SetNumExplicitHs(vocabulary.hydrogens[values[HYDROGENS]])
                atom.SetNoImplicit(vocabulary.no_implicit[values[NO_IMPLICIT]])
                number[slot] = molecule.AddAtom(atom)
        for left, right in combinations(number, 2):  # an atom's bonds are in the order of its neighbours' slots
            if bond[left][right] != NO_BOND:
                order = vocabulary.bonds[bond[left][right] - DEFAULT_BOND]
                molecule.AddBond(number[left], number[right], BOND_TYPES[order])
        return readable(molecule)

    def _without_hydrogens(self, molecule: Chem.Mol) -> Graphs | None:
        """A state of a molecule's atoms in their order, bonds, charges and chiralities; None if there is none."""
        environment, vocabulary = self.environment, self.vocabulary
        molecule = Chem.Mol(molecule)
        Chem.Kekulize(molecule, clearAromaticFlags=True)
        states = environment.initial_states(1)
        try:
            for bond in molecule.GetBonds():
                left, right = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
                kind = DEFAULT_BOND + vocabulary.bonds.index(ORDERS[bond.GetBondType()])
                states.bond[0, left, right] = states.bond[0, right, left] = kind
            for slot, atom in enumerate(molecule.GetAtoms()):
                states.element[0, slot] = vocabulary.elements.index(atom.GetSymbol())
                states.attribute[0, slot, CHARGE] = vocabulary.charges.index(atom.GetFormalCharge())
                states.attribute[0, slot, CHIRALITY] = vocabulary.chiralities.index(chirality(atom))
        except (IndexError, KeyError, ValueError):  # more atoms than slots; a type of bond, another value that is none
            return None
        return states

    def _set_hydrogens(self, states: Graphs, wanted: Chem.Mol, built: Chem.Mol) -> bool:
        """Where RDKit counted other hydrogens than wanted, state them; False if the vocabulary cannot."""
        for slot, (atom, other) in enumerate(zip(wanted.GetAtoms(), built.GetAtoms(), strict=True)):
            if atom.GetTotalNumHs() != other.GetTotalNumHs():
                if atom.GetTotalNumHs() not in self.vocabulary.hydrogens or True not in self.vocabulary.no_implicit:
                    return False
                states.attribute[0, slot, HYDROGENS] = self.vocabulary.hydrogens.index(atom.GetTotalNumHs())
                states.attribute[0, slot, NO_IMPLICIT] = self.vocabulary.no_implicit.index(True)
        return True

    def _is_finished(self, states: Graphs) -> bool:
        """Whether one state's valences can be reached, and stop."""
        environment = self.environment
        return bool((environment.room(states) >= 0).all() and environment.forward_mask(states).stop.all())


def readable(molecule: Chem.RWMol) -> Chem.Mol | None:
    """The molecule, sanitised; None if RDKit cannot, or cannot read the SMILES that it writes of it."""
    try:
        with BlockLogs():
            Chem.SanitizeMol(molecule)
            Chem.AssignStereochemistry(molecule, cleanIt=True, force=True)
            again = Chem.MolFromSmiles(Chem.MolToSmiles(molecule))
    except Chem.MolSanitizeException:
        return None
    return None if again is None else molecule.GetMol()


def chirality(atom: Chem.Atom) -> int:
    """0 none, 1 clockwise, 2 counterclockwise over the neighbours in the order of their numbers."""
    tag = CHIRAL_TAGS.index(atom.GetChiralTag())
    neighbours = [neighbour.GetIdx() for neighbour in atom.GetNeighbors()]
    is_odd = sum(left > right for left, right in combinations(neighbours, 2)) % 2
    return MIRRORED[tag] if is_odd else tag
