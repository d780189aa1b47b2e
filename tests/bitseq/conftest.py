"""Tiny strings, agents and networks."""

import bitseq_agents
import pytest
import torch
from bitseq_exact import RandomReward

from bitseq.common.backward_loss import APPROACHES
from bitseq.environment import StringEnvironment
from bitseq.policies.model import Policies


@pytest.fixture(params=[2, 4], ids=["4 words of 2 bits", "2 words of 4 bits"])
def tiny(request, double) -> RandomReward:
    """256 strings with a random reward: 625 states and 6,144 trajectories, or 289 and 512."""
    return RandomReward(request.param)


@pytest.fixture(scope="session")
def new_agent():
    """``new_agent(objective, approach, option=value, ...)``: an agent on 256 strings."""
    return bitseq_agents.new_agent


@pytest.fixture(scope="session")
def strings():
    """``strings(n, k)``: an environment with the standard reward."""

    def new(n: int = 8, k: int = 2, m_size: int = 5, reward_exponent: float = 2.0) -> StringEnvironment:
        return StringEnvironment(n, k, m_size, reward_exponent)

    return new


@pytest.fixture(scope="session")
def new_policies():
    """``new_policies(environment, scale=...)``: policies whose heads are scaled away from uniform, in eval mode."""

    def new(environment: StringEnvironment, *, scale: float = 1.0, seed: int = 1, approach: str = "naive", **options):
        sizes = {"width": 16, "n_layers": 1, "n_heads": 2, "ff_width": 16, "dropout": 0.1}
        sizes["uniform_initialisation"] = False
        sizes["kernels"] = "compiled" if torch.get_default_dtype() == torch.float32 else "torch"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policies = Policies(environment, APPROACHES[approach], **(sizes | options)).eval()
        with torch.no_grad():
            for parameter in policies.forward_head.parameters():
                parameter *= scale
            if approach == "naive":
                policies.backward.head.weight *= scale
        return policies

    return new
