"""From the command line to a checked configuration: every field is parsed and checked before anything starts.

    --general FILE[:SEED] --env FILE[:NAME] --algo FILE[:NAME] [--SECTION.FIELD VALUE ...]

Each FILE defines ``get_config(argument) -> ConfigDict``. absl and ml_collections do the parsing; what they answer
with a traceback, or swallow, is answered here with one sentence.
"""

import difflib
import importlib.util
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from hypergrid.common.backward_loss import APPROACHES
from hypergrid.common.run_folder import IF_EXISTS
from hypergrid.common.terminal import ExperimentError
from hypergrid.experiments.config import algo as shipped_algo
from hypergrid.experiments.config import general as shipped_general
from hypergrid.experiments.config import hypergrid as shipped_environment

SECTIONS = ("general", "env", "algo")
MAX_STATES = 20_000_000  # the true distribution is held in memory

# Fields that a resumed run may change: where it is stored, shown and computed, never what is computed.
FREE_FIELDS = (
    "output_dir",
    "if_exists",
    "wandb_project",
    "tensorboard",
    "checkpoint_interval",
    "device",
    "threads",
    "kernels",
)
# Fields that do not name a run folder: the seed has a level of its own.
UNNAMED_FIELDS = (*FREE_FIELDS, "seed", "name", "backward_approach")

Check = tuple[Callable[[Any], bool], str]


def _at_least(low: float) -> Check:
    return (lambda value: math.isfinite(value) and value >= low), f"at least {low:g}"


def _above(low: float) -> Check:
    return (lambda value: math.isfinite(value) and value > low), f"greater than {low:g}"


def _within(low: float, high: float) -> Check:
    return (lambda value: low <= value <= high), f"between {low:g} and {high:g}"


def _one_of(*options: str) -> Check:
    return (lambda value: value in options), "one of " + ", ".join(options)


CHECKS: dict[str, Check] = {
    "general.seed": _at_least(1),
    "general.device": _one_of("cpu", "cuda"),
    "general.threads": _at_least(1),
    "general.kernels": _one_of("auto", "torch", "compiled"),
    "general.n_trajectories": _at_least(1),
    "general.n_envs": _within(1, 1e6),
    "general.validation_interval": _at_least(1),
    "general.validation_samples": _within(1, 1e9),
    "general.exact_interval": _at_least(0),
    "general.checkpoint_interval": _at_least(1),
    "general.output_dir": (bool, "a folder's name"),
    "general.if_exists": _one_of(*IF_EXISTS),
    "general.wandb_project": (lambda value: True, "text"),
    "general.tensorboard": (lambda value: True, "true or false"),
    "env.name": (lambda value: re.fullmatch(r"\w+", value) is not None, "a name of letters, digits and _"),
    "env.ndim": _at_least(1),
    "env.height": _at_least(3),
    "env.R0": _above(0),
    "env.R1": _at_least(0),
    "env.R2": _at_least(0),
    "algo.name": _one_of(*shipped_algo.LEARNING, *shipped_algo.REFERENCES),
    "algo.backward_approach": _one_of(*APPROACHES),
    "algo.learning_rate": _above(0),
    "algo.log_z_learning_rate": _above(0),
    "algo.backward_learning_rate": _above(0),
    "algo.backward_learning_rate_decay": (lambda value: 0 < value <= 1, "greater than 0 and at most 1"),
    "algo.target_decay": (lambda value: 0 <= value < 1, "at least 0 and less than 1"),
    "algo.zero_initialisation": (lambda value: True, "true or false"),
    "algo.tied_trunk": (lambda value: True, "true or false"),
    "algo.update_order": _one_of("backward_first", "forward_first"),
    "algo.gradient_clipping": _at_least(0),
    "algo.hidden_width": _within(1, 1e5),
    "algo.hidden_layers": _at_least(1),
    "algo.subtb_lambda": _above(0),
    "algo.huber_delta": _above(0),
    "algo.start_learning": _at_least(0),
    "algo.replay_capacity": _within(1, 1e9),
    "algo.replay_batch_size": _within(1, 1e7),
    "algo.replay_priority_exponent": _within(0, 1),
    "algo.replay_importance_exponent": _within(0, 1),
    "algo.m_alpha": (lambda value: 0 <= value < 1, "at least 0 and less than 1"),
    "algo.m_l0": (lambda value: value < 0, "less than 0"),
}

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
# What each field holds, read off the shipped defaults.
TYPES: dict[str, type] = {
    f"{section}.{field}": type(value)
    for section, shipped in (
        ("general", [shipped_general.get_config()]),
        ("env", [shipped_environment.get_config()]),
        ("algo", [shipped_algo.get_config(name) for name in shipped_algo.LEARNING]),
    )
    for fields in shipped
    for field, value in fields.items()
}


def parse(argv: list[str]) -> ConfigDict:
    """The checked configuration of a command line, program name first, with sections general, env and algo.

    Raises:
        ExperimentError: anything about it is wrong.
    """
    files, argv = _files_of(argv)
    defaults = {section: _load(section, files.get(section)) for section in SECTIONS}
    _require_known_fields(argv, defaults)
    values = flags.FlagValues()
    for section in SECTIONS:
        config_flags.DEFINE_config_dict(section, defaults[section], flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)[1:]
    except flags.Error as error:
        raise ExperimentError(_explain(str(error).splitlines()[0], defaults)) from error
    if rest:
        raise ExperimentError(
            f"unexpected argument {rest[0]!r}: write --section.field=value; true and false need the '='"
        )
    config = ConfigDict({section: getattr(values, section) for section in SECTIONS})
    check(config)
    return config


