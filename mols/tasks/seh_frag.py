"""sEH: molecules of at most 8 fragments, rewarded by a network's binding energy (Bengio et al. 2021), or by your own.

python -m mols.tasks.seh_frag --seed 1 --algo dqn --lr 5e-4 --backward_approach tlm
"""

import sys
from typing import ClassVar, Literal

from ml_collections import ConfigDict

from mols import settings
from mols.common.options import Text, option
from mols.settings import AUTO
from mols.tasks import run

THRESHOLDS = (0.875, 0.9375, 1.0)  # rewards r at which a molecule may be a mode
N_GENERATED, GENERATED_SEED = 950, 1  # of the test set that is used where the published one is not at hand
TEST_SET_FILE = "seh_test_set.csv"


class RewardSettings(settings.RewardSettings):
    """Reward"""

    proxy: Literal[AUTO, "original", "surrogate"] = option(
        AUTO, "network that r comes from: the published one, this package's own, or the first of them that is available"
    )
    data_dir: Text = option("", "folder of its weights; empty: GFLOWNET_TLM_DATA, the cache, a download", free=True)


class MoleculeSettings(settings.MoleculeSettings):
    """Molecules"""

    max_fragments: int = option(8, "fragments of a molecule", ge=1, le=settings.MAX_FRAGMENTS)


class EvaluationSettings(settings.EvaluationSettings):
    """Evaluation"""

    test_set: Literal[AUTO, "original", "generated"] = option(
        AUTO, "published molecules, random ones, or the first of them that is available"
    )


class Settings(
    settings.ExperimentSettings,
    RewardSettings,
    MoleculeSettings,
    settings.PolicySettings,
    settings.LearningSettings,
    settings.BackwardSettings,
    settings.DQNSettings,
    EvaluationSettings,
    settings.MachineSettings,
):
    """A run of the task."""

    task: ClassVar[str] = "seh_frag"


def resolve(config: ConfigDict) -> None:
    """Replace auto: the published file if it is available, else what this package has, with a warning.

    Raises:
        ExperimentError: a folder that was named is not there, or lacks the file, or a file is damaged.
    """
    from mols.rewards.seh.proxy import WEIGHTS_FILE

    if config.proxy == AUTO:
        config.proxy = _at_hand("proxy", WEIGHTS_FILE, "original", "surrogate", config)
    if config.test_set == AUTO and config.corr_every == 0:
        config.test_set = "original"  # of which nothing is needed
    if config.test_set == AUTO:
        config.test_set = _at_hand("test_set", TEST_SET_FILE, "original", "generated", config)


def _at_hand(option: str, file: str, published: str, otherwise: str, config: ConfigDict) -> str:
    """The value of an option: ``published`` where its file is available."""
    from mols.rewards.downloads import Unavailable, find

    try:
        find(file, config.data_dir)
    except Unavailable as error:
        print(f"warning: {error.what}: this run has --{option} {otherwise}", file=sys.stderr)
        return otherwise
    return published


def make_task(config: ConfigDict):
    """The task of a checked configuration.

    Raises:
        ExperimentError: a file is missing or not the right one, or an own reward is missing.
    """
    from mols.agents.task import Task, states_of
    from mols.environments.fragments import FragmentEnvironment
    from mols.molecules.fragments import FragmentMolecules
    from mols.molecules.reference_set import generated_test_set, read_seh_test_set
    from mols.rewards.downloads import find

    resolve(config)
    environment = FragmentEnvironment(max_fragments=config.max_fragments, device=config.device)
    molecules, reward, thresholds = (
        FragmentMolecules(environment),
        _reward(config),
        settings.thresholds(config, THRESHOLDS),
    )
    if config.corr_every == 0:
        return Task(environment, molecules, reward, environment.initial_states(0), thresholds)
    if config.test_set == "original":
        smiles = read_seh_test_set(find(TEST_SET_FILE, config.data_dir))
    else:
        smiles = generated_test_set(environment, N_GENERATED, GENERATED_SEED)
    states = states_of(smiles[: config.corr_molecules or None], molecules, "max_fragments")
    return Task(environment, molecules, reward, states, thresholds)


def _reward(config: ConfigDict):
    from mols.rewards.own import OwnReward
    from mols.rewards.seh.reward import SehReward

    if "reward" in config:
        return OwnReward.load(config.reward, exponent=config.temp)
    if config.proxy == "surrogate":
        return SehReward.load_surrogate(exponent=config.temp, workers=config.workers)
    return SehReward.load(config.data_dir or None, exponent=config.temp, workers=config.workers)


def main(argv: list[str]) -> int:
    """Run the arguments ``argv``, without the program's name; returns the exit status."""
    return run.main(argv, Settings, make_task, resolve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
