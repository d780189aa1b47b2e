"""The QM9 reward: r = clip(1 - (g - g5) / (gmax - gmin), 1e-4, 2) of the HOMO-LUMO gap g (Gritsaev et al. 2025, QM9).

g in Hartree; g5, gmin and gmax are its 5th percentile, least and largest value over QM9. A smaller gap is better.
"""

from typing import Protocol

from rdkit import Chem
from torch import Tensor

from mols.molecules.qm9 import EV_PER_HARTREE, GAP_MAX, GAP_MIN, GAP_PERCENTILE_5
from mols.rewards.base import Proxy, Reward


class Gaps(Proxy[Chem.Mol], Protocol):
    """Gaps in eV, by whatever network."""

    def close(self) -> None:
        """End the worker processes."""


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
