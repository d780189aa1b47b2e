"""The agent of each objective, and the suite's columns of metrics.csv."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from mols.agents.balance import BalanceAgent
from mols.agents.base import LearningAgent
from mols.agents.dqn import QAgent
from mols.agents.task import Task
from mols.common.randomness import Streams


def columns(thresholds: Sequence[float]) -> tuple[str, ...]:
    """The suite's own columns of metrics.csv, for a task's thresholds of modes."""
    return (
        *(f"modes_found_{threshold:g}" for threshold in thresholds),
        "mean_reward",
        "mean_log_reward",
        "invalid_share",
        "top_100_reward",
        "top_100_diversity",
        "rewards_evaluated",
        "reward_correlation",
        "reward_correlation_generated",
        "mean_log_reward_perfect",
        "log_z_error",
        *(f"modes_sorted_{threshold:g}" for threshold in thresholds),
    )


AGENTS: dict[str, type[LearningAgent]] = {
    "tb": BalanceAgent,
    "db": BalanceAgent,
    "subtb": BalanceAgent,
    "soft_dqn": QAgent,
    "dqn": QAgent,
}


def make_agent(config: ConfigDict, task: Task) -> LearningAgent:
    """The agent of a checked configuration, with the seed's streams."""
    return AGENTS[config.algo](config, task, Streams.from_seed(config.seed))
