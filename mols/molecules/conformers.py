"""Conformers by RDKit: of five embeddings, the one of lowest MMFF94s energy.

Embedding is ETKDGv3 with the torsions of small rings (Wang et al. 2020); where RDKit raises an error at them, as it may
where small rings are fused, without them. The seed is one for all, and nothing is minimised, as in the paper's reward.
"""

import numpy as np
from rdkit import Chem
from rdkit.Chem.rdDistGeom import EmbedMultipleConfs, ETKDGv3
from rdkit.Chem.rdForceFieldHelpers import MMFFGetMoleculeForceField, MMFFGetMoleculeProperties
from rdkit.rdBase import BlockLogs

from mols.molecules.structures import Structure
from mols.molecules.workers import WorkerMap

N_CONFORMERS, SEED = 5, 1


class ConformerMap(WorkerMap[str, Structure | None]):
    """``conformer`` for many molecules.

    Args:
        workers: as in ``WorkerMap``.
    """

    def __init__(self, workers: int = 0) -> None:
        super().__init__(conformer, workers)


def conformer(smiles: str) -> Structure | None:
    """The conformer of a molecule, hydrogens included; None if RDKit has none.

    If MMFF94s does not know the molecule, it is the first one.

    Args:
        smiles: canonical, or else another spelling of the molecule has another conformer.
    """
    with BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None or not molecule.GetNumAtoms():
            return None
        molecule = Chem.AddHs(molecule)
        identifiers = _embed(molecule)
        if not identifiers:
            return None
        best = min(identifiers, key=_energies(molecule, identifiers).__getitem__)
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()]
    return Structure(
        np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64),
        molecule.GetConformer(best).GetPositions(),
        np.array(bonds, dtype=np.int64).reshape(-1, 2),
    )


def _embed(molecule: Chem.Mol) -> list[int]:
    """Give a molecule conformers; their identifiers."""
    parameters = ETKDGv3()
    parameters.randomSeed = SEED
    for parameters.useSmallRingTorsions in (True, False):
        try:
            return list(EmbedMultipleConfs(molecule, N_CONFORMERS, parameters))
        except RuntimeError:  # an invariant of RDKit's minimiser, at some seeds
            continue
    return []


def _energies(molecule: Chem.Mol, identifiers: list[int]) -> dict[int, float]:
    """MMFF94s energy of each conformer, kcal/mol; 0 if it does not know the molecule."""
    properties = MMFFGetMoleculeProperties(molecule, mmffVariant="MMFF94s")
    if properties is None:
        return dict.fromkeys(identifiers, 0.0)
    return {
        identifier: MMFFGetMoleculeForceField(molecule, properties, confId=identifier).CalcEnergy()
        for identifier in identifiers
    }
