"""From the command line to a checked configuration, of every molecule task.

Each setting is declared once; the parser, its help, the checks and the configuration are made from it. A task is
``Settings`` with its own reward and molecules.
"""

import math
import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from ml_collections import ConfigDict
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from mols.common import options
from mols.common.backward_loss import APPROACHES
from mols.common.options import Folder, Group, Text, option
from mols.common.run_folder import IF_EXISTS
from mols.common.terminal import ExperimentError

OBJECTIVES = ("tb", "db", "subtb", "dqn", "soft_dqn")
BALANCE, DQN = OBJECTIVES[:3], OBJECTIVES[3:]
# Of the rows of the approaches table: those with a loss of P_B, those whose objective scores its EMA copy, and so on.
OWN_LOSS = tuple(row.name for row in APPROACHES.values() if row.loss is not None)
LEARNED = tuple(row.name for row in APPROACHES.values() if row.policy != "uniform")
AVERAGED = tuple(row.name for row in APPROACHES.values() if row.loss is not None and row.scored in ("fixed", "target"))
DECAYED = tuple(row.name for row in APPROACHES.values() if row.decays_learning_rate)
AEXP = 0.99
MAX_FRAGMENTS = 32  # logits of all pairs of slots are held at once
MAX_ATOMS = 16
AUTO = "auto"  # what is at hand decides, see ``run.settle``; of the kernels, the device
# Options of a proxy that mean nothing to a user's own reward.
PROXY_OPTIONS = ("proxy", "proxy_weights", "workers")
# Options that a configuration lacks where they have no say.
OWN_REWARD_OPTIONS = ("reward", "reward_changed", "mode_thresholds")
RISING = "input should be three rising numbers of at most six digits, as in 0.7,0.8,0.9"
OWN_THRESHOLDS = "0.7,0.8,0.9"  # of a reward that, like qed, lies between 0 and 1


