"""The agent of each objective, and the references that only sample."""

from ml_collections import ConfigDict

from hypergrid.agents.balance import DetailedBalanceAgent, SubTrajectoryBalanceAgent, TrajectoryBalanceAgent
from hypergrid.agents.base import PerfectAgent, SamplingAgent
from hypergrid.agents.dqn import QAgent
from hypergrid.common.randomness import Streams
from hypergrid.environment import GridEnvironment

COLUMNS = (
    "l1_dist",
    "kl_dist",
    "total_variation",
    "l1_floor",
    "exact_l1_dist",
    "exact_total_variation",
    "log_z_error",
    "mean_log_reward",
    "modes_visited",
)


AGENTS: dict[str, type[SamplingAgent]] = {
    "tb": TrajectoryBalanceAgent,
    "db": DetailedBalanceAgent,
    "subtb": SubTrajectoryBalanceAgent,
    "soft_dqn": QAgent,
    "munchausen_dqn": QAgent,
    "perfect": PerfectAgent,
    "uniform": SamplingAgent,
}


def make_agent(config: ConfigDict) -> SamplingAgent:
    """The agent of a checked configuration, on a fresh environment with the seed's streams."""
    environment = GridEnvironment(
        config.env.ndim, config.env.height, config.env.R0, config.env.R1, config.env.R2, config.general.device
    )
    return AGENTS[config.algo.name](config, environment, Streams.from_seed(config.general.seed))
