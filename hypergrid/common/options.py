"""A table of options -> the parser, its help, the checks and the values of a command line.

An option says what it is, what it may be, which objectives have it, and what it is by default; everything else is made
from the table. Values stay text until they are read and checked here, so that whatever is wrong is one sentence.
This file is the same, byte for byte, in every suite that has it.
"""

import argparse
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .run_folder import ExperimentError

Check = tuple[Callable[[Any], bool], str]  # what holds, and how it is said


def at_least(low: float) -> Check:
    """A number from ``low`` on."""
    return (lambda value: low <= value < math.inf), f"at least {low:g}"


def above(low: float) -> Check:
    """A number greater than ``low``."""
    return (lambda value: low < value < math.inf), f"greater than {low:g}"


def within(low: float, high: float) -> Check:
    """A number between two, both included."""
    return (lambda value: low <= value <= high), f"between {low:g} and {high:g}"


def one_of(*choices: str) -> Check:
    """One of a few words."""
    return (lambda value: value in choices), "one of " + ", ".join(choices)


POSITIVE, NOT_NEGATIVE = above(0), at_least(0)
NEGATIVE: Check = (lambda value: -math.inf < value < 0, "less than 0")
SEED: Check = (lambda value: 1 <= value <= 2**32, "between 1 and 2^32")
FRACTION: Check = (lambda value: 0 <= value < 1, "at least 0 and less than 1")
ANY: Check = (lambda value: True, "anything")
FOLDER: Check = (bool, "a folder's name")
KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
SWITCH = {"true": True, "false": False}
MAX_NAME = 200  # bytes of a folder's name; file systems take 255


@dataclass(frozen=True)
class Option:
    """One option of the command line, and one field of the configuration.

    ``objectives`` and ``approaches`` name those that have it, none of them meaning all; ``default`` None is resolved by
    the suite.
    """

    name: str
    kind: type
    default: Any
    check: Check
    help: str
    objectives: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    approaches: tuple[str, ...] = ()

    def read(self, text: Any) -> Any:
        """The value of a text, checked. Raises ExperimentError."""
        try:
            value = SWITCH[text.lower()] if self.kind is bool else self.kind(text)
        except (ValueError, KeyError) as error:
            raise ExperimentError(f"--{self.name} is {text!r}: it must be {KINDS[self.kind]}") from error
        holds, allowed = self.check
        if not holds(value):
            raise ExperimentError(f"--{self.name} is {text!r}: it must be {allowed}")
        return value


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence of ours."""

    def error(self, message: str) -> None:
        hint = ", and write a value that starts with - as --option=-1" if "expected one argument" in message else ""
        raise ExperimentError(f"{' '.join(message.split())}: see --help{hint}")


def make_parser(
    groups: Mapping[str, tuple[Option, ...]], *, prog: str, description: str, resolved: Mapping[str, str]
) -> argparse.ArgumentParser:
    """The parser of a table, group by group.

    Args:
        groups: options by the title of their group.
        prog, description: for the help.
        resolved: how the help calls a default that depends on other options or on the machine.
    """
    parser = _Parser(prog=prog, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for title, options in groups.items():
        group = parser.add_argument_group(title)
        for option in options:
            default = resolved.get(option.name, option.default)
            only = ", ".join((*option.objectives, *option.approaches))
            note = f" [{only}]" if only else ""
            text = f"{option.help}{note} ({default if default != '' else 'off'})"
            names = (option.name, *option.aliases)
            flags = [f"--{name}" for name in names]
            if option.kind is bool:
                group.add_argument(*flags, dest=option.name, nargs="?", const="true", metavar="true|false", help=text)
                off = [f"--no{hyphen}{name}" for name in names for hyphen in "-_"]
                group.add_argument(*off, dest=option.name, action="store_const", const="false", help=argparse.SUPPRESS)
            else:
                allowed = option.check[1].removeprefix("one of ").replace(", ", "|")
                metavar = allowed if option.check[1].startswith("one of ") else option.kind.__name__.upper()
                group.add_argument(*flags, dest=option.name, metavar=metavar, help=text)
    return parser


def parse(
    parser: argparse.ArgumentParser,
    options: Mapping[str, Option],
    argv: list[str],
    *,
    objective_option: str,
    objective_aliases: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The checked values of the arguments, defaults included, the options of other objectives left out.

    Args:
        parser: of the options.
        options: by their names.
        argv: the arguments.
        objective_option: which of the options names the objective.
        objective_aliases: other names of objectives.

    Raises:
        ExperimentError: anything about them is wrong.
    """
    given = {name: options[name].read(value) for name, value in vars(parser.parse_args(argv)).items()}
    objective = given.get(objective_option, options[objective_option].default)
    objective = (objective_aliases or {}).get(objective, objective)
    approach = given.get("backward_approach", options["backward_approach"].default)
    has = {name: not option.objectives or objective in option.objectives for name, option in options.items()}
    for name in given:
        if not has[name]:
            raise ExperimentError(f"--{name} has no effect with --{objective_option} {objective}: leave it out")
        if options[name].approaches and approach not in options[name].approaches:
            raise ExperimentError(f"--{name} has no effect with --backward_approach {approach}: leave it out")
    defaults = {name: option.default for name, option in options.items() if has[name]}
    return defaults | given | {objective_option: objective}


def folder_name(parts: Iterable[str]) -> str:
    """Parts joined by hyphens; where that is too long for a file system, a hash stands for the rest."""
    name = "-".join(parts)
    if len(name.encode()) <= MAX_NAME:
        return name
    return f"{name.encode()[:MAX_NAME].decode(errors='ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
