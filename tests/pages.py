"""The Markdown pages of this repository: their prose, and the commands that they show."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITES = ("hypergrid", "bitseq", "mols")
PAGES = [page for folder in (".github", "", *SUITES) for page in sorted((ROOT / folder).glob("*.md"))]
GENERATED = re.compile(r"<!-- (?:results|published|cells):.*?<!-- end of \w+ -->", re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
HEREDOC = re.compile(r"<<'END'\n.*?^ *END$", re.DOTALL | re.MULTILINE)
SETTING = re.compile(r"([A-Z_]+)=(.*)", re.DOTALL)  # of the environment, before a command
PROGRAM = re.compile(r"(?:[A-Z_]+=(?:\"[^\"]*\"|\S*) )*(?:\.venv/bin/)?([\w-]+)( |$)")

# Programs whose arguments are not checked, and why.
UNCHECKED = {
    "cat": "writes a file that the page shows",
    "export": "the shell's",
    "for": "the shell's: copies folders, or calls a checked command for each suite",
    "mkdir": "the shell's",
    "mypy": "not of the packages that the tests install",
    "pip": "the network",
    "pre-commit": "not of the packages that the tests install",
    "python3": "makes the environment",
    "source": "the shell's: enters the environment",
    "ray": "of a cluster",
    "sbatch": "of a cluster",
    "sed": "adds an option to what a sweep prints",
    "xargs": "runs what a sweep prints",
}


def prose(page: Path, generated: bool = False) -> list[str]:
    """The lines outside code and tables, those that programs write if asked for."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    text = text if generated else GENERATED.sub("", text)
    return [line for line in text.splitlines() if not line.startswith(("    ", "|"))]


def commands(page: Path) -> Iterator[str]:
    """The lines of indented blocks that begin with a command, and the commands in backticks."""
    text = FENCED.sub("", HEREDOC.sub("", page.read_text(encoding="utf-8")))
    for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE):
        lines = [line.strip() for line in block.splitlines()]
        if (first := PROGRAM.match(lines[0])) and first[1] in {"python", "bash", "timeout", *UNCHECKED}:
            yield from lines
    for code in re.findall("`([^`]+)`", re.sub("^    .*\n", "", text, flags=re.MULTILINE)):
        if (first := PROGRAM.match(code)) and first[1] in ("python", "bash", "timeout") and first[2]:
            yield " ".join(code.split())


def programs(command: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Each program of a line, what is set in its environment and its words."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, "|"]:
        if set(word) <= set("|&;>"):
            settings = dict(found.groups() for found in takewhile(bool, map(SETTING.fullmatch, words)))
            yield settings, words[len(settings) :]
            words = ["cat"] if word == ">" else []  # the file that is written
        else:
            words.append(word.removeprefix(".venv/bin/"))
