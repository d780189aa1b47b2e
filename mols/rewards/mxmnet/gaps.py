"""MXMNet in the place of a proxy: molecules -> gaps, by way of conformers."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rdkit import Chem
from torch import Tensor

from mols.molecules.conformers import ConformerMap
from mols.rewards.mxmnet.network import MXMNet


class MXMNetGap:
    """Gaps in eV by MXMNet on conformers of RDKit.

    Args:
        weights: the published file.
        workers: processes that make conformers; 0: no extra ones.

    Raises:
        ExperimentError: the file is missing, damaged or of another network.
    """

    def __init__(self, weights: Path, workers: int = 0) -> None:
        self._network, self._conformers = MXMNet.load(weights), ConformerMap(workers)

    def __call__(self, molecules: Sequence[Chem.Mol]) -> Tensor:
        """(N,) gaps in eV; NaN for a molecule without a conformer."""
        structures = self._conformers([Chem.MolToSmiles(molecule) for molecule in molecules])
        gaps = torch.full((len(molecules),), torch.nan)
        known = [row for row, structure in enumerate(structures) if structure is not None]
        if known:
            gaps[known] = self._network([structures[row] for row in known]).to(gaps)
        return gaps

    def close(self) -> None:
        """End the worker processes."""
        self._conformers.close()
