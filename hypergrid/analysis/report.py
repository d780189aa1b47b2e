"""The results section of the READMEs, from the committed CSVs of a suite's results folder that suite.py names.

    python -m <suite>.analysis.report [--check]

Rewrites what stands between the suite's two results markers in its README.md and, where it is checked out beside it
and has them too, the repository's. ``--check`` writes nothing and fails if a section is not what the CSVs say.
This file is the same, byte for byte, in every suite.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from ..common.files import write_text
from ..common.terminal import ExperimentError, command
from ..suite import REPORTED, SHOWN
from .tables import read_file, versions_of

SUITE = Path(__file__).resolve().parents[1]
RESULTS = SUITE / "results"
BEGIN, END = f"<!-- results: python -m {SUITE.name}.analysis.report -->", "<!-- end of results -->"


def sources() -> list[Path]:
    """The CSV files that are shown."""
    return sorted(path for pattern in REPORTED for path in RESULTS.glob(pattern))


def table(results: pd.DataFrame) -> str:
    """The last row of every run as a Markdown table."""
    run = ["environment", "objective", "approach", "learning_rate", "seed"]
    last = results.sort_values("step").groupby(run, as_index=False).last()
    last["wall_s"] /= 60
    shown = {column: SHOWN[column] for column in SHOWN if column in last and last[column].notna().any()}
    heads = ["environment", "objective", "P_B", "seed", "trajectories", *(title for title, _ in shown.values())]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for _, row in last.iterrows():
        cells = [row["environment"], row["objective"], row["approach"], f"{row['seed']}", f"{row['trajectories']:,}"]
        cells += [form.format(row[column]) if pd.notna(row[column]) else "" for column, (_, form) in shown.items()]
        lines.append("| " + " | ".join(cells) + " |")
    for name, rows in results.groupby("file"):
        lines += ["", f"`{SUITE.name}/results/{name}`: {versions_of(rows)}."]
    return "\n".join(lines)


def replaced(page: str, section: str, begin: str = BEGIN, end: str = END) -> str:
    """``page`` with ``section`` between the markers. Raises ExperimentError where a marker is missing."""
    head, first, rest = page.partition(begin)
    _, last, tail = rest.partition(end)
    if not first or not last:
        raise ExperimentError(f"the page lacks the markers {begin} and {end}: put them in")
    return f"{head}{begin}\n\n{section}\n\n{end}{tail}"


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {SUITE.name}.analysis.report", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="fail if a README is not what the CSVs say")
    arguments = parser.parse_args(argv)
    stale: list[str] = []
    status = command(lambda: stale.extend(rewritten(write=not arguments.check)))
    if arguments.check and stale:
        print(
            f"error: stale results in {', '.join(stale)}: run python -m {SUITE.name}.analysis.report", file=sys.stderr
        )
        return 1
    return status


def rewritten(write: bool) -> list[str]:
    """The pages whose section is not what the CSV files say; rewritten if told. Raises ExperimentError."""
    found = sources()
    if not found:
        names = " or ".join(REPORTED)
        raise ExperimentError(f"there is no {names} in {RESULTS}: make it by python -m {SUITE.name}.analysis.collect")
    section, stale = table(pd.concat([read_file(path).assign(file=path.name) for path in found])), []
    for page in (SUITE / "README.md", SUITE.parent / "README.md"):
        if not page.exists():
            continue
        old = page.read_text(encoding="utf-8")
        if BEGIN not in old and page.parent != SUITE:
            continue
        new = replaced(old, section)
        if new != old:
            stale.append(str(page.relative_to(SUITE.parent)))
            if write:
                write_text(page, new)
    return stale


if __name__ == "__main__":
    sys.exit(main())
