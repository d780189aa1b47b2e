"""The tables of results in the READMEs, from the committed CSVs of a suite's results folder that suite.py names.

    python -m <suite>.analysis.report [--check]

Rewrites what stands between the suite's markers in its README.md and, where it is checked out beside it and has them
too, the repository's: ``results``, the end of every run, and ``cells``, where a page has it, the seeds of each cell
together. ``--check`` writes nothing and fails if a section is not what the CSVs say.
This file is the same, byte for byte, in every suite.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd

from ..common.backward_loss import APPROACHES
from ..common.files import write_text
from ..common.reporting import ALL, Metric
from ..common.terminal import ExperimentError, command
from ..suite import CHOICE, COMPARED, COMPARED_IN, ENVIRONMENTS, REPORTED, SHOWN
from . import tables
from .statistics import interquartile_mean
from .tables import OBJECTIVES, RUN, SUITE, VALUE, describe_versions, markdown_table, new_parser, read_numbers

RESULTS = SUITE / "results"
PAGE_WIDTH = 120  # characters of a line that is not a table
PROGRAM = f"python -m {SUITE.name}.analysis"
BEGIN, END = f"<!-- results: {PROGRAM}.report -->", "<!-- end of results -->"
CELLS = f"<!-- cells: {PROGRAM}.report -->", "<!-- end of cells -->"


def describe_cells(files: Sequence[Path]) -> str:
    """For each number of a run that suite.py compares, a Markdown table of it by cell and approach."""
    table = tables.main_runs(tables.read_results(files))
    chosen = tables.chosen_runs(tables.run_numbers(table, CHOICE), CHOICE, n_tuning=1)[RUN]
    compared = [f"**{title}**\n\n{_compare(table, chosen, *how)}" for title, how in COMPARED.items()]
    return "\n\n".join(compared)


def _compare(table: pd.DataFrame, chosen: pd.DataFrame, metric: Metric, form: str) -> str:
    """Interquartile mean over the seeds, smallest to largest, and in brackets their number."""
    numbers = tables.run_numbers(table.merge(chosen), metric).dropna(subset=VALUE)
    known = numbers.groupby(RUN[:3])[VALUE].agg(list).map(lambda values: _describe_seeds(np.array(values), form))
    ran = chosen.groupby(RUN[:3]).size().index
    approaches = [name for name in APPROACHES if name in set(chosen["approach"])]
    cells = known.reindex(ran, fill_value="not measured").unstack().reindex(columns=approaches).fillna("not run")
    places = [*ENVIRONMENTS, *sorted(set(chosen["environment"]) - {*ENVIRONMENTS})]
    order = sorted(cells.index, key=lambda place: (places.index(place[0]), [*ALL, place[1]].index(place[1])))
    rows = [[name, OBJECTIVES[objective], *cells.loc[(name, objective)]] for name, objective in order]
    cited = [f"{name} [{APPROACHES[name].source}]" for name in approaches]
    return markdown_table(["environment", "objective", *cited], rows)


def _describe_seeds(values: np.ndarray, form: str) -> str:
    spread = f", {form.format(values.min())} to {form.format(values.max())}" if len(values) > 1 else ""
    return f"{form.format(interquartile_mean(values))}{spread} ({len(values)})"


def describe_runs(results: pd.DataFrame) -> str:
    """The last row of every run as a Markdown table, and where the runs of each ``file`` come from."""
    last = results.sort_values("step").groupby(RUN, as_index=False).last()
    last["wall_s"] /= 60
    shown = {column: SHOWN[column] for column in SHOWN if column in last and last[column].notna().any()}
    cells = last[["environment", "objective", "approach"]].assign(seed=last["seed"].map(str))
    cells["trajectories"] = last["trajectories"].map("{:,}".format)
    for column, (_, form) in shown.items():
        cells[column] = last[column].map(form.format, na_action="ignore").fillna("")
    heads = ["environment", "objective", "P_B", "seed", "trajectories", *(title for title, _ in shown.values())]
    origins = [f"`{SUITE.name}/results/{name}`: {describe_versions(rows)}." for name, rows in results.groupby("file")]
    wrapped = [fill(origin, PAGE_WIDTH, break_long_words=False, break_on_hyphens=False) for origin in origins]
    return "\n\n".join([markdown_table(heads, cells.itertuples(index=False)), *wrapped])


def replace_section(page: str, section: str, begin: str = BEGIN, end: str = END) -> str:
    """``page`` with ``section`` between the markers. Raises ExperimentError where a marker is missing."""
    head, first, rest = page.partition(begin)
    _, last, tail = rest.partition(end)
    if not first or not last:
        raise ExperimentError(f"the page lacks the markers {begin} and {end}: put them in")
    return f"{head}{begin}\n\n{section}\n\n{end}{tail}"


def update_pages(check: bool) -> None:
    """Rewrite the pages whose section is not what the CSV files say.

    Raises ExperimentError: there is no CSV, no marker or, where only to ``check``, a stale page.
    """
    found = sorted(path for pattern in REPORTED for path in RESULTS.glob(pattern))
    if not found:
        raise ExperimentError(f"there is no {' or '.join(REPORTED)} in {RESULTS}: make it by {PROGRAM}.collect")
    runs = describe_runs(pd.concat([read_numbers(path).assign(file=path.name) for path in found]))
    stale: dict[Path, str] = {}
    for page in (SUITE / "README.md", SUITE.parent / "README.md"):
        old = page.read_text(encoding="utf-8") if page.exists() else ""
        if page.exists() and (page.parent == SUITE or BEGIN in old):
            new = replace_section(old, runs)
            new = replace_section(new, describe_cells([RESULTS / COMPARED_IN]), *CELLS) if CELLS[0] in old else new
            stale |= {page: new} if new != old else {}
    if check and stale:
        names = ", ".join(str(page.relative_to(SUITE.parent)) for page in stale)
        raise ExperimentError(f"stale results in {names}: run {PROGRAM}.report")
    for page, new in stale.items():
        write_text(page, new)


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = new_parser("report", __doc__)
    parser.add_argument("--check", action="store_true", help="fail if a README is not what the CSVs say")
    check = parser.parse_args(argv).check
    return command(lambda: update_pages(check))


if __name__ == "__main__":
    sys.exit(main())
