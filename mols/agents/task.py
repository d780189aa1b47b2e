"""What a molecule task is made of: graphs, the reward of finished ones, the molecules of its correlation, its modes."""

from collections.abc import Sequence
from typing import Any

from mols.common.run_folder import ExperimentError
from mols.environments.fragments import States, concatenate
from mols.rewards.base import Reward, Scores


class Task:
    """Graphs with a reward.

    Args:
        environment: the graphs.
        molecules: turns finished states into molecules, by ``to_molecules``.
        reward: of molecules.
        test_states: finished states of the test set.
        thresholds: rewards r from which on a molecule may be a mode, the lowest first.
    """

    def __init__(
        self, environment: Any, molecules: Any, reward: Reward, test_states: States, thresholds: tuple[float, ...]
    ) -> None:
        self.environment, self.reward, self.test_states, self.thresholds = environment, reward, test_states, thresholds
        self._molecules = molecules

    def score(self, finished: States, *, training: bool = True) -> Scores:
        """Rewards of N finished states.

        Args:
            finished: the states.
            training: whether they count among the rewards that training has evaluated.
        """
        return self.reward(self._molecules.to_molecules(finished), training=training)

    def close(self) -> None:
        """End the reward's worker processes."""
        self.reward.close()


def states_of(smiles: Sequence[str], molecules: Any, size_option: str) -> States:
    """The states of the molecules of a test set that can be built; says how many cannot.

    Args:
        smiles: of the test set.
        molecules: turns them into states, by ``from_molecule``.
        size_option: the option that bounds the size of a molecule, for the message.

    Raises:
        ExperimentError: there are fewer than two, which have no correlation.
    """
    built = [molecules.from_molecule(text) for text in smiles]
    states = [state for state in built if state is not None]
    if len(states) < 2:
        raise ExperimentError(
            f"{len(states)} molecules of the test set can be built: raise --corr_molecules or --{size_option}"
        )
    if len(states) < len(built):
        print(f"test set: {len(states)} of {len(built)} molecules can be built, the others are left out")
    return concatenate(states)
