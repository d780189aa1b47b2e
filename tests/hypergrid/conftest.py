"""Tiny grids, agents and networks."""

import hypergrid_agents
import pytest
import torch
from hypergrid_agents import grid_of
from hypergrid_exact import random_grid

from hypergrid.common.backward_loss import APPROACHES
from hypergrid.environment import GridEnvironment
from hypergrid.policies import Policies


@pytest.fixture
def tiny(double) -> GridEnvironment:
    """A 4x4 grid with a random reward."""
    return random_grid()


@pytest.fixture(scope="session")
def new_agent():
    """``new_agent(objective, approach, field=value, ...)``: an agent on a small grid; approach None: a reference."""
    return hypergrid_agents.new_agent


@pytest.fixture(scope="session")
def new_policies():
    """``new_policies(ndim, height, scale=...)``: policies whose forward head is scaled away from uniform."""

    def new(ndim: int, height: int, *, scale: float = 1.0, seed: int = 1, approach: str = "naive", **options):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policies = Policies(ndim, height, APPROACHES[approach], width=32, **options)
        with torch.no_grad():
            policies.forward_head.weight *= scale
            policies.forward_head.bias *= scale
        return policies

    return new


@pytest.fixture(scope="session")
def grid():
    """``grid(ndim, height)``: a grid with the standard reward."""
    return grid_of
