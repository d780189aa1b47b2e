"""A typed model of the settings -> the command line, its help, and the checks.

A suite declares each setting once: a group of settings is a pydantic model, a setting is a field with its type, its
bounds and ``option(default, help, ...)``. An error about a value is one sentence, in pydantic's words.
This file is the same, byte for byte, in every suite.
"""

import argparse
import difflib
import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from .terminal import ExperimentError


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("text", "input should be text")
    return value


def _folder(value: Any) -> str:
    if not _text(value):
        raise PydanticCustomError("folder", "input should be a folder's name")
    return value


# Unlike pydantic's own, these take the odd bytes that a file's name may have.
Text, Folder = Annotated[str, PlainValidator(_text)], Annotated[str, PlainValidator(_folder)]
MAX_NAME = 200  # bytes of a folder's name; file systems take 255


class Group(BaseModel):
    """Settings that belong together; the docstring is their title in the help."""

    model_config = ConfigDict(allow_inf_nan=False, extra="forbid")


def option(
    default: Any,
    description: str,
    *,
    objectives: Iterable[str] = (),
    approaches: Iterable[str] = (),
    aliases: Iterable[str] = (),
    shown: str = "",
    paper: str = "",
    free: bool = False,
    named: bool = True,
    **bounds: Any,
) -> Any:
    """A field of a group.

    Args:
        default: its value; None where it depends on other settings or on the machine.
        description: for the help.
        objectives, approaches: those that it has an effect on; empty: all.
        aliases: other names on the command line.
        shown: how the help calls a default of None.
        paper: the paper's values, where they are others or more than the default.
        free: whether a resumed run may change it: it says where a run is stored, shown and computed, not what.
        named: whether a folder's name tells a difference from the default; never if ``free``.
        bounds: as pydantic has them: ``gt``, ``ge``, ``lt``, ``le``, ``pattern``.
    """
    extra: dict[str, Any] = {
        "objectives": tuple(objectives),
        "approaches": tuple(approaches),
        "aliases": tuple(aliases),
    }
    extra |= {"shown": shown, "paper": paper, "free": free, "named": named and not free}
    return Field(default, description=description, json_schema_extra=extra, **bounds)


def extra(field: FieldInfo) -> Mapping[str, Any]:
    """What ``option`` was told besides default, help and bounds."""
    assert isinstance(field.json_schema_extra, dict)
    return field.json_schema_extra


def groups_of(model: type[Group]) -> tuple[type[Group], ...]:
    """The groups that a model is made of; one that is made of none is its own."""
    return (model,) if model.__bases__ == (Group,) else model.__bases__


def fields_of(model: type[Group]) -> dict[str, FieldInfo]:
    """The fields by their names, group by group."""
    return {name: model.model_fields[name] for group in groups_of(model) for name in group.model_fields}


def free_fields(model: type[Group]) -> tuple[str, ...]:
    """Names of the settings that a resumed run may change."""
    return tuple(name for name, field in model.model_fields.items() if extra(field)["free"])


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence, and which keeps values as text: the model reads them."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            usage=f"{prog} [--OPTION VALUE ...]",
            description=f"{description} Defaults are in parentheses; they are the paper's, unless other values follow.",
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        self.flags: list[str] = []

    def add_model(self, model: type[Group], prefix: str = "") -> None:
        """Add the options of a model, group by group; ``prefix`` begins each of their names."""
        for members in groups_of(model):
            group = self.add_argument_group(members.__doc__)
            for name in members.model_fields:
                self._add(group, name, model.model_fields[name], prefix)

    def _add(self, group: argparse._ArgumentGroup, name: str, field: FieldInfo, prefix: str) -> None:
        names = [prefix + each for each in (name, *extra(field)["aliases"])]
        flags = [f"--{each}" for each in names]
        self.flags += flags
        if field.annotation is bool:
            group.add_argument(*flags, dest=names[0], nargs="?", const="true", metavar="BOOL", help=_help(field))
            off = [f"--no{hyphen}{each}" for each in names for hyphen in ("", "-", "_")]
            group.add_argument(*off, dest=names[0], action="store_const", const="false", help=argparse.SUPPRESS)
        else:
            group.add_argument(*flags, dest=names[0], metavar=_metavar(field), help=_help(field))

    def texts(self, argv: list[str]) -> dict[str, str]:
        """The texts of the options that were given.

        Raises:
            ExperimentError: one is unknown, or lacks its value.
        """
        given, rest = self.parse_known_args(argv)
        if rest:
            unknown = " ".join(rest[0].split())
            close = difflib.get_close_matches(unknown.partition("=")[0], self.flags, 1)
            hint = f"did you mean {close[0]}?" if close else "see --help"
            raise ExperimentError(f"unknown argument {unknown}: {hint}")
        return vars(given)

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse exits here, this raises
        """Say what argparse says, in one sentence."""
        hint = ", and write a value that starts with - as --option=-1" if "expected one argument" in message else ""
        raise ExperimentError(f"{' '.join(message.split())}: see --help{hint}")


