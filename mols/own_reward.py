"""A user's own reward: a list of SMILES in, an array of rewards r >= 0 out.

    --reward package.module:function

The module is imported as Python does it, from the current folder or from what is installed. The function gets
canonical SMILES, each distinct molecule once, many in a call. R = r^exponent, log R at least -75.
"""

import hashlib
import importlib
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from mols.experiment import ExperimentError
from mols.reward import Reward

BUILT_IN = {"qed": "mols.example_reward:qed"}
MAX_REWARD = float(np.finfo(np.float32).max)


class OwnFunction(NamedTuple):
    """A function that the user named.

    Attributes:
        name: as it was named.
        call: the function.
        source: the first 12 hexadecimal digits of the sha256 of its module's source; empty where there is none.
    """

    name: str
    call: Callable[[list[str]], Any]
    source: str


def load_function(name: str) -> OwnFunction:
    """The function that ``--reward`` names.

    Args:
        name: package.module:function, or a built-in one.

    Raises:
        ExperimentError: there is none, or it is no function.
    """
    module_name, colon, attribute = BUILT_IN.get(name, name).partition(":")
    if not (module_name and colon and attribute):
        built_in = ", ".join(BUILT_IN)
        raise ExperimentError(f"--reward is {name!r}: name a function as package.module:function, or {built_in}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ExperimentError(f"--reward {name}: {module_name} needs {error.name}: install it") from error
        raise ExperimentError(
            f"--reward {name}: there is no module {error.name}: start in the folder that has it, or install it"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the user's module does
        raise ExperimentError(f"--reward {name}: importing {module_name} fails ({_said(error)}): mend it") from error
    if not callable(call := getattr(module, attribute, None)):
        what = "is no function" if hasattr(module, attribute) else "is not there"
        raise ExperimentError(f"--reward {name}: {attribute} {what} in {module_name}: name a function of it")
    return OwnFunction(name, call, _source(module))


def _source(module: Any) -> str:
    try:
        return hashlib.sha256(inspect.getsource(module).encode()).hexdigest()[:12]
    except (OSError, TypeError):  # compiled, or not from a file
        return ""


def _said(error: BaseException) -> str:
    """Type and message of an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:300]


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
            f"--reward {self.function.name} {problem}, for {smiles}: mend the function; a run goes on from its last "
            "checkpoint by --if_exists resume --reward_changed"
        )

    def _values(self, smiles: Sequence[str]) -> tuple[np.ndarray | None, str | None]:
        """The rewards, (N,) float64, and what is wrong with them, or None."""
        try:
            returned = self.function.call(list(smiles))
        except Exception as error:  # noqa: BLE001 whatever the user's function does, the caller reports
            return None, f"raises {_said(error)}"
        try:
            values = np.asarray(returned)
        except (ValueError, TypeError, RuntimeError):  # lists of different lengths, tensors that are no arrays
            return None, "returns no array of numbers"
        if values.dtype.kind not in "biuf":
            return None, "returns no array of numbers"
        if values.shape != (len(smiles),):
            return None, f"returns an array of shape {values.shape} and not of one reward for each of {len(smiles)}"
        values = values.astype(np.float64)
        for wrong, what in ((np.isnan(values), "NaN"), (values < 0, "a negative reward"),
                            (values > MAX_REWARD, "a reward that is not finite")):  # fmt: skip
            if wrong.any():
                return None, f"returns {what}"
        return values, None
