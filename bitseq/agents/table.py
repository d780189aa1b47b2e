"""The agent of each objective, and the suite's columns of metrics.csv."""

from ml_collections import ConfigDict

from bitseq.agents.balance import BalanceAgent
from bitseq.agents.base import LearningAgent
from bitseq.agents.dqn import QAgent
from bitseq.common.randomness import Streams
from bitseq.environment import StringEnvironment

COLUMNS = (
    "modes_found",
    "modes_current",
    "mean_reward",
    "mean_log_reward",
    "mean_log_reward_perfect",
    "log_z",
    "log_z_error",
    "reward_correlation",
    "reward_correlation_uniform",
    "exact_total_variation",
    "exact_kl",
)


AGENTS: dict[str, type[LearningAgent]] = {
    "tb": BalanceAgent,
    "db": BalanceAgent,
    "subtb": BalanceAgent,
    "soft_dqn": QAgent,
    "munchausen_dqn": QAgent,
}


def make_agent(config: ConfigDict) -> LearningAgent:
    """The agent of a checked configuration, on a fresh environment with the seed's streams."""
    environment = StringEnvironment(config.n, config.k, config.M_size, config.reward_exponent, config.device)
    return AGENTS[config.objective](config, environment, Streams.from_seed(config.seed))
