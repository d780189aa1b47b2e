"""From the command line to a checked configuration.

Each setting is declared once, in ``Settings``; the parser, its help, the checks and the configuration are made from it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from ml_collections import ConfigDict
from pydantic import AfterValidator

from bitseq.common import options
from bitseq.common.backward_loss import APPROACHES, LOSSES
from bitseq.common.options import Folder, Group, Text, option
from bitseq.common.run_folder import IF_EXISTS
from bitseq.common.terminal import ExperimentError
from bitseq.environment import BLOCK_LENGTH, BLOCKS
from bitseq.kernels import LANES

OBJECTIVES = ("tb", "db", "subtb", "soft_dqn", "munchausen_dqn")
BALANCE, DQN = OBJECTIVES[:3], OBJECTIVES[3:]
# Of the rows of the approaches table: those with a loss of P_B, and what else an option may need.
OWN_LOSS = tuple(row.name for row in APPROACHES.values() if row.loss in LOSSES)
LEARNED = tuple(row.name for row in APPROACHES.values() if row.policy == "learned")
DECAYED = tuple(row.name for row in APPROACHES.values() if row.decays_learning_rate)
TARGETED = tuple(row.name for row in APPROACHES.values() if row.scored == "target")
MAX_ACTIONS = 1_000_000  # a state's logits are held at once, for a batch of states


def _full_name(objective: str) -> str:
    return "munchausen_dqn" if objective == "dqn" else objective


class ExperimentSettings(Group):
    """Experiment"""

    objective: Annotated[Literal[*OBJECTIVES, "dqn"], AfterValidator(_full_name)] = option(
        "tb", "loss of P_F; dqn: munchausen_dqn", named=False
    )
    backward_approach: Literal[*APPROACHES] = option(
        "tlm",
        "P_B: fixed (uniform, maxent), or trained by P_F's objective (naive), by the likelihood of the current "
        "(tlm) or of recent batches (pessimistic)",
        named=False,
    )
    seed: int = option(
        1, "splits into streams for initialisation, sampling, replay, evaluation", ge=1, le=2**32, named=False
    )
    num_iterations: int = option(50_000, "gradient steps", ge=1)
    batch_size: int = option(16, "trajectories per step", ge=1, le=1e5)


class StringSettings(Group):
    """Strings"""

    n: int = option(120, "bits of a string, a multiple of k and of 8", ge=1, le=1e5, named=False)
    k: int = option(8, "bits of a word", ge=1, le=30, named=False)
    M_size: int = option(60, "number of modes, drawn with repetition", ge=1, le=1e5)
    mode_threshold: int = option(30, "Hamming distance within which a mode is found, bits", ge=0)
    reward_exponent: float = option(2.0, "log R = - this * distance to the nearest mode", gt=0, le=100)


class PolicySettings(Group):
    """Policies"""

    width: int = option(64, "features of a token", ge=1, le=1e4)
    n_layers: int = option(3, "encoder layers", ge=1, le=1e3)
    n_heads: int = option(8, "attention heads, a divisor of the width", ge=1)
    ff_width: int = option(64, "hidden units of a feed-forward layer", ge=1, le=1e5)
    dropout: float = option(0.1, "share of units dropped in training; none in targets and evaluation", ge=0, le=0.99)
    rand_action_prob: float = option(0.001, "share of uniformly random actions in training", ge=0, le=1)


class LearningSettings(Group):
    """Learning"""

    learning_rate: float = option(
        1e-3, "learning rate of P_F, and of naive's P_B, by Adam", gt=0, aliases=("lr",), paper="5e-4, 1e-3, 2e-3"
    )
    weight_decay: float = option(1e-5, "weight decay of both optimisers", ge=0)
    log_z_learning_rate: float = option(1e-3, "learning rate of log Z's 64 parts, by Adam", gt=0, objectives=("tb",))
    good_trajectories: int = option(0, "trajectories back from good strings in P_F's loss", ge=0, objectives=BALANCE)
    subtb_lambda: float = option(0.9, "weight per transition of a sub-trajectory's length", gt=0, objectives=("subtb",))


class BackwardSettings(Group):
    """Backward policy"""

    backward_learning_rate: float = option(
        None,
        "learning rate of P_B's own loss, by Adam",
        shown="learning_rate's",
        gt=0,
        approaches=OWN_LOSS,
        aliases=("blr",),
    )
    gamma: float = option(0.9999, "factor of that rate per step; 1: it stays", gt=0, le=1, approaches=DECAYED)
    target_decay: float = option(
        0.9,
        "weight of the old parameters in the targets, P_B's and the whole model's; 0: a copy each step",
        ge=0,
        lt=1,
        objectives=BALANCE,
    )
    update_order: Literal["backward_first", "forward_first"] = option(
        "backward_first", "which policy a step updates first; Algorithm 1: P_B", approaches=OWN_LOSS
    )
    backward_head_only: bool = option(
        None, "P_B's own loss leaves the trunk alone", shown="False; tb: True", approaches=OWN_LOSS
    )
    uniform_initialisation: bool = option(True, "start a learned P_B at uniform", approaches=LEARNED)


class DQNSettings(Group):
    """DQN objectives"""

    m_alpha: float = option(0.15, "Munchausen coefficient", ge=0, lt=1, objectives=("munchausen_dqn",))
    m_l0: float = option(-25.0, "floor of c log pi, nats; write --m_l0=-25", lt=0, objectives=("munchausen_dqn",))
    leaf_coeff: float = option(5.0, "weight of transitions that complete a string", gt=0, objectives=DQN)
    huber_delta: float = option(1.0, "where the loss turns linear, nats", gt=0, objectives=DQN)
    replay_capacity: int = option(100_000, "transitions kept", ge=1, le=1e9, objectives=DQN)
    replay_batch_size: int = option(256, "transitions per step", ge=1, le=1e7, objectives=DQN)
    replay_priority_exponent: float = option(0.9, "alpha of prioritised replay", ge=0, le=1, objectives=DQN)
    replay_importance_exponent: float = option(0.1, "beta of its importance weights", ge=0, le=1, objectives=DQN)
    start_learning: int = option(50, "steps of sampling before learning starts", ge=0, objectives=DQN)
    update_target_every: int = option(5, "steps between copies into the targets", ge=1, objectives=DQN)


class EvaluationSettings(Group):
    """Evaluation"""

    validate_every: int = option(100, "steps between rows of metrics.csv", ge=1)
    corr_every: int = option(
        10_000, "steps between reward correlations, half a minute each; 0: never", ge=0, paper="2000"
    )
    corr_num_rounds: int = option(10, "backward trajectories per test string", ge=1, le=1_000)
    correlation_network: Literal["target", "online"] = option(
        "target", "whose P_F and P_B are correlated; target: the whole model's"
    )
    exact_every: int = option(1_000, "steps between exact distances, on small sizes; 0: never", ge=0)


class MachineSettings(Group):
    """Run"""

    device: Literal["cpu", "cuda"] = option(None, "where the run computes", shown="cuda, else cpu", free=True)
    threads: int = option(
        1, "threads of torch; two runs of one thread are faster than one run of two", ge=1, le=1024, free=True
    )
    kernels: Literal["auto", "torch", "compiled"] = option(
        "auto",
        "the encoder: torch's layers, or compiled functions, which draw other dropouts; auto: compiled on a CPU "
        "where the heads divide 64",
        free=True,
    )
    output_dir: Folder = option("runs", "relative to the current folder", free=True)
    if_exists: Literal[*IF_EXISTS] = option("refuse", "what to do about an existing run folder", free=True)
    checkpoint_every: int = option(500, "steps between checkpoints", ge=1, free=True)
    wandb: Text = option("", "project to log to; empty: none. WANDB_MODE=offline works without a network", free=True)
    tensorboard: bool = option(False, "event files in the run folder", free=True)


class Settings(
    ExperimentSettings,
    StringSettings,
    PolicySettings,
    LearningSettings,
    BackwardSettings,
    DQNSettings,
    EvaluationSettings,
    MachineSettings,
):
    """A run of bit strings."""


def parse(argv: list[str]) -> ConfigDict:
    """The checked configuration of the arguments, the options of other objectives left out.

    Raises:
        ExperimentError: anything about them is wrong.
    """
    description = "Train one objective with one backward approach on bit strings."
    config = ConfigDict(_resolve(options.parse(Settings, argv, "python bitseq/run.py", description, "objective")))
    _check_combinations(config)
    return config


def _resolve(values: dict[str, Any]) -> dict[str, Any]:
    """Fill in the defaults that depend on other options or on the machine, and name the environment."""
    device = values["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    compiled = "compiled" if _can_be_compiled(device, values["n_heads"]) else "torch"
    resolved = {
        "backward_learning_rate": values["learning_rate"],
        "backward_head_only": values["objective"] == "tb",
        "device": device,
    }
    values |= {name: default for name, default in resolved.items() if name in values and values[name] is None}
    values["kernels"] = compiled if values["kernels"] == "auto" else values["kernels"]
    return {"environment": f"n={values['n']}-k={values['k']}", **values}


def _can_be_compiled(device: str, n_heads: int) -> bool:
    """Whether the compiled encoder can compute a run."""
    return device == "cpu" and LANES % n_heads == 0 and torch.get_default_dtype() == torch.float32


def _check_combinations(config: ConfigDict) -> None:
    n, k = config.n, config.k
    if n % k or n % BLOCK_LENGTH:
        raise ExperimentError(f"--n is {n}: it must be a multiple of --k, {k}, and of a mode's block, {BLOCK_LENGTH}")
    if (n // k) * 2**k > MAX_ACTIONS:
        raise ExperimentError(f"--k is {k}: {n // k} positions x {2**k} words are too many actions, lower it")
    n_modes = len(BLOCKS) ** (n // BLOCK_LENGTH)
    if config.M_size > n_modes:
        raise ExperimentError(
            f"--M_size is {config.M_size}: strings of {n} bits have at most {n_modes} modes, lower it to that"
        )
    if config.mode_threshold > n:
        raise ExperimentError(f"--mode_threshold is {config.mode_threshold}: it must be at most --n, {n}")
    if config.width % config.n_heads:
        raise ExperimentError(f"--width is {config.width}: it must be a multiple of --n_heads, {config.n_heads}")
    options.require_no_idle(Settings, config, _idle(config))
    if config.get("start_learning", 0) >= config.num_iterations:
        raise ExperimentError(
            f"--start_learning is {config.start_learning}: lower it, or nothing is learned in "
            f"{config.num_iterations} iterations"
        )
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ExperimentError("--device is 'cuda', but this machine has no usable GPU: use cpu")
    if config.kernels == "compiled" and not _can_be_compiled(config.device, config.n_heads):
        raise ExperimentError(
            "--kernels is 'compiled': it needs single precision on --device cpu, and --n_heads, "
            f"{config.n_heads}, to divide {LANES}: take torch"
        )


def _idle(config: ConfigDict) -> dict[str, str]:
    """The settings that others leave without an effect, and those others."""
    idle = {}
    if config.backward_approach not in TARGETED and not (config.corr_every and config.correlation_network == "target"):
        without = "--correlation_network online" if config.corr_every else "--corr_every 0"
        idle["target_decay"] = f"{without} and --backward_approach {config.backward_approach}"
    if config.get("m_alpha") == 0:
        idle["m_l0"] = "--m_alpha 0"
    if config.get("replay_priority_exponent") == 0:
        idle["replay_importance_exponent"] = "--replay_priority_exponent 0"
    return idle


def run_directory(config: ConfigDict) -> Path:
    """``<output_dir>/bitseq/<environment>/<objective>-<approach>[-<what differs>]/seed=<k>``."""
    standard = _resolve(options.applicable(Settings(), config.objective) | {"objective": config.objective})
    standard["backward_learning_rate"] = config.learning_rate
    differing = options.differing(Settings, config, standard)
    strings = [differing.pop(name) for name in StringSettings.model_fields if name in differing]
    environment = options.folder_name([config.environment, *strings])
    folder = options.folder_name([config.objective, config.backward_approach, *differing.values()])
    return Path(config.output_dir) / "bitseq" / environment / folder / f"seed={config.seed}"