def _metavar(field: FieldInfo) -> str:
    choices = get_args(field.annotation)
    return "|".join(choices) if choices else getattr(field.annotation, "__name__", "value").upper()


def _help(field: FieldInfo) -> str:
    of = extra(field)
    only = ", ".join((*of["objectives"], *of["approaches"]))
    default = of["shown"] or (field.default if field.default != "" else "off")
    values = f"{default}; paper: {of['paper']}" if of["paper"] else f"{default}"
    return f"{field.description}{f' [{only}]' if only else ''} ({values})".replace("%", "%%")


def parse(model: type[Group], argv: list[str], prog: str, description: str, objective_option: str) -> dict[str, Any]:
    """The checked values of the arguments, defaults included, the settings of other objectives left out.

    Args:
        model: of the settings.
        argv: the arguments.
        prog, description: for the help.
        objective_option: which of the settings names the objective.

    Raises:
        ExperimentError: anything about them is wrong.
    """
    parser = Parser(prog, description)
    parser.add_model(model)
    texts = parser.texts(argv)
    settings = read(model, texts)
    for kind, by in (("objectives", objective_option), ("approaches", "backward_approach")):
        require_effect(model, texts, kind, by, getattr(settings, by))
    return applicable(settings, getattr(settings, objective_option))


def require_effect(model: type[Group], given: Iterable[str], kind: str, by: str, choice: str, prefix: str = "") -> None:
    """Refuse settings without an effect.

    Args:
        model: of the settings.
        given: their names.
        kind: objectives or approaches.
        by, choice: the setting that names one of these, and its value.
        prefix: begins the names of all of them on the command line.

    Raises:
        ExperimentError: one has no effect.
    """
    for name in given:
        having = extra(model.model_fields[name])[kind]
        if having and choice not in having:
            raise ExperimentError(f"--{prefix}{name} has no effect with --{prefix}{by} {choice}: leave it out")


def require_no_idle(model: type[Group], values: Mapping[str, Any], idle: Mapping[str, str], prefix: str = "") -> None:
    """Refuse a setting that differs from its default where another one leaves it without an effect.

    Args:
        model: of the settings.
        values: of a configuration; settings that it lacks are as they should be.
        idle: names of such settings -> what leaves each without an effect, as it is on the command line.
        prefix: begins the names on the command line.

    Raises:
        ExperimentError: one differs.
    """
    for name, because in idle.items():
        if name in values and values[name] != model.model_fields[name].default:
            raise ExperimentError(f"--{prefix}{name} has no effect with {because}: leave it out")


def read(model: type[Group], texts: Mapping[str, str], prefix: str = "--") -> Group:
    """The model of texts, defaults included.

    Raises:
        ExperimentError: the first that is wrong, what it is, and what it may be.
    """
    try:
        return model.model_validate_strings(texts)
    except ValidationError as error:
        raise ExperimentError(sentence(error, prefix)) from error


def sentence(error: ValidationError, prefix: str) -> str:
    """The first thing that is wrong; ``prefix`` begins the setting's name."""
    first = error.errors()[0]
    message = first["msg"]
    return f"{prefix}{first['loc'][0]} is {first['input']!r}: {message[0].lower()}{message[1:]}"


def applicable(settings: Group, objective: str) -> dict[str, Any]:
    """The settings that an objective has, group by group."""
    return {
        name: getattr(settings, name)
        for name, field in fields_of(type(settings)).items()
        if objective in (extra(field)["objectives"] or [objective])
    }


def differing(model: type[Group], config: Mapping[str, Any], standard: Mapping[str, Any]) -> dict[str, str]:
    """``name=value`` of the settings in ``config`` that a folder's name tells, by their names."""
    return {
        name: f"{name}={config[name]}".replace(":", ".")
        for name, field in fields_of(model).items()
        if name in config and extra(field)["named"] and config[name] != standard.get(name)
    }


def folder_name(parts: Iterable[str]) -> str:
    """Parts joined by hyphens; where that is too long for a file system, a hash replaces the rest."""
    name = "-".join(parts)
    if len(name.encode()) <= MAX_NAME:
        return name
    return f"{name.encode()[:MAX_NAME].decode(errors='ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
