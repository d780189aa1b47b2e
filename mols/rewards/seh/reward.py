"""The sEH reward of a molecule, from the raw output of an sEH network."""

from pathlib import Path

from rdkit import Chem
from torch import Tensor

from mols.rewards.base import Proxy, Reward
from mols.rewards.seh.features import Featuriser, MoleculeGraph
from mols.rewards.seh.proxy import load_proxy
from mols.rewards.seh.surrogate import SehSurrogate

RAW_PER_REWARD = 8.0  # of the sEH networks


class SehReward(Reward):
    """r = clip(raw output of an sEH network / 8, 1e-4, 100) (Bengio et al. 2021).

    Args:
        proxy: graphs -> (N,) raw outputs, such as ``SehProxy`` or ``SehSurrogate``.
        exponent: the reward exponent.
        workers: processes that featurise molecules; 0: no extra ones. The rewards are the same.
    """

    bounds = (1e-4, 100.0)

    def __init__(self, proxy: Proxy[MoleculeGraph], *, exponent: float = 10.0, workers: int = 0) -> None:
        super().__init__(exponent)
        self.proxy, self._featuriser = proxy, Featuriser(workers)

    @classmethod
    def load(cls, data_dir: str | Path | None = None, *, exponent: float = 10.0, workers: int = 0) -> "SehReward":
        """The reward of the published network.

        Args:
            data_dir: the folder of its weights; None: wherever they are found, see ``mols.rewards.downloads``.
            exponent, workers: as above.

        Raises:
            ExperimentError: the weights are missing.
        """
        return cls(load_proxy(data_dir), exponent=exponent, workers=workers)

    @classmethod
    def load_surrogate(cls, *, exponent: float = 10.0, workers: int = 0) -> "SehReward":
        """The reward of this package's network, used in place of the published one.

        Args:
            exponent, workers: as above.

        Raises:
            ExperimentError: the package is damaged.
        """
        return cls(SehSurrogate.load(), exponent=exponent, workers=workers)

    def raw(self, molecules: list[Chem.Mol]) -> Tensor:
        """(N,) outputs of the proxy."""
        return self.proxy(self._featuriser(molecules))

    def value(self, raw: Tensor) -> Tensor:
        """(N,) an eighth."""
        return raw / RAW_PER_REWARD

    def close(self) -> None:
        """End the worker processes."""
        self._featuriser.close()
