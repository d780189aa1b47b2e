"""From the command line to a checked configuration: one table of options for every molecule task.

A task adds what it alone has, and the defaults in which it differs, to ``OPTIONS`` by ``options_of``.
"""

import argparse
import math
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from ml_collections import ConfigDict

from mols.common import options
from mols.common.backward_loss import APPROACHES
from mols.common.options import (
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
from mols.common.run_folder import IF_EXISTS, ExperimentError

OBJECTIVES = ("tb", "db", "subtb", "dqn", "soft_dqn")
BALANCE, DQN = OBJECTIVES[:3], OBJECTIVES[3:]
# Of the rows of the approaches table: those with a loss of P_B, those whose objective scores its EMA copy, and so on.
OWN_LOSS = tuple(row.name for row in APPROACHES.values() if row.loss is not None)
LEARNED = tuple(row.name for row in APPROACHES.values() if row.policy != "uniform")
AVERAGED = tuple(row.name for row in APPROACHES.values() if row.loss is not None and row.scored in ("fixed", "target"))
DECAYED = tuple(row.name for row in APPROACHES.values() if row.decays_learning_rate)
ANNEALING = ("linear", "exp", "none")
SHARE = (lambda value: 0 < value <= 1), "greater than 0 and at most 1"
AEXP = 0.99
MAX_FRAGMENTS = 32  # logits of all pairs of slots are held at once

# Options that a resumed run may change: where it is stored, found, shown and computed, never what is computed.
FREE_OPTIONS = ("output_dir", "if_exists", "wandb", "tensorboard", "checkpoint_every", "data_dir", "workers")
FREE_OPTIONS += ("device", "threads", "kernels")
FREE_OPTIONS += ("reward_changed", "reward_source")  # which ``run.settle`` looks at
# Options that do not name a run folder by their difference from the default.
UNNAMED_OPTIONS = (*FREE_OPTIONS, "seed", "algo", "backward_approach", "proxy_weights")
# Options of a proxy that mean nothing to a user's own reward.
PROXY_OPTIONS = ("proxy", "proxy_weights", "workers")
# Options that a configuration lacks where they have no say.
OWN_REWARD_OPTIONS = ("reward", "reward_changed", "mode_thresholds")
AUTO = "auto"  # what is at hand decides, see ``run.settle``; of the kernels, the device


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


OWN_THRESHOLDS = "0.7,0.8,0.9"  # of a reward that, like qed, lies between 0 and 1
THRESHOLDS = (
    lambda text: text == "" or bool(thresholds_of(text)),
    "three rising numbers of at most six digits, as in 0.7,0.8,0.9",
)

Groups = dict[str, tuple[Option, ...]]

OPTIONS: Groups = {
    "experiment": (
        Option("algo", str, "tb", one_of(*OBJECTIVES), "loss of P_F; dqn is MunchausenDQN"),
        Option("backward_approach", str, "tlm", one_of(*APPROACHES),
               "P_B: fixed (uniform), trained by P_F's objective (naive), by a learned number of "
               "histories (maxent), by the likelihood of the current (tlm) or of recent batches (pessimistic)"),
        Option("seed", int, 1, SEED, "splits into streams for initialisation, sampling, replay, evaluation"),
        Option("n", int, 20_000, at_least(1), "iterations: gradient steps"),
        Option("batch_size", int, 256, within(1, 1e5), "trajectories per step"),
    ),
    "reward": (
        Option("temp", float, 10.0, within(1e-6, 1e3), "reward exponent: log R = this * log r"),
        Option("proxy", str, AUTO, one_of(AUTO, "original", "surrogate"),
               "network that r comes from: the published one, this package's own, or the first of them at hand"),
        Option("data_dir", str, "", ANY, "folder of its weights; empty: GFLOWNET_TLM_DATA, the cache, a download"),
        Option("workers", int, 0, NOT_NEGATIVE, "processes that prepare molecules for it; 0: none besides this one"),
        Option("reward", str, "", ANY,
               "instead of a proxy a function of your own, package.module:function, or the built-in qed"),
        Option("reward_changed", bool, False, ANY, "resume although the source of this function has changed"),
        Option("mode_thresholds", str, "", THRESHOLDS,
               "the three rewards r from which on a molecule may be a mode; empty: the task's, of an own reward "
               f"{OWN_THRESHOLDS}"),
    ),
    "molecules": (
        Option("max_fragments", int, 8, within(1, MAX_FRAGMENTS), "fragments of a molecule"),
        Option("rp", float, 0.05, within(0, 1), "share of uniformly random actions in training, at first"),
        Option("ap", str, "linear", one_of(*ANNEALING),
               "how it falls: to 0 at the last step, by exp to a share of it, not at all"),
        Option("aexp", float, None, SHARE, "that share, left at the last step"),
    ),
    "policies": (
        Option("width", int, 128, within(1, 1e4), "features of a node"),
        Option("n_layers", int, 8, within(1, 1e3), "graph transformer layers"),
        Option("n_heads", int, 2, within(1, 1e3), "attention heads, each as wide as a node"),
    ),
    "learning": (
        Option("lr", float, 5e-4, POSITIVE, "Adam of P_F, and of naive's P_B"),
        Option("lrd", float, 20_000.0, POSITIVE, "steps in which it halves"),
        Option("log_z_lr", float, 1e-3, POSITIVE, "Adam of log Z", ("tb",)),
        Option("log_z_lrd", float, 50_000.0, POSITIVE, "steps in which it halves", ("tb",)),
        Option("weight_decay", float, 1e-8, NOT_NEGATIVE, "of both optimisers"),
        Option("gradient_clipping", float, 10.0, NOT_NEGATIVE, "largest norm of a gradient; 0: off"),
        Option("target_decay", float, 0.95, FRACTION,
               "weight of the old parameters in the EMA model, which samples and is P_B's target"),
        Option("no_sampling_model", bool, False, ANY,
               "sample from the online model, not from the EMA model, and measure it"),
        Option("subtb_lambda", float, 1.0, POSITIVE, "weight per transition of a sub-trajectory's length", ("subtb",)),
    ),
    "backward policy": (
        Option("blr", float, None, POSITIVE, "Adam of P_B's own loss", approaches=OWN_LOSS),
        Option("blrd", float, 20_000.0, POSITIVE, "steps in which it halves", approaches=DECAYED),
        Option("rand_pb_init", bool, False, ANY, "start a learned P_B at random, not uniform", approaches=LEARNED),
    ),
    "DQN objectives": (
        Option("m_alpha", float, None, FRACTION, "Munchausen coefficient", DQN),
        Option("m_l0", float, -500.0, NEGATIVE,
               "floor of c log pi, nats; write --m_l0=-500", DQN),
        Option("leaf_coeff", float, 10.0, POSITIVE, "weight of stops", DQN),
        Option("not_dueling", bool, False, ANY, "Q from one head, instead of V + c log pi", DQN),
        Option("q_target_decay", float, 0.9, FRACTION, "weight of the old parameters in the target of Q", DQN),
    ),
    "evaluation": (
        Option("validate_every", int, 100, at_least(1), "steps between rows of metrics.csv"),
        Option("corr_every", int, 5_000, NOT_NEGATIVE, "steps between reward correlations, minutes each; 0: never"),
        Option("corr_rounds", int, 10, within(1, 1e6), "backward trajectories per molecule"),
        Option("corr_molecules", int, 0, NOT_NEGATIVE, "molecules of the test set, from its beginning; 0: all"),
        Option("test_set", str, AUTO, one_of(AUTO, "original", "generated"),
               "published molecules, random ones, or the first of them at hand"),
    ),
    "run": (
        Option("device", str, None, one_of("cpu", "cuda"), "where the policies run"),
        Option("threads", int, None, within(1, 1024), "of torch; where runs share a machine, one each is faster"),
        Option("kernels", str, AUTO, one_of(AUTO, "torch", "compiled"),
               "layers of the policies by torch-geometric, or compiled, on a CPU; auto: compiled there, else torch"),
        Option("output_dir", str, "runs", FOLDER, "relative to the current folder"),
        Option("if_exists", str, "refuse", one_of(*IF_EXISTS), "what to do about an existing run folder"),
        Option("checkpoint_every", int, 100, at_least(1), "steps between checkpoints"),
        Option("wandb", str, "", ANY, "project; empty: off. WANDB_MODE=offline works without a network"),
        Option("tensorboard", bool, False, ANY, "event files in the run folder"),
    ),
}  # fmt: skip
RESOLVED = {
    "blr": "a tenth of lr",
    "aexp": f"with --ap exp: {AEXP}",
    "m_alpha": "0.15; soft_dqn: 0",
    "device": "cuda, else cpu",
    "threads": "all cores",
}


def by_name(groups: Groups) -> dict[str, Option]:
    """Options by their names."""
    return {option.name: option for group in groups.values() for option in group}


def options_of(replaced: dict[str, tuple[Option, ...]] | None = None, **defaults: Any) -> Groups:
    """``OPTIONS`` with others in the place of some, or none, and with other defaults."""
    replaced = replaced or {}
    groups = {
        title: [other for option in group for other in replaced.get(option.name, (option,))]
        for title, group in OPTIONS.items()
    }
    return {
        title: tuple(replace(option, default=defaults.get(option.name, option.default)) for option in group)
        for title, group in groups.items()
    }


def parse(argv: list[str], task: str, groups: Groups) -> ConfigDict:
    """The checked configuration of the arguments, the options of other objectives left out.

    Args:
        argv: the arguments.
        task: its name, the module under ``mols.tasks``.
        groups: its options.

    Raises:
        ExperimentError: anything about them is wrong.
    """
    table = by_name(groups)
    values = options.parse(make_parser(task, groups), table, argv, objective_option="algo")
    for name in PROXY_OPTIONS:
        if values["reward"] and name in table and values[name] != table[name].default:
            raise ExperimentError(f"--{name} has no effect with --reward {values['reward']}: leave it out")
    config = ConfigDict(_resolve(values, task))
    _check_combinations(config)
    return config


def make_parser(task: str, groups: Groups) -> argparse.ArgumentParser:
    """The parser of a task's options."""
    description = "Train one objective with one backward approach on molecules."
    return options.make_parser(groups, prog=f"python -m mols.tasks.{task}", description=description, resolved=RESOLVED)


def _resolve(values: dict[str, Any], task: str) -> dict[str, Any]:
    """Fill in the defaults that depend on other options or on the machine, and name the task."""
    if values["blr"] is None:
        values["blr"] = values["lr"] / 10
    if values.get("m_alpha", 0.0) is None:
        values["m_alpha"] = 0.15 if values["algo"] == "dqn" else 0.0
    if values["aexp"] is None:
        values["aexp"] = AEXP if values["ap"] == "exp" else 0.0
    elif values["ap"] != "exp":
        raise ExperimentError(f"--aexp has no effect with --ap {values['ap']}: leave it out, or take --ap exp")
    if values["device"] is None:
        values["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    if values["threads"] is None:
        values["threads"] = os.cpu_count() or 1
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


def _check_combinations(config: ConfigDict) -> None:
    if config.algo == "soft_dqn" and config.m_alpha != 0:
        raise ExperimentError(f"--m_alpha is {config.m_alpha}: soft_dqn is m_alpha 0, take --algo dqn for another")
    approach, decay = config.backward_approach, by_name(OPTIONS)["target_decay"].default
    if config.no_sampling_model and approach not in AVERAGED and config.target_decay != decay:
        raise ExperimentError(
            f"--target_decay has no effect with --no_sampling_model and --backward_approach {approach}: leave it out"
        )
    if config.device == "cuda" and config.kernels == "compiled":
        raise ExperimentError("--kernels is 'compiled', which a GPU cannot run: use auto or torch, or --device cpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ExperimentError("--device is 'cuda', but this machine has no usable GPU: use cpu")


def thresholds(config: ConfigDict, standard: tuple[float, ...]) -> tuple[float, ...]:
    """The rewards r from which on a molecule may be a mode; ``standard`` is the task's."""
    return thresholds_of(config.mode_thresholds) if "mode_thresholds" in config else standard


def run_directory(config: ConfigDict, groups: Groups) -> Path:
    """``<output_dir>/mols/<task>/<objective>-<approach>[-<what differs>]/seed=<k>``."""
    table = by_name(groups)
    standard = _resolve({name: table[name].default for name in table} | {"algo": config.algo}, config.environment)
    standard |= {"blr": config.lr / 10, "aexp": AEXP if config.ap == "exp" else 0.0}
    if "reward" in config:
        standard |= {"proxy": "", "mode_thresholds": OWN_THRESHOLDS}
    differing = [
        f"{name}={config[name]}".replace(":", ".")
        for name in table
        if name in config and name not in UNNAMED_OPTIONS and config[name] != standard.get(name)
    ]
    folder = options.folder_name([config.algo, config.backward_approach, *differing])
    return Path(config.output_dir) / "mols" / config.environment / folder / f"seed={config.seed}"
