"""From the command line to a checked configuration: every field is declared once and checked before anything starts.

    --general FILE[:SEED] --env FILE[:NAME] --algo FILE[:NAME] [--SECTION.FIELD VALUE ...]

Each FILE defines ``get_config(argument) -> ml_collections.ConfigDict``, a section. The shipped ones are made from the
models below; one of your own may hold other values.
"""

import importlib.util
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ml_collections import ConfigDict
from pydantic import ValidationError

from hypergrid.common import options
from hypergrid.common.backward_loss import APPROACHES, LOSSES
from hypergrid.common.options import Folder, Group, Text, option
from hypergrid.common.run_folder import IF_EXISTS
from hypergrid.common.terminal import ExperimentError

LEARNING = ("tb", "db", "subtb", "soft_dqn", "munchausen_dqn")
DQN = LEARNING[3:]
# Of the rows of the approaches table: those with a loss of P_B, and what else an option may need.
OWN_LOSS = tuple(row.name for row in APPROACHES.values() if row.loss in LOSSES)
LEARNED = tuple(row.name for row in APPROACHES.values() if row.policy == "learned")
DECAYED = tuple(row.name for row in APPROACHES.values() if row.decays_learning_rate)
TARGETED = tuple(row.name for row in APPROACHES.values() if row.scored == "target")
REFERENCES = ("perfect", "uniform")  # draws from R/Z, the floor; a uniform P_F: they learn nothing
MAX_ENUMERATED = 20_000_000  # states whose tables are held in memory
REWARDS = {"standard": (1e-3, 0.5, 2.0), "hard": (1e-4, 1.0, 3.0)}  # R0, R1, R2
MAX_STATES = 2**62  # a state has a number of 64 bits


class GeneralSettings(Group):
    """General: for every run"""

    seed: int = option(1, "splits into streams for initialisation, sampling, replay, evaluation", ge=1, named=False)
    device: Literal["cpu", "cuda"] = option("cpu", "cuda is slower: the network is small", free=True)
    threads: int = option(1, "threads of torch; two runs of one thread are faster than one run of two", ge=1, free=True)
    kernels: Literal["auto", "torch", "compiled"] = option(
        "auto", "the rollout: compiled (auto), or torch, the readable form: the same draws, far slower", free=True
    )
    n_trajectories: int = option(1_000_000, "trajectories of the whole run, rounded up to whole iterations", ge=1)
    n_envs: int = option(16, "trajectories per iteration", ge=1, le=1e6)
    validation_interval: int = option(100, "iterations between rows of metrics.csv", ge=1)
    validation_samples: int = option(
        200_000, "last terminal states that the empirical distances are computed on", ge=1, le=1e9
    )
    exact_interval: int = option(
        5_000, "iterations between exact distances, on grids of up to a million states; 0: never", ge=0
    )
    checkpoint_interval: int = option(1_000, "iterations between checkpoints", ge=1, free=True)
    output_dir: Folder = option("runs", "relative to the current folder", free=True)
    if_exists: Literal[*IF_EXISTS] = option("refuse", "what to do about an existing run folder", free=True)
    wandb_project: Text = option(
        "", "project to log to; empty: none. WANDB_MODE=offline works without a network", free=True
    )
    tensorboard: bool = option(False, "event files in the run folder", free=True)


class EnvironmentSettings(Group):
    """Environment: a grid of height^ndim states"""

    name: str = option("standard", "name of the reward: standard, hard or your own", pattern=r"^\w+$", named=False)
    ndim: int = option(4, "D, number of coordinates", ge=1)
    height: int = option(20, "H, values per coordinate", ge=3)
    R0: float = option(1e-3, "reward of every state; hard: 1e-4", gt=0)
    R1: float = option(0.5, "added in the shell around a mode; hard: 1", ge=0)
    R2: float = option(2.0, "added at the modes; hard: 3", ge=0)


