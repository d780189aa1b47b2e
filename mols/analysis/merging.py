"""The rows of a collected CSV, and how those of new runs join them.

A table of runs holds text. Cells stay as they were written, but measured numbers are kept to 7 significant digits.
This file is the same, byte for byte, in every suite.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..common.terminal import ExperimentError
from ..suite import IDENTITY
from .tables import INCIDENTAL, STRETCHES, read_cells

DIGITS = 7  # of a measured number: single precision has no more
PROVENANCE = ("results_version", "git_hash")  # the last columns; runs of an objective share the first


def merge_runs(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables; of a run that several of them have, those of the first.

    Raises ExperimentError where a run has other numbers in another table; how long it took does not matter.
    """
    rows = _shorten(pd.concat(tables, keys=range(len(tables))).fillna(""))
    names, number = name_runs(rows), pd.Series(rows.index.get_level_values(0), rows.index)
    seen: dict[Hashable, pd.DataFrame] = {}
    compared = rows.drop(columns=[*INCIDENTAL], errors="ignore")
    for (name, _), run in compared.groupby([names, number], sort=False):
        if name in seen and not np.array_equal(seen[name].map(plain), run.map(plain)):
            shown = str(name).partition(", ")[2]
            raise ExperimentError(f"the run {shown} is there twice, with different numbers: leave one out")
        seen.setdefault(name, run)
    measured = [column for column in rows if column not in PROVENANCE]
    first = number == number.groupby(names).transform("min")
    return rows.loc[first, [*measured, *PROVENANCE]].reset_index(drop=True)


def _shorten(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with what was measured, which is what stands behind the step, to 7 significant digits."""
    measured = rows.columns[rows.columns.get_loc("step") :].difference([*PROVENANCE, STRETCHES])
    return rows.assign(**rows[measured].map(_significant))


def _significant(text: str) -> str:
    """A number to 7 significant digits; a whole one and what is no number as it stands."""
    try:
        return text if text.isdecimal() else f"{float(text):.{DIGITS}g}"
    except ValueError:
        return text


def name_runs(rows: pd.DataFrame) -> pd.Series:
    """The run of each row: suite, environment and so on up to the seed, and what else stands before the step."""
    identity = rows.iloc[:, : rows.columns.get_loc("step")].map(plain)
    return pd.Series([", ".join(cells) for cells in identity.itertuples(index=False)], rows.index, dtype=str)


def plain(text: str) -> str:
    """A number as Python writes it: a spreadsheet may have made 1E-03 of 0.001."""
    try:
        return repr(float(text)).removesuffix(".0")
    except ValueError:
        return text


def require_one_version(rows: pd.DataFrame) -> None:
    """Refuse runs of one objective that have different results versions. Raises ExperimentError, which names them."""
    for objective, found in rows.groupby("objective")["results_version"].unique().items():
        if len(found) > 1:
            versions = ", ".join(sorted(found))
            raise ExperimentError(f"the runs of {objective} have the results versions {versions}: collect them apart")


def read_collected(out: Path) -> pd.DataFrame:
    """The rows of a collected CSV; none where there is no file. Raises ExperimentError where it is something else."""
    required = ["suite", *IDENTITY, "step", "trajectories", *PROVENANCE]
    if not out.exists():
        return pd.DataFrame(columns=required, dtype=str)
    rows = read_cells(out, lambda names: ("step", "trajectories"))
    if not set(required) <= set(rows):
        raise ExperimentError(f"{out} is not a collected CSV: name another --out")
    return rows
