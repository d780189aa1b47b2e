"""A trained run as torchgfn estimators and environment, so that torchgfn's own samplers and losses work on it."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from gfn.estimators import DiscretePolicyEstimator, ScalarEstimator
from gfn.preprocessors import KHotPreprocessor
from gfn.utils.modules import MLP
from ml_collections import ConfigDict
from torch import Tensor, nn

from hypergrid.agents.base import SamplingAgent
from hypergrid.agents.dqn import QAgent
from hypergrid.agents.table import make_agent
from hypergrid.common.checkpoint import restore_agent
from hypergrid.common.terminal import ExperimentError
from hypergrid.environment import ExactGrid
from hypergrid.policies import MASKED, LearnedBackward, Trunk
from hypergrid.settings import MAX_ENUMERATED


class Estimators(NamedTuple):
    """torchgfn estimators of one run.

    Attributes:
        forward: P_F.
        backward: the online P_B.
        log_flow: log F; V for the DQN objectives; None for TrajectoryBalance and the references, which have none.
    """

    forward: DiscretePolicyEstimator
    backward: DiscretePolicyEstimator
    log_flow: ScalarEstimator | None


@torch.random.fork_rng()  # the caller's draws stay as they would be
def load_estimators(run_dir: str | Path) -> Estimators:
    """Load a run folder's checkpoint as torchgfn estimators on the CPU.

    Args:
        run_dir: a run folder of this suite, finished or not, with config.json and checkpoint.pt.

    Raises:
        ExperimentError: the folder has no readable checkpoint, or is a ``perfect`` run, which has no policy.
    """
    agent = load_agent(Path(run_dir))
    policies, environment = agent.policies, agent.environment
    preprocessor = KHotPreprocessor(environment.height, environment.ndim)
    n_actions = environment.ndim + 1
    log_flow: nn.Module | None = None
    if policies.log_flow_head is not None:
        log_flow = as_mlp(policies.trunk, policies.log_flow_head)
    elif isinstance(agent, QAgent):
        q_values = as_mlp(policies.trunk, policies.forward_head)
        log_flow = _SoftValue(q_values, agent.coefficient, environment.ndim, environment.height)
    if isinstance(policies.backward, LearnedBackward):
        module = as_mlp(policies.backward.trunk, policies.backward.head)
        backward = DiscretePolicyEstimator(module, n_actions, preprocessor, is_backward=True)
    elif policies.backward.policy == "maxent":
        module = _MaxentLogits(environment.ndim, environment.height)
        backward = DiscretePolicyEstimator(module, n_actions, preprocessor, is_backward=True)
    else:
        backward = DiscretePolicyEstimator.uniform(n_actions, preprocessor)
    forward = as_mlp(policies.trunk, policies.forward_head, agent.coefficient)
    return Estimators(
        DiscretePolicyEstimator(forward, n_actions, preprocessor),
        backward,
        ScalarEstimator(log_flow, preprocessor) if log_flow is not None else None,
    )


def load_environment(run_dir: str | Path) -> ExactGrid:
    """The environment of a run folder as a torchgfn ``HyperGrid`` on the CPU.

    Its reward is not torchgfn's but ``environment.ExactReward``, which the run was trained with: the two differ at the
    edges of the modes for H = 11, 21, 31 and so on.

    Args:
        run_dir: a run folder of this suite, with config.json.

    Raises:
        ExperimentError: it is none.
    """
    env = _config_of(Path(run_dir)).env
    stored = env.height**env.ndim <= MAX_ENUMERATED
    return ExactGrid(env.ndim, env.height, store_all_states=stored, R0=env.R0, R1=env.R1, R2=env.R2)


def _config_of(run_dir: Path) -> ConfigDict:
    try:
        config = ConfigDict(json.loads((run_dir / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ExperimentError(f"{run_dir} is not a run folder: name one with config.json") from error
    if "env" not in config:
        raise ExperimentError(f"{run_dir} is not a run of the hypergrid: name one")
    return config


@torch.random.fork_rng()
def load_agent(run_dir: Path) -> SamplingAgent:
    """The agent of a run folder, on the CPU, as its checkpoint left it; see ``load_estimators``."""
    config = _config_of(run_dir)
    if not (run_dir / "checkpoint.pt").is_file():
        raise ExperimentError(f"{run_dir} is not a run with a checkpoint: it needs config.json and checkpoint.pt")
    if config.algo.name == "perfect":
        raise ExperimentError(f"{run_dir} sampled the true distribution: it has no policy to load, name another run")
    config.general.update(device="cpu", kernels="auto")  # of which older runs say nothing
    agent = make_agent(config)
    restore_agent(agent, run_dir / "checkpoint.pt", "train the run again")
    return agent


def as_mlp(trunk: Trunk, head: nn.Linear, coefficient: float = 1.0) -> MLP:
    """torchgfn's MLP with this trunk's and this head's weights; its outputs are divided by ``coefficient``."""
    n_inputs, width = trunk.table.shape
    mlp = MLP(n_inputs, head.out_features, hidden_dim=width, n_hidden_layers=len(trunk.layers) + 1)
    linears = [module for module in mlp.trunk if isinstance(module, nn.Linear)]
    sources = [(trunk.table.T, trunk.bias), *((layer.matrix.T, layer.bias) for layer in trunk.layers)]
    with torch.no_grad():
        for linear, (weight, bias) in zip(linears, sources, strict=True):
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        mlp.last_layer.weight.copy_(head.weight / coefficient)
        mlp.last_layer.bias.copy_(head.bias / coefficient)
    return mlp


class _SoftValue(nn.Module):
    """K-hot (..., D*H) -> (..., 1) V = c log sum exp(Q / c) over the legal actions: log F of the DQN objectives."""

    def __init__(self, q_values: MLP, coefficient: float, ndim: int, height: int) -> None:
        super().__init__()
        self.q_values, self.coefficient = q_values, coefficient
        self.last_rows = torch.arange(1, ndim + 1) * height - 1
        self.input_dim, self.output_dim = ndim * height, 1

    def forward(self, k_hot: Tensor) -> Tensor:
        at_limit = nn.functional.pad(k_hot[..., self.last_rows] == 1, (0, 1))
        q_values = self.q_values(k_hot).masked_fill(at_limit, MASKED)
        return self.coefficient * torch.logsumexp(q_values / self.coefficient, -1, keepdim=True)


class _MaxentLogits(nn.Module):
    """K-hot (..., D*H) -> (..., D) log s_d, the unnormalised maximum-entropy log P_B."""

    def __init__(self, ndim: int, height: int) -> None:
        super().__init__()
        self.shape = (ndim, height)
        self.input_dim, self.output_dim = ndim * height, ndim

    def forward(self, k_hot: Tensor) -> Tensor:
        coordinates = k_hot.unflatten(-1, self.shape).argmax(-1)
        return coordinates.to(torch.get_default_dtype()).log()
