"""sEH: molecules of at most 8 fragments, rewarded by the published network's binding energy (Bengio et al. 2021).

python -m mols.tasks.seh_frag --seed 1 --algo dqn --lr 5e-4 --backward_approach tlm
"""

import sys

from ml_collections import ConfigDict

from mols import run, settings

NAME = "seh_frag"
OPTIONS = settings.options_of()
THRESHOLDS = (0.875, 0.9375, 1.0)  # rewards r at which a molecule may be a mode
N_GENERATED, GENERATED_SEED = 950, 1  # of the test set that is used where the published one is not at hand


def make_task(config: ConfigDict):
    """The task of a checked configuration.

    Raises:
        ExperimentError: a file is missing or not the right one.
    """
    from mols.data.files import find
    from mols.envs.fragments import FragmentEnvironment
    from mols.envs.molecules import FragmentMolecules
    from mols.envs.reference_molecules import generated_test_set, read_test_set
    from mols.reward import SehReward
    from mols.task import Task, states_of

    environment = FragmentEnvironment(max_fragments=config.max_fragments, device=config.device)
    reward = SehReward.load(config.data_dir or None, exponent=config.temp, workers=config.workers)
    molecules = FragmentMolecules(environment)
    if config.corr_every == 0:
        return Task(environment, molecules, reward, environment.initial_states(0), THRESHOLDS)
    if config.test_set == "original":
        smiles = read_test_set(find("seh_test_set.csv", config.data_dir or None))
    else:
        smiles = generated_test_set(environment, N_GENERATED, GENERATED_SEED)
    states = states_of(smiles[: config.corr_molecules or None], molecules, "max_fragments")
    return Task(environment, molecules, reward, states, THRESHOLDS)


def main(argv: list[str]) -> int:
    """Run the arguments ``argv``, without the program's name; returns the exit status."""
    return run.main(argv, NAME, OPTIONS, make_task)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
