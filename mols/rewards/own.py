"""A user's own reward: a list of SMILES in, an array of rewards r >= 0 out.

    --reward package.module:function

The function gets canonical SMILES, each distinct molecule once, many in a call. R = r^exponent, log R at least -75.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from mols.common.terminal import ExperimentError
from mols.rewards.base import Reward
from mols.rewards.own_function import OwnFunction, load_function, said

MAX_REWARD = float(np.finfo(np.float32).max)


class OwnReward(Reward):
    """r = what the function says.

    Args:
        function: of the user.
        exponent: the reward exponent.
    """

    bounds = (0.0, math.inf)
    depends_on_molecule_alone = True

    def __init__(self, function: OwnFunction, *, exponent: float = 10.0) -> None:
        super().__init__(exponent)
        self.function = function

    @classmethod
    def load(cls, name: str, *, exponent: float = 10.0) -> "OwnReward":
        """The reward of a function that ``load_function`` finds.

        Args:
            name: of the function.
            exponent: the reward exponent.

        Raises:
            ExperimentError: there is none.
        """
        return cls(load_function(name), exponent=exponent)

    def raw(self, molecules: list[Chem.Mol]) -> Tensor:
        """(N,) rewards, float64.

        Raises:
            ExperimentError: the function fails, or gives anything but rewards; names a molecule.
        """
        smiles = [Chem.MolToSmiles(molecule) for molecule in molecules]
        if not smiles:
            return torch.zeros(0, dtype=torch.float64)
        values, problem = self._values(smiles)
        if problem is None:
            return torch.from_numpy(values)
        # Which molecule it is about, the function tells when it is asked one by one.
        for text in smiles if len(smiles) > 1 else ():
            _, alone = self._values([text])
            if alone is not None:
                raise self._refusal(alone, text)
        raise self._refusal(problem, smiles[0])

    def value(self, raw: Tensor) -> Tensor:
        """(N,) the same."""
        return raw

    def _refusal(self, problem: str, smiles: str) -> ExperimentError:
        return ExperimentError(
            f"--reward {self.function.name} {problem}, for {smiles}: correct the function; a run goes on from its last "
            "checkpoint by --if_exists resume --reward_changed"
        )

    def _values(self, smiles: Sequence[str]) -> tuple[np.ndarray | None, str | None]:
        """The rewards, (N,) float64, and what is wrong with them, or None."""
        try:
            with self.function.state.applied():
                returned = self.function.call(list(smiles))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 whatever the user's function does, sys.exit too
            return None, f"raises {said(error)}"
        try:
            if np.ma.is_masked(returned):
                return None, "returns an array with masked entries"
            values = numbers_of(returned)
        except Exception:  # noqa: BLE001 whatever its objects do
            return None, "returns no array of numbers"
        if values.shape != (len(smiles),):
            return None, f"returns an array of shape {values.shape} and not of one reward for each of {len(smiles)}"
        for wrong, what in ((np.isnan(values), "NaN"), (values < 0, "a negative reward"),
                            (values > MAX_REWARD, "a reward that is not finite")):  # fmt: skip
            if wrong.any():
                return None, f"returns {what}"
        return values, None


def numbers_of(returned: Any) -> np.ndarray:
    """What a function returns, as float64 of the same shape; a number beyond its range is infinite.

    Of less precise numbers it is the decimal that they print as: 0.7 in float32 is a reward of 0.7.

    Raises:
        TypeError, ValueError, RuntimeError: it is no array of real numbers.
    """
    if isinstance(returned, list | tuple):
        returned = [_without_gradient(value) for value in returned]
    values = np.asarray(_without_gradient(returned))
    if values.dtype.kind == "O":
        return np.array([_float(value) for value in values.flat]).reshape(values.shape)
    if values.dtype.kind not in "biuf":
        raise TypeError
    return (values.astype(str) if values.dtype in (np.float16, np.float32) else values).astype(np.float64)


def _without_gradient(value: Any) -> Any:
    """A tensor as an array, which has neither gradients nor bfloat16; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _float(value: Any) -> float:
    """A Decimal, a Fraction, a large integer, as float64."""
    if not isinstance(value, numbers.Number):
        raise TypeError
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
