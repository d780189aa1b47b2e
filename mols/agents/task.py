"""What a molecule task is made of: graphs, the reward of finished ones, the molecules of its correlation, its modes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from rdkit import Chem

from mols.common.terminal import ExperimentError
from mols.environments.base import Environment, States, concatenate, finished_states
from mols.rewards.base import Reward, Scores


class Molecules(Protocol):
    """Finished states <-> molecules."""

    def to_molecules(self, states: States) -> list[Chem.Mol | None]:
        """N sanitised molecules; None: an invalid one."""

    def from_molecule(self, molecule: str) -> States | None:
        """The one state of a molecule's SMILES; None: it cannot be built."""


class Task:
    """Graphs with a reward.

    Args:
        environment: the graphs.
        molecules: what turns finished states into molecules.
        reward: of molecules.
        test_states: finished states of the test set.
        thresholds: rewards r from which on a molecule may be a mode, the lowest first.
    """

    def __init__(
        self,
        environment: Environment,
        molecules: Molecules,
        reward: Reward,
        test_states: States,
        thresholds: tuple[float, ...],
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


class Exact(NamedTuple):
    """What a perfect sampler of a task has: log Z and the mean of log R, nats."""

    log_z: float
    mean_log_reward: float


def exact(task: Task) -> Exact | None:
    """Both, over every finished state; None where there are too many of them."""
    listed = finished_states(task.environment)
    if listed is None:
        return None
    finished, weight = listed
    log_reward = task.score(finished, training=False).log_reward.double()
    log_flow = weight.log() + log_reward
    return Exact(log_flow.logsumexp(0).item(), (log_flow.softmax(0) * log_reward).sum().item())


def states_of(smiles: Sequence[str], molecules: Molecules, size_option: str) -> States:
    """The states of the molecules of a test set that can be built; says how many cannot.

    Args:
        smiles: of the test set.
        molecules: what turns them into states.
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
