"""What a molecule task is made of: graphs, the reward of finished ones, and the molecules of its correlation."""

from mols.envs.fragments import FragmentEnvironment, Trees
from mols.envs.molecules import FragmentMolecules
from mols.reward import Scores, SehReward


class Task:
    """Graphs with a reward.

    Args:
        environment: the graphs.
        reward: of molecules.
        test_states: finished states of the test set.
    """

    def __init__(self, environment: FragmentEnvironment, reward: SehReward, test_states: Trees) -> None:
        self.environment, self.reward, self.test_states = environment, reward, test_states
        self._molecules = FragmentMolecules(environment)

    def score(self, finished: Trees, *, training: bool = True) -> Scores:
        """Rewards of N finished states.

        Args:
            finished: the states.
            training: whether they count among the rewards that training has evaluated.
        """
        return self.reward(self._molecules.to_molecules(finished), training=training)

    def close(self) -> None:
        """End the reward's worker processes."""
        self.reward.close()