class AlgorithmSettings(Group):
    """Algorithm: what trains P_F and P_B"""

    name: Literal[*LEARNING, *REFERENCES] = option("munchausen_dqn", "loss of P_F, or a reference", named=False)
    backward_approach: Literal[*APPROACHES] = option("tlm", "what trains P_B", named=False)
    learning_rate: float = option(1e-3, "learning rate of P_F, by Adam", gt=0)
    backward_learning_rate: float = option(1e-3, "learning rate of P_B's own loss, by Adam", gt=0, approaches=OWN_LOSS)
    backward_learning_rate_decay: float = option(
        0.999, "factor of that rate per step; 1: it stays", gt=0, le=1, approaches=DECAYED
    )
    target_decay: float = option(
        0.75, "weight of the old parameters in the targets of P_B (tlm) and Q; 0: no target", ge=0, lt=1
    )
    zero_initialisation: bool = option(True, "start a learned P_B at uniform", approaches=LEARNED)
    tied_trunk: bool = option(True, "P_F and P_B share the trunk", approaches=LEARNED)
    update_order: Literal["backward_first", "forward_first"] = option(
        "backward_first", "which policy is updated first", approaches=OWN_LOSS
    )
    gradient_clipping: float = option(0.0, "largest norm of a gradient; 0: off", ge=0)
    hidden_width: int = option(256, "units of a hidden layer", ge=1, le=1e5)
    hidden_layers: int = option(2, "hidden layers of the trunk", ge=1)
    log_z_learning_rate: float = option(0.1, "learning rate of log Z, by Adam", gt=0, objectives=["tb"])
    subtb_lambda: float = option(0.9, "weight per transition of a sub-trajectory's length", gt=0, objectives=["subtb"])
    huber_delta: float = option(1.0, "where the loss turns linear, nats", gt=0, objectives=DQN)
    start_learning: int = option(16, "iterations of sampling before learning starts", ge=0, objectives=DQN)
    replay_capacity: int = option(100_000, "transitions kept", ge=1, le=1e9, objectives=DQN)
    replay_batch_size: int = option(256, "transitions per step", ge=1, le=1e7, objectives=DQN)
    replay_priority_exponent: float = option(0.5, "alpha of prioritised replay; 0: uniform", ge=0, le=1, objectives=DQN)
    replay_importance_exponent: float = option(
        0.0, "beta of its importance weights; 0: none", ge=0, le=1, objectives=DQN
    )
    m_alpha: float = option(0.15, "Munchausen coefficient", ge=0, lt=1, objectives=["munchausen_dqn"])
    m_l0: float = option(-100.0, "floor of the scaled log policy, nats", lt=0, objectives=["munchausen_dqn"])


SECTIONS: dict[str, type[Group]] = {"general": GeneralSettings, "env": EnvironmentSettings, "algo": AlgorithmSettings}
EXAMPLES = {"general": "general.py:3", "env": "hypergrid.py:standard", "algo": "algo.py:munchausen_dqn"}
FREE_FIELDS = options.free_fields(GeneralSettings)


def general(seed: int) -> ConfigDict:
    """The paper's general settings."""
    return ConfigDict(GeneralSettings().model_dump() | {"seed": seed})


def environment(name: str) -> ConfigDict:
    """The paper's grid with one of its rewards.

    Raises:
        ValueError: there is no such reward.
    """
    if name not in REWARDS:
        raise ValueError(f"there is no environment {name!r}: it must be one of {', '.join(REWARDS)}")
    levels = dict(zip(("R0", "R1", "R2"), REWARDS[name], strict=True))
    return ConfigDict(EnvironmentSettings().model_dump() | {"name": name} | levels)


def algorithm(name: str) -> ConfigDict:
    """The paper's settings of an objective; a reference has its name alone.

    Raises:
        ValueError: there is no such algorithm.
    """
    if name in REFERENCES:
        return ConfigDict({"name": name})
    if name not in LEARNING:
        raise ValueError(f"there is no algorithm {name!r}: it must be one of {', '.join(LEARNING + REFERENCES)}")
    return ConfigDict(options.applicable(AlgorithmSettings(), name) | {"name": name})


def parse(argv: list[str]) -> ConfigDict:
    """The checked configuration of a command line, program name first, with sections general, env and algo.

    Raises:
        ExperimentError: anything about it is wrong.
    """
    parser = options.Parser("python hypergrid/run_hypergrid_exp.py", "Train one algorithm with one backward approach.")
    for section, model in SECTIONS.items():
        example = f"as in hypergrid/experiments/config/{EXAMPLES[section]}"
        parser.add_argument(f"--{section}", metavar="FILE[:ARGUMENT]", required=True, help=example)
        parser.add_model(model, f"{section}.")
    texts = parser.texts(argv[1:])
    config = ConfigDict()
    for section, model in SECTIONS.items():
        prefix = f"{section}."
        given = {name.removeprefix(prefix): text for name, text in texts.items() if name.startswith(prefix)}
        overrides = options.read(model, given, f"--{prefix}").model_dump(include=given.keys())
        values = config[section] = check_section(section, _load(section, texts[section]) | overrides)
        if "backward_approach" in values:
            options.require_effect(model, given, "approaches", "backward_approach", values.backward_approach, prefix)
            if "target_decay" in given and values.name not in DQN and values.backward_approach not in TARGETED:
                cell = f"{values.name} and {values.backward_approach}"
                raise ExperimentError(f"--algo.target_decay has no effect on {cell}: leave it out")
    _check_combinations(config)
    return config