def check(config: ConfigDict) -> None:
    """Check every field, and the combinations that cannot work; NumPy's numbers become plain ones.

    Raises:
        ExperimentError: names the field, its value and what it may be.
    """
    _require_complete(config)
    for section in SECTIONS:
        _make_plain(config[section])
        for field, value in config[section].items():
            holds, allowed = CHECKS[f"{section}.{field}"]
            kind = TYPES[f"{section}.{field}"]
            # A float may be written as a whole number; a boolean is no number, though Python says so.
            if not (type(value) is kind or (kind is float and type(value) is int)):
                raise ExperimentError(f"{section}.{field} is {value!r}: it must be {KINDS[kind]}")
            if not holds(value):
                raise ExperimentError(f"{section}.{field} is {value!r}: it must be {allowed}")
    if config.env.ndim * math.log(config.env.height) > math.log(MAX_STATES):
        raise ExperimentError(
            f"a grid of {config.env.height}^{config.env.ndim} states is too large to evaluate: "
            f"lower env.ndim or env.height to at most {MAX_STATES:,} states"
        )
    if config.general.device == "cuda":
        import torch  # seconds to import: not before it is needed

        if not torch.cuda.is_available():
            raise ExperimentError("general.device is 'cuda', but this machine has no usable GPU: use cpu")


def run_directory(config: ConfigDict) -> Path:
    """``<output_dir>/hypergrid/<environment>/<objective>-<approach>[-<what differs>]/seed=<k>``."""
    shipped = {
        "general": _shipped("general", str(config.general.seed)),
        "env": _shipped("hypergrid", config.env.name),
        "algo": _shipped("algo", config.algo.name),
    }
    parts = {
        section: [
            f"{field}={value}"
            for field, value in sorted(config[section].items())
            if field not in UNNAMED_FIELDS and value != shipped[section].get(field)
        ]
        for section in SECTIONS
    }
    environment = "-".join([config.env.name, *parts["env"]])
    algorithm = [config.algo.name, config.algo.get("backward_approach"), *parts["algo"], *parts["general"]]
    folder = "-".join(part for part in algorithm if part)
    return Path(config.general.output_dir) / "hypergrid" / environment / folder / f"seed={config.general.seed}"


def _files_of(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """What the flags of the sections name, and the other arguments."""
    files, rest, words = {}, [], iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if re.fullmatch(f"--?({'|'.join(SECTIONS)})", flag):
            files[flag.lstrip("-")] = value if equals else next(words, "")
        else:
            rest.append(word)
    return files, rest


def _load(section: str, given: str | None) -> ConfigDict:
    """The configuration of a file and its argument, unchanged by overrides."""
    if not given:
        raise ExperimentError(f"--{section} is missing: add --{section} experiments/config/FILE.py:ARGUMENT")
    path, _, argument = given.partition(":")
    if not Path(path).is_file():
        raise ExperimentError(f"--{section}: there is no configuration file {path}; paths start at the current folder")
    spec = importlib.util.spec_from_file_location(f"{section}_config", path)
    if spec is None:
        raise ExperimentError(f"--{section}: {path} is not a Python file")
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
    _make_plain(fields)
    return fields


def _make_plain(fields: ConfigDict) -> None:
    with fields.unlocked(), fields.ignore_type():
        for field, value in fields.items():
            if isinstance(value, np.generic):
                fields[field] = value.item()


def _require_known_fields(argv: list[str], defaults: dict[str, ConfigDict]) -> None:
    for argument in argv[1:]:
        name = argument.lstrip("-").partition("=")[0]
        section, dot, field = name.partition(".")
        if not argument.startswith("-") or not dot or section.removeprefix("no") not in SECTIONS:
            continue
        known = list(defaults[section.removeprefix("no")].keys())
        if field not in known:
            close = difflib.get_close_matches(field, known, 1)
            hint = f"did you mean {close[0]}?" if close else "it has " + ", ".join(known)
            raise ExperimentError(f"{section} has no field {field!r} here: {hint}")


def _explain(message: str, defaults: dict[str, ConfigDict]) -> str:
    """absl's message on a value of the wrong type, in this file's words; any other message as it is."""
    found = re.match(r"flag --(\w+)\.(\w+)=(.*?): ", message)
    if not found:
        return message
    section, field, value = found.groups()
    return f"{section}.{field} is {value!r}: it must be {KINDS[type(defaults[section][field])]}"


def _require_complete(config: ConfigDict) -> None:
    name = config.algo.get("name")
    required = {key for key in CHECKS if not key.startswith("algo.")} | {"algo.name"}
    if name in shipped_algo.LEARNING + shipped_algo.REFERENCES:
        required |= {f"algo.{field}" for field in shipped_algo.get_config(name)}
    present = {f"{section}.{field}" for section in SECTIONS for field in config[section]}
    if required - present:
        raise ExperimentError(f"{min(required - present)} is missing from its configuration file: add it")
    if present - required and name in shipped_algo.LEARNING + shipped_algo.REFERENCES:
        raise ExperimentError(f"{min(present - required)} has no effect on {name!r}: remove it, or take algo.py:{name}")


def _shipped(file: str, argument: str) -> dict[str, Any]:
    """The shipped defaults to name a folder's differences against; none for an environment of the user's own."""
    module = importlib.import_module(f"hypergrid.experiments.config.{file}")
    try:
        return module.get_config(argument).to_dict()
    except ValueError:
        return {}
