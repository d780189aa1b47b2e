"""The pages: links lead somewhere, lines and pages are short, and the commands that are shown would be accepted."""

import argparse
import contextlib
import importlib
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from each import each
from pages import FENCED, PAGES, ROOT, SUITES, UNCHECKED, commands, programs, prose

MAX_LINE, MAX_WORDS = 120, 1200


def anchors(page: Path) -> set[str]:
    """Those of the headings, as GitHub makes them."""
    titles = [line.lstrip("#").strip().lower() for line in prose(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@each("page", PAGES)
def test_links_inside_the_repository_lead_somewhere(page):
    text = re.sub("`[^`]*`", "", FENCED.sub("", page.read_text(encoding="utf-8")))  # a SMILES may look like a link
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert target.startswith("https://") or there.exists(), target
        assert not anchor or anchor in anchors(there), target


@each("page", PAGES)
def test_lines_and_pages_are_short(page):
    assert [line for line in prose(page, generated=True) if len(line) > MAX_LINE] == []
    assert page.name == "NOTES.md" or sum(len(line.split()) for line in prose(page)) <= MAX_WORDS


class Accepted(BaseException):
    """A program has accepted its arguments; what follows would be work."""


@pytest.fixture(autouse=True)
def _no_work(monkeypatch):
    parse_args = argparse.ArgumentParser.parse_args

    def accept(self, *args, **kwargs):
        parse_args(self, *args, **kwargs)
        raise Accepted

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", accept)


def check(command: str, page: Path) -> None:
    """Raises unless every program of the line would accept its arguments."""
    for settings, words in programs(command):
        program, *arguments = words[4:] if words[0] == "timeout" else words  # timeout -s INT SECONDS
        if program == "bash" and "/sweeps/" in arguments[0]:
            subprocess.run(words, cwd=ROOT, env=os.environ | settings, capture_output=True, check=True)
        elif program == "bash":
            assert (ROOT / arguments[0]).is_file()
        elif program == "python" and arguments[0] == "-c":
            compile(arguments[1], "-c", "exec")
        elif program == "python" and arguments[0] == "-m":
            for suite in SUITES if "<suite>" in arguments[1] else [""]:
                check_module(arguments[1].replace("<suite>", suite), arguments[2:])
        elif program == "python":
            check_script(*arguments, folder=page.parent if (page.parent / arguments[0]).is_file() else ROOT)
        else:
            assert program in UNCHECKED, program
        if program in ("export", "for"):
            return  # which the rest of the line belongs to


def check_module(name: str, arguments: list[str]) -> None:
    """``python -m NAME``: by the settings of a task, or by the module's own parser and help."""
    module = importlib.import_module(name)
    if name in ("mols.tasks.seh_frag", "mols.tasks.qm9"):
        parse(lambda: importlib.import_module("mols.settings").parse(arguments, module.Settings))
        return
    with pytest.raises(Accepted):
        module.main(arguments)
    with pytest.raises(SystemExit, match="0"):
        module.main(["--help"])


def check_script(script: str, *arguments: str, folder: Path) -> None:
    """``python SCRIPT`` in a folder: an entry script by its suite's settings."""
    assert (folder / script).is_file()
    with contextlib.chdir(folder):  # configuration files are read
        if script.endswith("run_hypergrid_exp.py"):
            parse(lambda: importlib.import_module("hypergrid.settings").parse([script, *arguments]))
        elif script.endswith("run.py"):
            parse(lambda: importlib.import_module("bitseq.settings").parse(list(arguments)))


def parse(arguments: Callable[[], object]) -> None:
    """Read the arguments of a run; --help ends with 0."""
    try:
        arguments()
    except SystemExit as end:
        assert end.code == 0


@each("page", [page for page in PAGES if page.name != "CHANGELOG.md"])  # which names commands of before
def test_commands_are_accepted(page):
    for command in commands(page):
        try:
            check(command, page)
        except BaseException as error:
            error.add_note(f"of {command}")
            raise


def test_enough_commands_are_found():
    found = {page: len(list(commands(page))) for page in PAGES}
    assert sum(found.values()) > 100 and found[ROOT / "README.md"] > 5, found


@each(
    "command",
    [
        "python -m hypergrid.analysis.collect runs --aut x.csv",
        "python -m hypergrid.analysis.colect runs",
        "python bitseq/run.py --objective tlm",
        "python bitseq/walk.py",
        "bash hypergrid/sweeps/figure9.sh",
        "SCALE=x bash hypergrid/sweeps/figure1.sh",
        "bash hypergrid/sweeps/figure1.sh | python -m hypergrid.analysis.launch --cores 1",
        "python -m mols.tasks.seh_frag --algo db --log_z_lr 1",
        "piip install torch",
    ],
)
def test_a_wrong_command_is_found(command):
    with pytest.raises((Exception, SystemExit, pytest.fail.Exception)):
        check(command, ROOT / "README.md")
