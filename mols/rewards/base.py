"""The reward of molecules: R = r^exponent, r between bounds a function of a network's raw output.

log R is never below -75, which is also what an invalid molecule gets (Bengio et al. 2021; Gritsaev et al. 2025).

Raw outputs are kept by canonical SMILES for the whole run, without bound: some 200 bytes per distinct molecule. The
checkpoint has them too. In the last digits, an output depends on the molecules that were evaluated with it, so that a
resumed run repeats an uninterrupted one bit by bit only if it need not evaluate anything anew; for the same reason an
evaluation neither reads nor writes what training has kept, unless an output depends on its molecule alone.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from rdkit import Chem
from torch import Tensor

MIN_LOG_REWARD = -75.0  # nats
Input = TypeVar("Input", contravariant=True)  # what a proxy reads: molecules, or graphs made of them


class Scores(NamedTuple):
    """Rewards of N molecules.

    Attributes:
        log_reward: (N,) log R, nats, float32.
        reward: (N,) r, float64, to be compared with decimal thresholds; of an invalid molecule the least there is.
        smiles: N canonical SMILES; None: an invalid molecule.
    """

    log_reward: Tensor
    reward: Tensor
    smiles: list[str | None]


class Proxy(Protocol[Input]):
    """A network in place of an experiment; its weights are fixed."""

    def __call__(self, molecules: Sequence[Input], /) -> Tensor:
        """(N,) raw outputs, in the network's own unit; NaN for a molecule that it cannot judge."""


class Reward(ABC):
    """A reward, and what it has been asked for; a task's own says what the network is, and what r is of its output.

    Args:
        exponent: the reward exponent.

    Attributes:
        bounds: the least and the largest r.
        depends_on_molecule_alone: whether a raw output is the same whatever is evaluated with it, so that evaluations
            share what training has kept.
    """

    bounds: tuple[float, float]
    depends_on_molecule_alone = False

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent
        self._raw: dict[str, float] = {}

    @abstractmethod
    def raw(self, molecules: list[Chem.Mol]) -> Tensor:
        """(N,) raw outputs of the network; NaN for a molecule that it cannot judge, which is invalid."""

    @abstractmethod
    def value(self, raw: Tensor) -> Tensor:
        """(N,) r of (N,) raw outputs, before it is clipped."""

    @property
    def n_evaluated(self) -> int:
        """Distinct molecules that were evaluated, and kept."""
        return len(self._raw)

    def evaluated(self) -> Iterable[tuple[str, float]]:
        """Canonical SMILES and raw output of each of them."""
        return self._raw.items()

    def __call__(self, molecules: Sequence[Chem.Mol | None], *, training: bool = True) -> Scores:
        """Rewards of N molecules.

        Args:
            molecules: sanitised; None: an invalid one.
            training: whether they are kept; otherwise all of them are evaluated, unless the raw output
                depends on the molecule alone.

        Raises:
            ExperimentError: the network does not take one of them.
        """
        smiles = [None if molecule is None else Chem.MolToSmiles(molecule) for molecule in molecules]
        known = self._raw if training or self.depends_on_molecule_alone else {}
        known |= self._evaluate(
            {text: molecule for text, molecule in zip(smiles, molecules, strict=True) if text not in known}
        )
        raw = torch.tensor([math.nan if text is None else known[text] for text in smiles], dtype=torch.float64)
        invalid = raw.isnan()
        reward = self.value(raw).clamp(*self.bounds).masked_fill(invalid, self.bounds[0])
        log_reward = (self.exponent * reward.float().log()).masked_fill(invalid, MIN_LOG_REWARD)
        smiles = [None if bad else text for text, bad in zip(smiles, invalid.tolist(), strict=True)]
        return Scores(log_reward.clamp_min(MIN_LOG_REWARD), reward, smiles)

    def _evaluate(self, molecules: dict[str | None, Chem.Mol | None]) -> dict[str, float]:
        """Raw outputs of the valid ones, by SMILES."""
        valid = {text: molecule for text, molecule in molecules.items() if text is not None}
        return dict(zip(valid, self.raw(list(valid.values())).tolist(), strict=True))

    def close(self) -> None:  # noqa: B027 only some have workers
        """End the worker processes."""

    def state_dict(self) -> dict[str, Any]:
        """What training has evaluated; one text of all SMILES, a line each, which is read much faster than many."""
        raw = torch.tensor(list(self._raw.values()), dtype=torch.float64)
        return {"smiles": "\n".join(self._raw), "raw": raw}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._raw = dict(zip(state["smiles"].splitlines(), state["raw"].tolist(), strict=True))
