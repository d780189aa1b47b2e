"""From the command line to a checked configuration: one table of options, checked before anything starts.

What an option is, what it may be, and which objectives it belongs to stands in ``OPTIONS``; the parser, its help, the
checks and the configuration are made from it.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bitseq.backward_loss import APPROACHES
from bitseq.environment import BLOCK_LENGTH, BLOCKS
from bitseq.experiment import IF_EXISTS, ExperimentError

OBJECTIVES = ("tb", "db", "subtb", "soft_dqn", "munchausen_dqn")
BALANCE, DQN = OBJECTIVES[:3], OBJECTIVES[3:]
OBJECTIVE_ALIASES = {"dqn": "munchausen_dqn"}
MAX_ACTIONS = 1_000_000  # a state's logits are held at once, for a batch of states

# Options that a resumed run may change: where and how it is stored and shown, never what is computed.
FREE_OPTIONS = ("output_dir", "if_exists", "wandb", "tensorboard", "checkpoint_every")
# Options that do not name a run folder by their difference from the default.
UNNAMED_OPTIONS = (*FREE_OPTIONS, "seed", "threads", "device", "objective", "backward_approach", "n", "k")

Check = tuple[Callable[[Any], bool], str]


def _at_least(low: float) -> Check:
    return (lambda value: math.isfinite(value) and value >= low), f"at least {low:g}"


def _above(low: float) -> Check:
    return (lambda value: math.isfinite(value) and value > low), f"greater than {low:g}"


def _within(low: float, high: float) -> Check:
    return (lambda value: low <= value <= high), f"between {low:g} and {high:g}"


def _one_of(*choices: str) -> Check:
    return (lambda value: value in choices), "one of " + ", ".join(choices)


POSITIVE, NOT_NEGATIVE, FRACTION = _above(0), _at_least(0), (lambda value: 0 <= value < 1, "at least 0 and less than 1")
ANY: Check = (lambda value: True, "anything")


@dataclass(frozen=True)
class Option:
    """One option of the command line, and one field of the configuration.

    ``objectives`` names those that have it; ``default`` None is resolved by ``_resolve``.
    """

    name: str
    kind: type
    default: Any
    check: Check
    help: str
    objectives: tuple[str, ...] = OBJECTIVES
    aliases: tuple[str, ...] = ()


OPTIONS: dict[str, tuple[Option, ...]] = {
    "experiment": (
        Option("objective", str, "tb", _one_of(*OBJECTIVES, *OBJECTIVE_ALIASES), "loss of P_F; dqn: munchausen_dqn"),
        Option("backward_approach", str, "tlm", _one_of(*APPROACHES), "P_B and what trains it"),
        Option("seed", int, 1, _at_least(1), "splits into streams for initialisation, sampling, replay, evaluation"),
        Option("num_iterations", int, 50_000, _at_least(1), "gradient steps"),
        Option("batch_size", int, 16, _within(1, 1e5), "trajectories per step"),
    ),
    "strings": (
        Option("n", int, 120, _within(1, 1e5), "bits of a string, a multiple of k and of 8"),
        Option("k", int, 8, _within(1, 30), "bits of a word"),
        Option("M_size", int, 60, _within(1, 1e5), "number of modes"),
        Option("mode_threshold", int, 30, NOT_NEGATIVE, "Hamming distance within which a mode is found, bits"),
        Option("reward_exponent", float, 2.0, POSITIVE, "log R = - this * distance to the nearest mode"),
    ),
    "policies": (
        Option("width", int, 64, _within(1, 1e4), "features of a token"),
        Option("n_layers", int, 3, _within(1, 1e3), "encoder layers"),
        Option("n_heads", int, 8, _at_least(1), "attention heads, a divisor of the width"),
        Option("ff_width", int, 64, _within(1, 1e5), "hidden units of a feed-forward layer"),
        Option("dropout", float, 0.1, FRACTION, "in training; never in targets and evaluation"),
        Option("rand_action_prob", float, 0.001, _within(0, 1), "share of uniformly random actions in training"),
    ),
    "learning": (
        Option("learning_rate", float, 1e-3, POSITIVE, "Adam of P_F", aliases=("lr",)),
        Option("weight_decay", float, 1e-5, NOT_NEGATIVE, "of both optimisers"),
        Option("log_z_learning_rate", float, 1e-3, POSITIVE, "Adam of each of log Z's 64 parts", ("tb",)),
        Option("subtb_lambda", float, 0.9, POSITIVE, "weight per transition of a sub-trajectory's length", ("subtb",)),
        Option("update_order", str, "backward_first", _one_of("backward_first", "forward_first"), "of a step"),
    ),
    "backward policy": (
        Option("backward_learning_rate", float, None, POSITIVE, "Adam of P_B (tlm, pessimistic)", aliases=("blr",)),
        Option("gamma", float, 0.9999, (lambda value: 0 < value <= 1, "greater than 0 and at most 1"),
               "its learning rate's factor per step (tlm); 1: off"),
        Option("target_decay", float, 0.9, FRACTION, "weight of the old parameters in P_B's target; 0: none", BALANCE),
        Option("uniform_initialisation", bool, True, ANY, "start a learned P_B at uniform"),
        Option("backward_head_only", bool, False, ANY, "P_B's own loss leaves the trunk alone"),
    ),
    "DQN objectives": (
        Option("m_alpha", float, None, FRACTION, "Munchausen coefficient", DQN),
        Option("m_l0", float, -25.0, (lambda value: value < 0, "less than 0"), "floor of the log policy, nats", DQN),
        Option("leaf_coeff", float, 5.0, POSITIVE, "weight of transitions that complete a string", DQN),
        Option("huber_delta", float, 1.0, POSITIVE, "where the loss turns linear, nats", DQN),
        Option("replay_capacity", int, 100_000, _within(1, 1e9), "transitions kept", DQN),
        Option("replay_batch_size", int, 256, _within(1, 1e7), "transitions per step", DQN),
        Option("replay_priority_exponent", float, 0.9, _within(0, 1), "alpha of prioritised replay", DQN),
        Option("replay_importance_exponent", float, 0.1, _within(0, 1), "beta of its importance weights", DQN),
        Option("start_learning", int, 50, NOT_NEGATIVE, "steps of sampling before learning starts", DQN),
        Option("update_target_every", int, 5, _at_least(1), "steps between copies into the targets", DQN),
    ),
    "evaluation": (
        Option("validate_every", int, 100, _at_least(1), "steps between rows of metrics.csv"),
        Option("corr_every", int, 10_000, NOT_NEGATIVE, "steps between reward correlations, minutes each; 0: never"),
        Option("corr_num_rounds", int, 10, _within(1, 1e6), "backward trajectories per test string"),
        Option("exact_every", int, 1_000, NOT_NEGATIVE, "steps between exact distances, on small sizes; 0: never"),
    ),
    "run": (
        Option("device", str, None, _one_of("cpu", "cuda"), "where it runs"),
        Option("threads", int, 1, _at_least(1), "of torch; two runs of one thread beat one run of two"),
        Option("output_dir", str, "runs", (bool, "a folder's name"), "relative to the current folder"),
        Option("if_exists", str, "refuse", _one_of(*IF_EXISTS), "what to do about an existing run folder"),
        Option("checkpoint_every", int, 500, _at_least(1), "steps"),
        Option("wandb", str, "", ANY, "project; empty: off. WANDB_MODE=offline works without a network"),
        Option("tensorboard", bool, False, ANY, "event files in the run folder"),
    ),
}  # fmt: skip
BY_NAME: dict[str, Option] = {option.name: option for group in OPTIONS.values() for option in group}
RESOLVED = {"backward_learning_rate": "learning_rate's", "m_alpha": "0.15; soft_dqn: 0", "device": "cuda, else cpu"}
KINDS = {int: "a whole number", float: "a number", str: "text"}


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence of ours."""

    def error(self, message: str) -> None:
        raise ExperimentError(f"{message}: see --help")


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``OPTIONS``. Values stay text: ``parse`` reads and checks them."""
    parser = _Parser(
        prog="python bitseq/run.py",
        description="Train one objective with one backward approach on bit strings.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for option in options:
            default = RESOLVED.get(option.name, option.default)
            note = "" if len(option.objectives) == len(OBJECTIVES) else f" [{', '.join(option.objectives)}]"
            text = f"{option.help}{note} ({default if default != '' else 'off'})"
            flags = [f"--{name}" for name in (option.name, *option.aliases)]
            if option.kind is bool:
                group.add_argument(*flags, action=argparse.BooleanOptionalAction, help=text)
            else:
                allowed = option.check[1].removeprefix("one of ").replace(", ", "|")
                metavar = allowed if option.check[1].startswith("one of ") else option.kind.__name__.upper()
                group.add_argument(*flags, dest=option.name, metavar=metavar, help=text)
    return parser


def parse(argv: list[str]) -> ConfigDict:
    """The checked configuration of the arguments, the options of other objectives left out.

    Raises:
        ExperimentError: anything about them is wrong.
    """
    given = {name: _read(BY_NAME[name], value) for name, value in vars(make_parser().parse_args(argv)).items()}
    objective = given.get("objective", BY_NAME["objective"].default)
    objective = OBJECTIVE_ALIASES.get(objective, objective)
    for name in given:
        if objective not in BY_NAME[name].objectives:
            raise ExperimentError(f"--{name} has no effect with --objective {objective}: leave it out")
    values = {option.name: option.default for option in BY_NAME.values() if objective in option.objectives}
    config = ConfigDict(_resolve(values | given | {"objective": objective}))
    _check_combinations(config)
    return config


def _read(option: Option, text: Any) -> Any:
    """The value of one option, read and checked."""
    try:
        value = option.kind(text)
    except ValueError as error:
        raise ExperimentError(f"--{option.name} is {text!r}: it must be {KINDS[option.kind]}") from error
    holds, allowed = option.check
    if not holds(value):
        raise ExperimentError(f"--{option.name} is {text!r}: it must be {allowed}")
    return value


def _resolve(values: dict[str, Any]) -> dict[str, Any]:
    """Fill in the defaults that depend on other options or on the machine, and name the environment."""
    if values["backward_learning_rate"] is None:
        values["backward_learning_rate"] = values["learning_rate"]
    if values.get("m_alpha", 0.0) is None:
        values["m_alpha"] = 0.15 if values["objective"] == "munchausen_dqn" else 0.0
    if values["device"] is None:
        values["device"] = "cuda" if _has_gpu() else "cpu"
    return {"environment": f"n={values['n']}-k={values['k']}", **values}


def _has_gpu() -> bool:
    import torch  # seconds to import: not before it is needed

    return torch.cuda.is_available()


def _check_combinations(config: ConfigDict) -> None:
    n, k = config.n, config.k
    if n % k or n % BLOCK_LENGTH:
        raise ExperimentError(f"--n is {n}: it must be a multiple of --k, {k}, and of a mode's block, {BLOCK_LENGTH}")
    if (n // k) * 2**k > MAX_ACTIONS:
        raise ExperimentError(f"--k is {k}: {n // k} positions x {2**k} words are too many actions, lower it")
    n_modes = len(BLOCKS) ** (n // BLOCK_LENGTH)
    if config.M_size > n_modes:
        raise ExperimentError(f"--M_size is {config.M_size}: strings of {n} bits have at most {n_modes} modes")
    if config.mode_threshold > n:
        raise ExperimentError(f"--mode_threshold is {config.mode_threshold}: it must be at most --n, {n}")
    if config.width % config.n_heads:
        raise ExperimentError(f"--width is {config.width}: it must be a multiple of --n_heads, {config.n_heads}")
    if config.objective == "soft_dqn" and config.m_alpha != 0:
        raise ExperimentError(
            f"--m_alpha is {config.m_alpha}: soft_dqn is m_alpha 0, take --objective munchausen_dqn for another"
        )
    if config.device == "cuda" and not _has_gpu():
        raise ExperimentError("--device is 'cuda', but this machine has no usable GPU: use cpu")


def run_directory(config: ConfigDict) -> Path:
    """``<output_dir>/bitseq/<environment>/<objective>-<approach>[-<what differs>]/seed=<k>``."""
    standard = _resolve({name: BY_NAME[name].default for name in BY_NAME} | {"objective": config.objective})
    standard["backward_learning_rate"] = config.learning_rate
    differing = {
        option.name: f"{option.name}={config[option.name]}"
        for option in BY_NAME.values()
        if option.name in config and option.name not in UNNAMED_OPTIONS
        if config[option.name] != standard[option.name]
    }
    environment = [config.environment, *(differing.pop(o.name) for o in OPTIONS["strings"] if o.name in differing)]
    folder = "-".join([config.objective, config.backward_approach, *differing.values()])
    return Path(config.output_dir) / "bitseq" / "-".join(environment) / folder / f"seed={config.seed}"