def check_section(section: str, values: dict[str, Any]) -> ConfigDict:
    """A section's values, checked.

    Raises:
        ExperimentError: one is missing, has no effect, or is not what it must be.
    """
    model = SECTIONS[section]
    try:
        checked = model.model_validate(values, strict=True)
    except ValidationError as error:
        raise ExperimentError(options.sentence(error, f"{section}.")) from error
    fields = algorithm(checked.name) if section == "algo" else model.model_fields
    if missing := fields.keys() - values.keys():
        raise ExperimentError(f"{section}.{min(missing)} is missing from its configuration file: add it")
    if useless := values.keys() - fields.keys():
        name = values["name"]
        raise ExperimentError(f"{section}.{min(useless)} has no effect on {name!r}: remove it, or take algo.py:{name}")
    return ConfigDict(checked.model_dump(include=values.keys()))


def _check_combinations(config: ConfigDict) -> None:
    if config.env.ndim * math.log(config.env.height) > math.log(MAX_STATES):
        raise ExperimentError(
            f"a grid of {config.env.height}^{config.env.ndim} states is too large to number them: "
            "lower env.ndim or env.height to at most 2^62 states"
        )
    n_iterations = math.ceil(config.general.n_trajectories / config.general.n_envs)
    if config.algo.get("start_learning", 0) >= n_iterations:
        raise ExperimentError(
            f"algo.start_learning is {config.algo.start_learning}: lower it, or nothing is learned in {n_iterations} "
            "iterations"
        )
    idle = {}
    if config.algo.get("m_alpha") == 0:
        idle["m_l0"] = "--algo.m_alpha 0"
    if config.algo.get("replay_priority_exponent") == 0:
        idle["replay_importance_exponent"] = "--algo.replay_priority_exponent 0"
    options.require_no_idle(AlgorithmSettings, config.algo, idle, "algo.")
    if config.algo.name == "perfect" and config.env.height**config.env.ndim > MAX_ENUMERATED:
        raise ExperimentError(f"perfect draws from a list of all states: take a grid of at most {MAX_ENUMERATED:,}")
    if config.general.device == "cuda" and not torch.cuda.is_available():
        raise ExperimentError("general.device is 'cuda', but this machine has no usable GPU: use cpu")


def _load(section: str, given: str) -> dict[str, Any]:
    """The values of a configuration file and its argument, NumPy's numbers as plain ones."""
    path, _, argument = given.partition(":")
    spec = importlib.util.spec_from_file_location(f"{section}_config", path)
    if spec is None or not Path(path).is_file():
        raise ExperimentError(f"--{section}: there is no Python file {path}; paths start at the current folder")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        fields = module.get_config(*([argument] if argument else []))
    # A configuration file is the user's program: whatever it raises is reported as its failure.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExperimentError(f"--{section} {given}: {reason}") from error
    if not isinstance(fields, ConfigDict):
        raise ExperimentError(f"--{section}: get_config of {path} must return an ml_collections ConfigDict")
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in fields.items()}


def run_directory(config: ConfigDict) -> Path:
    """``<output_dir>/hypergrid/<environment>/<objective>-<approach>[-<what differs>]/seed=<k>``."""
    shipped = {
        "general": general(config.general.seed),
        "env": environment(config.env.name) if config.env.name in REWARDS else {},
        "algo": algorithm(config.algo.name),
    }
    parts = {
        section: sorted(options.differing(model, config[section], shipped[section]).values())
        for section, model in SECTIONS.items()
    }
    name = options.folder_name([config.env.name, *parts["env"]])
    approach = [config.algo.backward_approach] if "backward_approach" in config.algo else []
    folder = options.folder_name([config.algo.name, *approach, *parts["algo"], *parts["general"]])
    return Path(config.general.output_dir) / "hypergrid" / name / folder / f"seed={config.general.seed}"
