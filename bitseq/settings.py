"""From the command line to a checked configuration: one table of options, checked before anything starts.

What an option is, what it may be, and which objectives it belongs to stands in ``OPTIONS``; the parser, its help, the
checks and the configuration are made from it.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from ml_collections import ConfigDict

from bitseq.common import options
from bitseq.common.backward_loss import APPROACHES, LOSSES
from bitseq.common.options import (
    ANY,
    FOLDER,
    FRACTION,
    NEGATIVE,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    Option,
    at_least,
    one_of,
    within,
)
from bitseq.common.run_folder import IF_EXISTS, ExperimentError
from bitseq.environment import BLOCK_LENGTH, BLOCKS
from bitseq.kernels import LANES

OBJECTIVES = ("tb", "db", "subtb", "soft_dqn", "munchausen_dqn")
BALANCE, DQN = OBJECTIVES[:3], OBJECTIVES[3:]
OBJECTIVE_ALIASES = {"dqn": "munchausen_dqn"}
# Of the rows of the approaches table: those with a loss of P_B, and what else an option may need.
OWN_LOSS = tuple(row.name for row in APPROACHES.values() if row.loss in LOSSES)
LEARNED = tuple(row.name for row in APPROACHES.values() if row.policy == "learned")
DECAYED = tuple(row.name for row in APPROACHES.values() if row.decays_learning_rate)
TARGETED = tuple(row.name for row in APPROACHES.values() if row.scored == "target")
MAX_ACTIONS = 1_000_000  # a state's logits are held at once, for a batch of states

# Options that a resumed run may change: where it is stored, shown and computed, never what is computed.
FREE_OPTIONS = ("output_dir", "if_exists", "wandb", "tensorboard", "checkpoint_every", "device", "threads", "kernels")
# Options that do not name a run folder by their difference from the default.
UNNAMED_OPTIONS = (*FREE_OPTIONS, "seed", "objective", "backward_approach", "n", "k")

OPTIONS: dict[str, tuple[Option, ...]] = {
    "experiment": (
        Option("objective", str, "tb", one_of(*OBJECTIVES, *OBJECTIVE_ALIASES), "loss of P_F; dqn: munchausen_dqn"),
        Option("backward_approach", str, "tlm", one_of(*APPROACHES),
               "P_B: fixed (uniform, maxent), or trained by P_F's objective (naive), by the "
               "likelihood of the current (tlm) or of recent batches (pessimistic)"),
        Option("seed", int, 1, SEED, "splits into streams for initialisation, sampling, replay, evaluation"),
        Option("num_iterations", int, 50_000, at_least(1), "gradient steps"),
        Option("batch_size", int, 16, within(1, 1e5), "trajectories per step"),
    ),
    "strings": (
        Option("n", int, 120, within(1, 1e5), "bits of a string, a multiple of k and of 8"),
        Option("k", int, 8, within(1, 30), "bits of a word"),
        Option("M_size", int, 60, within(1, 1e5), "number of modes, drawn with repetition"),
        Option("mode_threshold", int, 30, NOT_NEGATIVE, "Hamming distance within which a mode is found, bits"),
        Option("reward_exponent", float, 2.0, POSITIVE, "log R = - this * distance to the nearest mode"),
    ),
    "policies": (
        Option("width", int, 64, within(1, 1e4), "features of a token"),
        Option("n_layers", int, 3, within(1, 1e3), "encoder layers"),
        Option("n_heads", int, 8, at_least(1), "attention heads, a divisor of the width"),
        Option("ff_width", int, 64, within(1, 1e5), "hidden units of a feed-forward layer"),
        Option("dropout", float, 0.1, within(0, 0.99), "in training; never in targets and evaluation"),
        Option("rand_action_prob", float, 0.001, within(0, 1), "share of uniformly random actions in training"),
    ),
    "learning": (
        Option("learning_rate", float, 1e-3, POSITIVE, "Adam of P_F, and of naive's P_B", aliases=("lr",)),
        Option("weight_decay", float, 1e-5, NOT_NEGATIVE, "of both optimisers"),
        Option("log_z_learning_rate", float, 1e-3, POSITIVE, "Adam of each of log Z's 64 parts", ("tb",)),
        Option("good_trajectories", int, 0, NOT_NEGATIVE, "trajectories back from good strings in P_F's loss", BALANCE),
        Option("subtb_lambda", float, 0.9, POSITIVE, "weight per transition of a sub-trajectory's length", ("subtb",)),
    ),
    "backward policy": (
        Option("backward_learning_rate", float, None, POSITIVE, "Adam of P_B's own loss",
               aliases=("blr",), approaches=OWN_LOSS),
        Option("gamma", float, 0.9999, (lambda value: 0 < value <= 1, "greater than 0 and at most 1"),
               "its learning rate's factor per step; 1: off", approaches=DECAYED),
        Option("target_decay", float, 0.9, FRACTION,
               "weight of the old parameters in the targets, P_B's and the whole model's; 0: a copy each step",
               BALANCE),
        Option("update_order", str, "backward_first", one_of("backward_first", "forward_first"),
               "which policy a step updates first; Algorithm 1: P_B", approaches=OWN_LOSS),
        Option("backward_head_only", bool, None, ANY, "P_B's own loss leaves the trunk alone", approaches=OWN_LOSS),
        Option("uniform_initialisation", bool, True, ANY, "start a learned P_B at uniform", approaches=LEARNED),
    ),
    "DQN objectives": (
        Option("m_alpha", float, None, FRACTION, "Munchausen coefficient", DQN),
        Option("m_l0", float, -25.0, NEGATIVE,
               "floor of c log pi, nats; write --m_l0=-25", DQN),
        Option("leaf_coeff", float, 5.0, POSITIVE, "weight of transitions that complete a string", DQN),
        Option("huber_delta", float, 1.0, POSITIVE, "where the loss turns linear, nats", DQN),
        Option("replay_capacity", int, 100_000, within(1, 1e9), "transitions kept", DQN),
        Option("replay_batch_size", int, 256, within(1, 1e7), "transitions per step", DQN),
        Option("replay_priority_exponent", float, 0.9, within(0, 1), "alpha of prioritised replay", DQN),
        Option("replay_importance_exponent", float, 0.1, within(0, 1), "beta of its importance weights", DQN),
        Option("start_learning", int, 50, NOT_NEGATIVE, "steps of sampling before learning starts", DQN),
        Option("update_target_every", int, 5, at_least(1), "steps between copies into the targets", DQN),
    ),
    "evaluation": (
        Option("validate_every", int, 100, at_least(1), "steps between rows of metrics.csv"),
        Option("corr_every", int, 10_000, NOT_NEGATIVE, "steps between reward correlations, minutes each; 0: never"),
        Option("corr_num_rounds", int, 10, within(1, 1e6), "backward trajectories per test string"),
        Option("correlation_network", str, "target", one_of("target", "online"),
               "whose P_F and P_B are correlated; target: the whole model's"),
        Option("exact_every", int, 1_000, NOT_NEGATIVE, "steps between exact distances, on small sizes; 0: never"),
    ),
    "run": (
        Option("device", str, None, one_of("cpu", "cuda"), "where it runs"),
        Option("threads", int, 1, within(1, 1024), "of torch; two runs of one thread beat one run of two"),
        Option("kernels", str, "auto", one_of("auto", "torch", "compiled"),
               "what computes the encoder: torch's layers, or compiled functions, which draw other dropouts; "
               "auto: compiled on a CPU where the heads divide 64"),
        Option("output_dir", str, "runs", FOLDER, "relative to the current folder"),
        Option("if_exists", str, "refuse", one_of(*IF_EXISTS), "what to do about an existing run folder"),
        Option("checkpoint_every", int, 500, at_least(1), "steps between checkpoints"),
        Option("wandb", str, "", ANY, "project; empty: off. WANDB_MODE=offline works without a network"),
        Option("tensorboard", bool, False, ANY, "event files in the run folder"),
    ),
}  # fmt: skip
BY_NAME: dict[str, Option] = {option.name: option for group in OPTIONS.values() for option in group}
RESOLVED = {
    "backward_learning_rate": "learning_rate's",
    "backward_head_only": "False; tb: True",
    "m_alpha": "0.15; soft_dqn: 0",
    "device": "cuda, else cpu",
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``OPTIONS``."""
    description = "Train one objective with one backward approach on bit strings."
    return options.make_parser(OPTIONS, prog="python bitseq/run.py", description=description, resolved=RESOLVED)