def thresholds_of(text: str) -> tuple[float, ...]:
    """The numbers of ``--mode_thresholds``; none where the text is anything but three rising ones above 0.

    Names of columns have six digits of them: more would be another number.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        return ()
    rising = all(a < b for a, b in pairwise((0.0, *numbers, math.inf)))
    return numbers if rising and len(numbers) == 3 and all(float(f"{n:g}") == n for n in numbers) else ()


def _checked_thresholds(text: str) -> str:
    if text and not thresholds_of(text):
        raise PydanticCustomError("thresholds", RISING)
    return text


class ExperimentSettings(Group):
    """Experiment"""

    algo: Literal[*OBJECTIVES] = option("tb", "loss of P_F; dqn is MunchausenDQN", named=False)
    backward_approach: Literal[*APPROACHES] = option(
        "tlm",
        "P_B: fixed (uniform), trained by P_F's objective (naive), by a learned number of histories (maxent), by the "
        "likelihood of the current (tlm) or of recent batches (pessimistic)",
        named=False,
    )
    seed: int = option(
        1, "splits into streams for initialisation, sampling, replay, evaluation", ge=1, le=2**32, named=False
    )
    n: int = option(20_000, "iterations: gradient steps", ge=1)
    batch_size: int = option(256, "trajectories per step", ge=1, le=1e5)


class RewardSettings(Group):
    """Reward"""

    temp: float = option(10.0, "reward exponent: log R = this * log r", ge=1e-6, le=1e3)
    workers: int = option(0, "extra processes that prepare molecules for the network; 0: none", ge=0, free=True)
    reward: Text = option(
        "", "a function of your own in place of the network, package.module:function, or the built-in qed"
    )
    reward_changed: bool = option(False, "resume although the source of this function has changed", free=True)
    mode_thresholds: Annotated[str, AfterValidator(_checked_thresholds)] = option(
        "",
        f"the three rewards r from which on a molecule may be a mode; empty: the task's, of an own reward "
        f"{OWN_THRESHOLDS}",
    )


class MoleculeSettings(Group):
    """Molecules"""

    rp: float = option(0.05, "share of uniformly random actions at the start of training", ge=0, le=1)
    ap: Literal["linear", "exp", "none"] = option(
        "linear", "how that share falls: to 0 at the last step (linear), to --aexp of it (exp), not at all (none)"
    )
    aexp: float = option(
        None, "the part of --rp that is left at the last step", shown=f"with --ap exp: {AEXP}", gt=0, le=1
    )


class PolicySettings(Group):
    """Policies"""

    width: int = option(128, "features of a node", ge=1, le=1e4)
    n_layers: int = option(8, "graph transformer layers", ge=1, le=1e3)
    n_heads: int = option(2, "attention heads, each as wide as a node", ge=1, le=1e3)
    precision: Literal["float32", "bfloat16"] = option(
        "float32", "numbers with which the layers multiply; bfloat16 is faster on CPUs and GPUs that have it"
    )


class LearningSettings(Group):
    """Learning"""

    lr: float = option(5e-4, "learning rate of P_F, and of naive's P_B, by Adam", gt=0)
    lrd: float = option(20_000.0, "steps in which that rate halves", gt=0)
    log_z_lr: float = option(1e-3, "learning rate of log Z, by Adam", gt=0, objectives=("tb",))
    log_z_lrd: float = option(50_000.0, "steps in which that rate halves", gt=0, objectives=("tb",))
    weight_decay: float = option(1e-8, "weight decay of both optimisers", ge=0)
    gradient_clipping: float = option(10.0, "largest norm of a gradient; 0: off", ge=0)
    target_decay: float = option(
        0.95, "weight of the old parameters in the EMA model, which samples and is P_B's target", ge=0, lt=1
    )
    no_sampling_model: bool = option(False, "sample from the online model, not from the EMA model, and measure it")
    subtb_lambda: float = option(1.0, "weight per transition of a sub-trajectory's length", gt=0, objectives=("subtb",))


class BackwardSettings(Group):
    """Backward policy"""

    blr: float = option(
        None, "learning rate of P_B's own loss, by Adam", shown="a tenth of lr", gt=0, approaches=OWN_LOSS
    )
    blrd: float = option(20_000.0, "steps in which that rate halves", gt=0, approaches=DECAYED)
    rand_pb_init: bool = option(False, "start a learned P_B at random, not uniform", approaches=LEARNED)


class DQNSettings(Group):
    """DQN objectives"""

    m_alpha: float = option(0.15, "Munchausen coefficient", ge=0, lt=1, objectives=("dqn",))
    m_l0: float = option(-500.0, "floor of c log pi, nats; write --m_l0=-500", lt=0, objectives=("dqn",))
    leaf_coeff: float = option(10.0, "weight of stop transitions in the loss", gt=0, objectives=DQN)
    not_dueling: bool = option(False, "Q from one head, instead of V + c log pi", objectives=DQN)
    q_target_decay: float = option(0.9, "weight of the old parameters in the target of Q", ge=0, lt=1, objectives=DQN)


class EvaluationSettings(Group):
    """Evaluation"""

    validate_every: int = option(100, "steps between rows of metrics.csv", ge=1)
    corr_every: int = option(5_000, "steps between reward correlations, minutes each; 0: never", ge=0)
    corr_rounds: int = option(10, "backward trajectories per molecule", ge=1, le=1e6)
    corr_molecules: int = option(0, "molecules of the test set, from its beginning; 0: all", ge=0)


class MachineSettings(Group):
    """Run"""

    device: Literal["cpu", "cuda"] = option(None, "where the policies run", shown="cuda, else cpu", free=True)
    threads: int = option(
        None,
        "threads of torch; give each run one where several share a machine",
        shown="all cores",
        ge=1,
        le=1024,
        free=True,
    )
    kernels: Literal[AUTO, "torch", "compiled"] = option(
        AUTO,
        "layers of the policies by torch-geometric, or compiled, on a CPU; auto: compiled there, else torch",
        free=True,
    )
    output_dir: Folder = option("runs", "relative to the current folder", free=True)
    if_exists: Literal[*IF_EXISTS] = option("refuse", "what to do about an existing run folder", free=True)
    checkpoint_every: int = option(100, "steps between checkpoints", ge=1, free=True)
    wandb: Text = option("", "project to log to; empty: none. WANDB_MODE=offline works without a network", free=True)
    tensorboard: bool = option(False, "event files in the run folder", free=True)


def parse(argv: list[str], model: type[Group]) -> ConfigDict:
    """The checked configuration of the arguments, the options of other objectives left out.

    Args:
        argv: the arguments.
        model: the settings of a task.

    Raises:
        ExperimentError: anything about them is wrong.
    """
    description = "Train one objective with one backward approach on molecules."
    values = options.parse(model, argv, f"python -m mols.tasks.{model.task}", description, "algo")
    for name in PROXY_OPTIONS:
        if values["reward"] and name in values and values[name] != model.model_fields[name].default:
            raise ExperimentError(f"--{name} has no effect with --reward {values['reward']}: leave it out")
    config = ConfigDict(_resolve(values, model.task))
    options.require_no_idle(model, config, _idle(config))
    _check_machine(config)
    return config


def _resolve(values: dict[str, Any], task: str) -> dict[str, Any]:
    """Fill in the defaults that depend on other options or on the machine, and name the task."""
    if values["aexp"] is not None and values["ap"] != "exp":
        raise ExperimentError(f"--aexp has no effect with --ap {values['ap']}: leave it out, or take --ap exp")
    resolved = {
        "blr": values["lr"] / 10,
        "aexp": AEXP if values["ap"] == "exp" else 0.0,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    }
    values |= {name: default for name, default in resolved.items() if name in values and values[name] is None}
    _resolve_reward(values)
    return {"environment": task, "objective": values["algo"], **values}


def _resolve_reward(values: dict[str, Any]) -> None:
    """Leave out what has no say: of an own reward the proxy, otherwise the function."""
    if values["reward"]:
        values["proxy"] = ""
        values["mode_thresholds"] = values["mode_thresholds"] or OWN_THRESHOLDS
    else:
        if values["reward_changed"]:
            raise ExperimentError("--reward_changed has no effect without --reward: leave it out")
        del values["reward"], values["reward_changed"]
    if values["mode_thresholds"]:
        values["mode_thresholds"] = ",".join(f"{number:g}" for number in thresholds_of(values["mode_thresholds"]))
    else:
        del values["mode_thresholds"]


def _idle(config: ConfigDict) -> dict[str, str]:
    """The settings that others leave without an effect, and those others."""
    approach, idle = config.backward_approach, {}
    if config.no_sampling_model and approach not in AVERAGED:
        idle["target_decay"] = f"--no_sampling_model and --backward_approach {approach}"
    if config.get("m_alpha") == 0:
        idle["m_l0"] = "--m_alpha 0"
    if config.rp == 0:
        idle["ap"] = "--rp 0"
    if config.if_exists != "resume":
        idle["reward_changed"] = f"--if_exists {config.if_exists}"
    return idle


def _check_machine(config: ConfigDict) -> None:
    if config.device == "cuda" and config.kernels == "compiled":
        raise ExperimentError("--kernels is 'compiled', which a GPU cannot run: use auto or torch, or --device cpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ExperimentError("--device is 'cuda', but this machine has no usable GPU: use cpu")


def thresholds(config: ConfigDict, standard: tuple[float, ...]) -> tuple[float, ...]:
    """The rewards r from which on a molecule may be a mode; ``standard`` is the task's."""
    return thresholds_of(config.mode_thresholds) if "mode_thresholds" in config else standard


def run_directory(config: ConfigDict, model: type[Group]) -> Path:
    """``<output_dir>/mols/<task>/<objective>-<approach>[-<what differs>]/seed=<k>``."""
    defaults = options.applicable(model(), config.algo) | {"algo": config.algo, "lr": config.lr, "ap": config.ap}
    standard = _resolve(defaults, model.task) | {
        "lr": model.model_fields["lr"].default,
        "ap": model.model_fields["ap"].default,
    }
    if "reward" in config:
        standard |= {"proxy": "", "mode_thresholds": OWN_THRESHOLDS}
    differing = options.differing(model, config, standard)
    folder = options.folder_name([config.algo, config.backward_approach, *differing.values()])
    return Path(config.output_dir) / "mols" / model.task / folder / f"seed={config.seed}"
