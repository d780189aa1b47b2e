"""What a molecule task is made of: graphs, the reward of finished ones, the molecules of its correlation, its modes."""

from typing import Any

from mols.envs.fragments import States
from mols.reward import Reward, Scores


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