def parse(argv: list[str]) -> ConfigDict:
    """The checked configuration of the arguments, the options of other objectives left out.

    Raises:
        ExperimentError: anything about them is wrong.
    """
    values = options.parse(
        make_parser(), BY_NAME, argv, objective_option="objective", objective_aliases=OBJECTIVE_ALIASES
    )
    config = ConfigDict(_resolve(values))
    _check_combinations(config)
    return config


def _resolve(values: dict[str, Any]) -> dict[str, Any]:
    """Fill in the defaults that depend on other options or on the machine, and name the environment."""
    if values["backward_learning_rate"] is None:
        values["backward_learning_rate"] = values["learning_rate"]
    if values["backward_head_only"] is None:
        values["backward_head_only"] = values["objective"] == "tb"
    if values.get("m_alpha", 0.0) is None:
        values["m_alpha"] = 0.15 if values["objective"] == "munchausen_dqn" else 0.0
    if values["device"] is None:
        values["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    if values["kernels"] == "auto":
        values["kernels"] = "compiled" if _can_be_compiled(values["device"], values["n_heads"]) else "torch"
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
        raise ExperimentError(f"--M_size is {config.M_size}: strings of {n} bits have at most {n_modes} modes")
    if config.mode_threshold > n:
        raise ExperimentError(f"--mode_threshold is {config.mode_threshold}: it must be at most --n, {n}")
    if config.width % config.n_heads:
        raise ExperimentError(f"--width is {config.width}: it must be a multiple of --n_heads, {config.n_heads}")
    if config.objective == "soft_dqn" and config.m_alpha != 0:
        raise ExperimentError(
            f"--m_alpha is {config.m_alpha}: soft_dqn is m_alpha 0, take --objective munchausen_dqn for another"
        )
    has_target = config.correlation_network == "target" or config.backward_approach in TARGETED
    if not has_target and config.get("target_decay", None) not in (None, BY_NAME["target_decay"].default):
        raise ExperimentError(
            "--target_decay has no effect with --correlation_network online and --backward_approach "
            f"{config.backward_approach}: leave it out"
        )
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
    folder = options.folder_name([config.objective, config.backward_approach, *differing.values()])
    return Path(config.output_dir) / "bitseq" / options.folder_name(environment) / folder / f"seed={config.seed}"
