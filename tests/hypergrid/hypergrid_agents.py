"""Agents on a small grid."""

from functools import cache

import torch
from ml_collections import ConfigDict

from hypergrid.agents.base import SamplingAgent
from hypergrid.agents.table import AGENTS
from hypergrid.common.randomness import Streams
from hypergrid.environment import GridEnvironment
from hypergrid.experiments.config import algo, general, hypergrid


@cache
def grid_of(ndim: int, height: int, dtype: torch.dtype = torch.float32) -> GridEnvironment:
    """A grid with the standard reward, made once: torchgfn starts a pool of processes to enumerate the states."""
    assert dtype == torch.get_default_dtype()
    return GridEnvironment(ndim, height, R0=1e-3, R1=0.5, R2=2.0)


def small_config(objective: str, approach: str | None, *, seed: int = 1, height: int = 8, **overrides) -> ConfigDict:
    """The shipped settings of an objective and approach, on a 2-D grid with 32 units and learning from step 1."""
    config = ConfigDict({"general": general.get_config(str(seed)), "env": hypergrid.get_config("standard")})
    config.algo = algo.get_config(objective)
    config.general.device = "cpu"
    config.env.ndim, config.env.height = 2, height
    if approach is not None:
        config.algo.backward_approach, config.algo.hidden_width = approach, 32
    if "start_learning" in config.algo:
        config.algo.start_learning, config.algo.replay_batch_size = 0, 32
    for field, value in overrides.items():
        section = next(section for section in ("algo", "env", "general") if field in config[section])
        config[section][field] = value
    return config


def new_agent(objective: str, approach: str | None, **overrides) -> SamplingAgent:
    """An agent with some fields of the configuration set; approach None: a reference."""
    config = small_config(objective, approach, **overrides)
    environment = grid_of(config.env.ndim, config.env.height)
    return AGENTS[objective](config, environment, Streams.from_seed(config.general.seed))
