"""The settings' models: the command line and the help that are made from them, and one sentence for what is wrong."""

import re
from typing import Literal, get_args

import pytest
from each import each

import bitseq.settings
import hypergrid.settings
from hypergrid.common import options
from hypergrid.common.options import Group, extra, option
from hypergrid.common.terminal import ExperimentError
from hypergrid.run_hypergrid_exp import main as hypergrid_main
from mols.tasks import qm9, seh_frag

MODELS = {
    "bitseq": (bitseq.settings.Settings, lambda argv: bitseq.settings.parse(argv)),
    "seh_frag": (seh_frag.Settings, seh_frag.main),
    "qm9": (qm9.Settings, qm9.main),
}


class Learning(Group):
    """Learning"""

    objective: Literal["tb", "dqn"] = option("tb", "loss")
    backward_approach: Literal["uniform", "tlm"] = option("tlm", "what trains P_B")
    rate: float = option(1e-3, "Adam", gt=0, aliases=["lr"], paper="1e-3, 2e-3")
    shared: bool = option(True, "share 100% of the trunk")


class Replay(Group):
    """Replay"""

    batch: int = option(8, "transitions", ge=1, le=1e3, objectives=["dqn"])
    decay: float = option(None, "factor", gt=0, le=1, approaches=["tlm"], shown="rate's")
    folder: str = option("", "where", free=True)


class Settings(Learning, Replay):
    """Of two groups."""


def parse(*argv: str) -> dict:
    return options.parse(Settings, list(argv), "program", "A description.", "objective")


def test_defaults_come_group_by_group_without_the_settings_of_other_objectives():
    expected = {
        "objective": "tb",
        "backward_approach": "tlm",
        "rate": 1e-3,
        "shared": True,
        "decay": None,
        "folder": "",
    }
    assert list(parse().items()) == list(expected.items())
    assert parse("--objective", "dqn")["batch"] == 8


def test_every_spelling_of_a_value():
    for argv in (["--rate", "0.5"], ["--rate=0.5"], ["--lr=0.5"], ["--lr", ".5"]):
        assert parse(*argv)["rate"] == 0.5
    for argv in (["--shared=false"], ["--shared", "False"], ["--no-shared"], ["--no_shared"], ["--noshared"]):
        assert parse(*argv)["shared"] is False
    assert parse("--shared")["shared"] is True
    assert parse("--objective=dqn", "--batch", "3")["batch"] == 3


@each(
    "argv,sentence",
    [
        (["--rate=0"], "--rate is '0': input should be greater than 0"),
        (["--rate=nan"], "--rate is 'nan': input should be a finite number"),
        (["--rate=x"], "--rate is 'x': input should be a valid number"),
        (["--rat=1"], "unknown argument --rat=1: did you mean --rate?"),
        (["stray"], "unknown argument stray: see --help"),
        (["--rate"], "expected one argument"),
        (["--objective=ppo"], "--objective is 'ppo': input should be 'tb' or 'dqn'"),
        (["--batch=3"], "--batch has no effect with --objective tb: leave it out"),
        (["--objective=dqn", "--batch=0"], "--batch is '0': input should be greater than or equal to 1"),
        (["--backward_approach=uniform", "--decay=1"], "--decay has no effect with --backward_approach uniform"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(argv, sentence):
    with pytest.raises(ExperimentError, match=re.escape(sentence)) as error:
        parse(*argv)
    assert "\n" not in str(error.value)


def test_a_folders_name_tells_what_differs():
    config, standard = parse("--rate=0.5", "--folder=there"), parse()
    assert options.differing(Settings, config, standard) == {"rate": "rate=0.5"}
    assert options.free_fields(Settings) == ("folder",)
    long = options.folder_name(["x" * 150, "y" * 150])
    assert len(long) < 255 and long != options.folder_name(["x" * 150, "y" * 149])


def entries_of(out: str) -> dict[str, tuple[str, str]]:
    """Of a help text, title and entry by the option's name."""
    parts = re.split(r"^(\w.*):\n", out, flags=re.MULTILINE)[1:]
    return {
        re.match(r" *--([\w.]+)", entry)[1]: (title, " ".join(entry.split()))
        for title, group in zip(parts[::2], parts[1::2], strict=True)
        for entry in re.split(r"\n(?=  -)", group.rstrip())
        if title != "options"  # argparse's own
    }


def check_entry(entry: str, name: str, field) -> None:
    of = extra(field)
    having = [*of["objectives"], *of["approaches"]]
    default = of["shown"] or ("off" if field.default == "" else field.default)
    assert entry.startswith(f"--{name}") and field.description in entry
    assert entry.endswith(f"({default}{'; paper: ' + of['paper'] if of['paper'] else ''})"), entry
    assert all(f", --{alias} " in entry for alias in of["aliases"])
    assert not having or f"[{', '.join(having)}]" in entry
    assert "|".join(get_args(field.annotation)) in entry


@each("name", ["own", *MODELS])
def test_help_has_every_setting_in_its_group_with_default_paper_and_what_has_it(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    model, run = MODELS.get(name, (Settings, lambda argv: parse(*argv)))
    with pytest.raises(SystemExit) as stop:
        run(["--help"])
    out, error = capsys.readouterr()
    assert (stop.value.code, error) == (0, "")
    entries = entries_of(out)
    assert list(entries) == list(options.fields_of(model))
    for group in options.groups_of(model):
        for field in group.model_fields:
            title, entry = entries[field]
            assert title == group.__doc__
            check_entry(entry, field, model.model_fields[field])


def test_help_of_hypergrid_has_every_field_of_every_section(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as stop:
        hypergrid_main(["run", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    entries = entries_of(out)
    for section, model in hypergrid.settings.SECTIONS.items():
        assert f"--{section} FILE[:ARGUMENT]" in out
        for name, field in model.model_fields.items():
            check_entry(entries[f"{section}.{name}"][1], f"{section}.{name}", field)


@each("name", list(MODELS))
def test_help_fits_a_terminal_of_80_columns(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        MODELS[name][1](["--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
