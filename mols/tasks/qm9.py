"""QM9: molecules of at most 8 atoms of C, N, F and O, rewarded by a small HOMO-LUMO gap (Gritsaev et al. 2025), or by
your own reward.

python -m mols.tasks.qm9 --seed 1 --algo dqn --lr 5e-4 --backward_approach tlm
"""

import sys
from typing import ClassVar, Literal

from ml_collections import ConfigDict

from mols import settings
from mols.common.options import Text, option
from mols.environments.atom_vocabulary import VOCABULARIES
from mols.tasks import run

THRESHOLDS = (1.125, 1.1875, 1.25)  # rewards r at which a molecule may be a mode


class ExperimentSettings(settings.ExperimentSettings):
    """Experiment"""

    batch_size: int = option(128, "trajectories per step", ge=1, le=1e5)


class RewardSettings(settings.RewardSettings):
    """Reward"""

    proxy: Literal["embedded", "mxmnet"] = option("embedded", "gaps by this package's network, or MXMNet")
    proxy_weights: Text = option("", "file of MXMNet's weights; needed with --proxy mxmnet", named=False)


class MoleculeSettings(settings.MoleculeSettings):
    """Molecules"""

    max_atoms: int = option(8, "atoms of a molecule, without hydrogen", ge=1, le=settings.MAX_ATOMS)
    charges: Literal[*VOCABULARIES] = option(
        "paper", "atoms: charged ones and radicals too, or those of neutral closed-shell molecules alone"
    )


class Settings(
    ExperimentSettings,
    RewardSettings,
    MoleculeSettings,
    settings.PolicySettings,
    settings.LearningSettings,
    settings.BackwardSettings,
    settings.DQNSettings,
    settings.EvaluationSettings,
    settings.MachineSettings,
):
    """A run of the task."""

    task: ClassVar[str] = "qm9"


def make_task(config: ConfigDict):
    """The task of a checked configuration.

    Raises:
        ExperimentError: a file is missing or not the right one, or an option has no effect.
    """
    from mols.agents.task import Task, states_of
    from mols.environments.atoms import AtomEnvironment
    from mols.molecules.atoms import AtomMolecules
    from mols.molecules.qm9 import read_test_set

    environment = AtomEnvironment(VOCABULARIES[config.charges], config.max_atoms, device=config.device)
    molecules, reward = AtomMolecules(environment), _reward(config)
    thresholds = settings.thresholds(config, THRESHOLDS)
    if config.corr_every == 0:
        return Task(environment, molecules, reward, environment.initial_states(0), thresholds)
    smiles, _ = read_test_set()
    states = states_of(smiles[: config.corr_molecules or None], molecules, "max_atoms")
    return Task(environment, molecules, reward, states, thresholds)


def _reward(config: ConfigDict):
    from mols.rewards.gap.reward import GapReward
    from mols.rewards.own import OwnReward

    if "reward" in config:
        return OwnReward.load(config.reward, exponent=config.temp)
    return GapReward(_network(config), exponent=config.temp)


def _network(config: ConfigDict):
    from pathlib import Path

    from mols.common.terminal import ExperimentError
    from mols.rewards.gap.proxy import GapProxy
    from mols.rewards.mxmnet.gaps import MXMNetGap

    if config.proxy == "mxmnet":
        if not config.proxy_weights:
            raise ExperimentError("--proxy mxmnet needs its published weights: name the file by --proxy_weights")
        return MXMNetGap(Path(config.proxy_weights), config.workers)
    for name, nothing in (("proxy_weights", ""), ("workers", 0)):
        if config[name] != nothing:
            raise ExperimentError(f"--{name} has no effect with --proxy embedded: leave it out, or take --proxy mxmnet")
    return GapProxy.load()


def main(argv: list[str]) -> int:
    """Run the arguments ``argv``, without the program's name; returns the exit status."""
    return run.main(argv, Settings, make_task)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
