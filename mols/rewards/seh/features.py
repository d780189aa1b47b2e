"""Molecules as the sEH network sees them: four numbers per atom, and bonds as directed edges of four types.

The features are those of Bengio et al. 2021, "Flow network based generative models for non-iterative diverse candidate
generation": of an atom its element, aromaticity, hybridisation and hydrogens, of a bond its type. A molecule becomes
small arrays by RDKit, atom by atom; everything after that is done for a batch at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.Chem.rdchem import HybridizationType

from mols.common.terminal import ExperimentError
from mols.molecules.workers import WorkerMap

MAX_ATOMIC_NUMBER = 56  # barium
ELEMENTS = (1, 6, 7, 8, 9)  # H C N O F, which have a column of their own besides; column 5 is all others
HYBRIDISATIONS = (HybridizationType.SP, HybridizationType.SP2, HybridizationType.SP3)
BOND_ORDERS = np.array([1.0, 2.0, 3.0, 1.5])  # single, double, triple, aromatic: the types 0 to 3
NO_BOND = len(BOND_ORDERS)  # type of the self-loop of a molecule without bonds
# Columns of an atom's features. Those left out are 0: 6 to 8 belong to features that the network does not use.
AROMATIC, HYBRIDISATION, HYDROGENS, ATOMIC_NUMBER = 9, 10, 13, 14
N_FEATURES = ATOMIC_NUMBER + MAX_ATOMIC_NUMBER + 1  # the last one is 0 too

_ELEMENT_COLUMN = np.full(MAX_ATOMIC_NUMBER + 1, len(ELEMENTS))
_ELEMENT_COLUMN[list(ELEMENTS)] = np.arange(len(ELEMENTS))


class MoleculeGraph(NamedTuple):
    """A molecule of n atoms.

    Attributes:
        atoms: (n, 4) atomic number, aromatic or not, RDKit's number of the hybridisation, hydrogens.
        edges: (E, 3) source, target, type; every bond in both directions.
    """

    atoms: np.ndarray
    edges: np.ndarray


class GraphBatch(NamedTuple):
    """N molecules with n atoms in all, one after the other.

    Attributes:
        features: (n, N_FEATURES) float32.
        sizes: (N,) atoms of each.
        edges: (E, 3) source and target among the n atoms, type.
    """

    features: np.ndarray
    sizes: np.ndarray
    edges: np.ndarray


def featurise(molecule: Chem.Mol) -> MoleculeGraph:
    """The arrays of a sanitised molecule; one without bonds gets a self-loop at its first atom.

    Raises:
        ExperimentError: it has no atoms, or an atom or a bond that the network does not know.
    """
    rows = [
        (atom.GetAtomicNum(), atom.GetIsAromatic(), atom.GetHybridization(), atom.GetTotalNumHs(True))
        for atom in molecule.GetAtoms()
    ]
    atoms = np.array(rows, dtype=np.int16).reshape(-1, 4)
    if len(atoms) == 0 or not 1 <= atoms[:, 0].min() <= atoms[:, 0].max() <= MAX_ATOMIC_NUMBER:
        raise ExperimentError(
            f"{Chem.MolToSmiles(molecule)}: the sEH network takes molecules of the elements H to Ba: leave it out"
        )
    # A matrix that RDKit kept from before a change of the molecule would be wrong, hence force.
    orders = Chem.GetAdjacencyMatrix(molecule, useBO=True, force=True)
    source, target = orders.nonzero()
    types = orders[source, target, None] == BOND_ORDERS
    # Bonds of order 0 are missing in the matrix, and dative ones have one direction.
    if len(source) != 2 * molecule.GetNumBonds() or not types.any(1).all():
        raise ExperimentError(
            f"{Chem.MolToSmiles(molecule)}: the sEH network knows bonds of order 1, 2, 3 and aromatic: leave it out"
        )
    edges = np.stack([source, target, types.argmax(1)], axis=1)
    return MoleculeGraph(atoms, edges if len(edges) else np.array([[0, 0, NO_BOND]]))


def collate(graphs: Sequence[MoleculeGraph]) -> GraphBatch:
    """One batch of N >= 1 molecules."""
    sizes = np.array([len(graph.atoms) for graph in graphs])
    n_edges = np.array([len(graph.edges) for graph in graphs])
    edges = np.concatenate([graph.edges for graph in graphs])
    edges[:, :2] += (sizes.cumsum() - sizes).repeat(n_edges)[:, None]
    return GraphBatch(atom_features(np.concatenate([graph.atoms for graph in graphs])), sizes, edges)


def atom_features(atoms: np.ndarray) -> np.ndarray:
    """(n, 4) the atoms of any number of ``MoleculeGraph``s -> (n, N_FEATURES) float32."""
    number, aromatic, hybridisation, hydrogens = atoms.T
    features = np.zeros((len(atoms), N_FEATURES), dtype=np.float32)
    row = np.arange(len(atoms))
    features[row, _ELEMENT_COLUMN[number]] = 1
    features[row, ATOMIC_NUMBER + number - 1] = 1
    features[:, AROMATIC] = aromatic
    features[:, HYBRIDISATION : HYBRIDISATION + len(HYBRIDISATIONS)] = hybridisation[:, None] == HYBRIDISATIONS
    features[:, HYDROGENS] = hydrogens
    return features


class Featuriser(WorkerMap[Chem.Mol, MoleculeGraph]):
    """``featurise`` for many molecules.

    Args:
        workers: as in ``WorkerMap``.
    """

    def __init__(self, workers: int = 0) -> None:
        super().__init__(featurise, workers)
