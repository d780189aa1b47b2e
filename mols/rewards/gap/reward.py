"""The QM9 reward: r = clip(1 - (g - g5) / (gmax - gmin), 1e-4, 2) of the HOMO-LUMO gap g (Gritsaev et al. 2025, QM9).

g in Hartree; g5, gmin and gmax are its 5th percentile, least and largest value over QM9. A smaller gap is better.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from rdkit import Chem
from torch import Tensor

from mols.molecules.conformers import ConformerMap
from mols.molecules.qm9 import EV_PER_HARTREE, GAP_MAX, GAP_MIN, GAP_PERCENTILE_5
from mols.rewards.base import Proxy, Reward
from mols.rewards.gap.proxy import GapProxy
from mols.rewards.mxmnet.network import MXMNet


class Gaps(Proxy[Chem.Mol], Protocol):
    """Gaps in eV, by whatever network."""

    def close(self) -> None:
        """End the worker processes."""


class EmbeddedGap:
    """Gaps in eV by the network whose weights come with this package; it reads the graph alone."""

    def __init__(self) -> None:
        self._proxy = GapProxy.load()

    def __call__(self, molecules: Sequence[Chem.Mol]) -> Tensor:
        """(N,) gaps in eV."""
        return self._proxy(molecules)

    def close(self) -> None:
        """Nothing to end."""


class MXMNetGap:
    """Gaps in eV by MXMNet on conformers of RDKit.

    Args:
        weights: the published file.
        workers: processes that make conformers; 0: none besides this one.

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


class GapReward(Reward):
    """The reward of molecules by their gap.

    Args:
        network: molecules -> (N,) gaps in eV, NaN where there is none.
        exponent: the reward exponent.
    """

    bounds = (1e-4, 2.0)

    def __init__(self, network: Gaps, *, exponent: float = 10.0) -> None:
        super().__init__(exponent)
        self._network = network

    def raw(self, molecules: list[Chem.Mol]) -> Tensor:
        """(N,) gaps in eV."""
        return self._network(molecules)

    def value(self, raw: Tensor) -> Tensor:
        """(N,) r of gaps in eV, before it is clipped."""
        return 1 - (raw / EV_PER_HARTREE - GAP_PERCENTILE_5) / (GAP_MAX - GAP_MIN)

    def close(self) -> None:
        """End the worker processes."""
        self._network.close()
