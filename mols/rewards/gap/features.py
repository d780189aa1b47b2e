"""Molecules as the gap network sees them: the graph of the heavy atoms, features per atom and per pair of atoms.

RDKit gives an atom's element, charge, hydrogens, hybridisation and aromaticity, and a bond's order and conjugation;
everything else (distances, rings, conjugated systems) is computed from these for a batch at once. None of it depends on
how the atoms are numbered: a bond's ring size is that of the smallest cycle through it, not of one of RDKit's rings,
whose choice is not unique. Neither chirality nor a conformer is looked at.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from rdkit import Chem
from rdkit.Chem.rdchem import BondType, HybridizationType

from mols.common.terminal import ExperimentError

ELEMENTS = (6, 7, 8, 9)
HYBRIDISATIONS = (HybridizationType.SP, HybridizationType.SP2, HybridizationType.SP3)
BOND_KINDS = {BondType.SINGLE: 1, BondType.DOUBLE: 2, BondType.TRIPLE: 3, BondType.AROMATIC: 4}
# Columns of one-hot features; the last of COUNTS, RINGS and DISTANCES stands for more, those of CHARGES for beyond.
CHARGES, COUNTS, RINGS, DISTANCES = (-1, 0, 1), range(5), range(3, 8), range(2, 8)
N_ATOM_FEATURES = len(ELEMENTS) + len(CHARGES) + 2 * len(COUNTS) + len(HYBRIDISATIONS) + len(RINGS) + 2
N_PAIR_FEATURES = 1 + len(BOND_KINDS) + 1 + len(RINGS) + len(DISTANCES) + 4


class GapGraph(NamedTuple):
    """A molecule of n heavy atoms and E bonds.

    Attributes:
        atoms: (n, 5) atomic number, charge, hydrogens, RDKit's number of the hybridisation, aromatic or not.
        bonds: (E, 4) the two atoms, the kind as ``BOND_KINDS`` has it, conjugated or not.
    """

    atoms: np.ndarray
    bonds: np.ndarray


class GapBatch(NamedTuple):
    """N molecules of at most n heavy atoms; what lies beyond a molecule's atoms is 0.

    Attributes:
        present: (N, n) whether there is an atom.
        atoms: (N, n, N_ATOM_FEATURES) float32.
        pairs: (N, n, n, N_PAIR_FEATURES) float32, symmetric; an atom makes a pair with itself.
    """

    present: np.ndarray
    atoms: np.ndarray
    pairs: np.ndarray


def featurise(molecule: Chem.Mol) -> GapGraph:
    """The arrays of a sanitised molecule whose hydrogens are implicit.

    Raises:
        ExperimentError: it has no atoms, or an atom or a bond that the network does not know.
    """
    atoms = [
        (a.GetAtomicNum(), a.GetFormalCharge(), a.GetTotalNumHs(), int(a.GetHybridization()), a.GetIsAromatic())
        for a in molecule.GetAtoms()
    ]
    bonds = [
        (b.GetBeginAtomIdx(), b.GetEndAtomIdx(), BOND_KINDS.get(b.GetBondType(), 0), b.GetIsConjugated())
        for b in molecule.GetBonds()
    ]
    if not atoms or not {atom[0] for atom in atoms} <= set(ELEMENTS) or not all(bond[2] for bond in bonds):
        raise ExperimentError(
            f"{Chem.MolToSmiles(molecule) or 'a molecule without atoms'}: the gap network takes molecules of C, N, O "
            "and F, with implicit hydrogens and single, double, triple and aromatic bonds: leave it out"
        )
    return GapGraph(np.array(atoms, dtype=np.int64), np.array(bonds, dtype=np.int64).reshape(-1, 4))


def collate(graphs: Sequence[GapGraph], n_atoms: int | None = None) -> GapBatch:
    """One batch of N >= 1 molecules.

    Args:
        graphs: of the molecules.
        n_atoms: n, if it is to be more than the largest molecule has.
    """
    sizes = np.array([len(graph.atoms) for graph in graphs])
    n = n_atoms or int(sizes.max())
    present = np.arange(n) < sizes[:, None]
    atoms = np.zeros((len(graphs), n, 5), dtype=np.int64)
    atoms[present] = np.concatenate([graph.atoms for graph in graphs])
    molecule = np.arange(len(graphs)).repeat([len(graph.bonds) for graph in graphs])
    begin, end, kind, is_conjugated = np.concatenate([graph.bonds for graph in graphs]).T
    kinds = np.zeros((len(graphs), n, n), dtype=np.int64)
    conjugated = np.zeros(kinds.shape, dtype=bool)
    for i, j in ((begin, end), (end, begin)):
        kinds[molecule, i, j], conjugated[molecule, i, j] = kind, is_conjugated
    rings = ring_sizes(kinds > 0)
    both = present[:, :, None] & present[:, None, :]
    return GapBatch(
        present,
        atom_features(atoms, kinds, conjugated, rings) * present[..., None].astype(np.float32),
        pair_features(kinds, conjugated, rings) * both[..., None].astype(np.float32),
    )


def atom_features(atoms: np.ndarray, kinds: np.ndarray, conjugated: np.ndarray, rings: np.ndarray) -> np.ndarray:
    """(N, n, N_ATOM_FEATURES) float32 of atoms (N, n, 5), and kinds, conjugation and rings of bonds (N, n, n)."""
    number, charge, hydrogens, hybridisation, aromatic = np.moveaxis(atoms, -1, 0)
    smallest = np.where(rings > 0, rings, np.inf).min(2)
    columns = (
        one_hot(number, ELEMENTS),
        one_hot(charge.clip(-1, 1), CHARGES),
        one_hot(hydrogens.clip(max=COUNTS[-1]), COUNTS),
        one_hot((kinds > 0).sum(2).clip(max=COUNTS[-1]), COUNTS),
        one_hot(hybridisation, HYBRIDISATIONS),
        one_hot(np.where(np.isinf(smallest), 0, smallest.clip(max=RINGS[-1])), RINGS),
        aromatic[..., None],
        conjugated.any(2)[..., None],
    )
    return np.concatenate(columns, axis=-1, dtype=np.float32)


def pair_features(kinds: np.ndarray, conjugated: np.ndarray, rings: np.ndarray) -> np.ndarray:
    """(N, n, n, N_PAIR_FEATURES) float32 of kinds, conjugation and rings of bonds, each (N, n, n).

    The pair of an atom with itself, a bond's kind, conjugation and ring, the distance of atoms without a bond; then the
    resistance between both (Klein and Randic 1993), shortest paths of two bonds, whether both belong to one conjugated
    system, and one over 1 + their distance in it.
    """
    bonded = kinds > 0
    distance, system = distances(bonded), distances(conjugated)
    related = np.isfinite(system) & conjugated.any(2)[:, :, None]
    columns = (
        (distance == 0)[..., None],
        one_hot(kinds, BOND_KINDS.values()),
        conjugated[..., None],
        one_hot(rings.clip(max=RINGS[-1]), RINGS),
        one_hot(np.where(np.isfinite(distance), distance.clip(max=DISTANCES[-1]), 0), DISTANCES),
        0.5 * resistances(bonded, np.isfinite(distance))[..., None],
        (two_steps(bonded) * (distance == 2))[..., None],
        related[..., None],
        (related / (1 + system))[..., None],
    )
    return np.concatenate(columns, axis=-1, dtype=np.float32)


def one_hot(values: np.ndarray, known: Iterable[int]) -> np.ndarray:
    """(..., K) whether each value is each of K known ones; all false for another value."""
    return values[..., None] == np.array([int(value) for value in known])


def two_steps(bonded: np.ndarray) -> np.ndarray:
    """(N, n, n) float32 number of walks of two bonds."""
    steps = bonded.astype(np.float32)
    return steps @ steps


def distances(bonded: np.ndarray) -> np.ndarray:
    """(N, n, n) float32 bonds on a shortest path; infinite where there is none."""
    n = bonded.shape[1]
    steps = bonded.astype(np.float32)
    found = np.broadcast_to(np.where(np.eye(n, dtype=bool), 0, np.inf).astype(np.float32), bonded.shape).copy()
    front = found == 0
    for length in range(1, n):
        front = ((front.astype(np.float32) @ steps) > 0) & np.isinf(found)
        if not front.any():
            break
        found[front] = length
    return found


def ring_sizes(bonded: np.ndarray) -> np.ndarray:
    """(N, n, n) atoms of the smallest cycle through each bond; 0 without one.

    A bond's smallest cycle is the bond and a shortest path between its ends that does without it.
    """
    molecule, begin, end = np.nonzero(np.triu(bonded))
    steps, edge = bonded[molecule].astype(np.float32), np.arange(len(molecule))
    steps[edge, begin, end] = steps[edge, end, begin] = 0
    size = np.zeros(len(molecule), dtype=np.int64)
    front = np.zeros((len(molecule), 1, bonded.shape[1]), dtype=np.float32)
    front[edge, 0, begin] = 1
    for length in range(1, bonded.shape[1]):
        front = np.minimum(front @ steps, 1)
        size[(size == 0) & (front[edge, 0, end] > 0)] = length + 1
    rings = np.zeros(bonded.shape, dtype=np.int64)
    rings[molecule, begin, end] = rings[molecule, end, begin] = size
    return rings


def resistances(bonded: np.ndarray, connected: np.ndarray) -> np.ndarray:
    """(N, n, n) float64 resistance between atoms where each bond is a resistor of 1; 0 between unconnected ones.

    With the Laplacian L and J = 1 for atoms of one component, G = (L + J)^-1 gives G_ii + G_jj - 2 G_ij.
    """
    steps = bonded.astype(np.float64)
    laplacian = steps.sum(2)[:, :, None] * np.eye(bonded.shape[1]) - steps
    inverse = np.linalg.inv(laplacian + connected)
    own = np.diagonal(inverse, axis1=1, axis2=2)
    return (own[:, :, None] + own[:, None, :] - 2 * inverse) * connected
