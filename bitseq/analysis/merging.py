"""A collected CSV and the configurations beside it: what they hold, and how new runs join them.

Cells stay as they were written: a table of runs holds text. This file is the same, byte for byte, in every suite.
"""

import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..common.terminal import ExperimentError
from ..suite import IDENTITY
from .tables import INCIDENTAL, read_cells

PROVENANCE = ("results_version", "git_hash")  # the last columns; runs of an objective share the first
# Where and how a run was stored and computed: no part of the experiment.
STORAGE = (
    "output_dir",
    "if_exists",
    "wandb_project",
    "wandb",
    "tensorboard",
    "checkpoint_interval",
    "checkpoint_every",
    "data_dir",
    "workers",
    "device",
    "threads",
    "kernels",
)


def merge_runs(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables; of a run that several of them have, those of the first.

    Raises ExperimentError where a run has other numbers in another table; how long it took does not matter.
    """
    rows = pd.concat(tables, keys=range(len(tables))).fillna("")
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


def pack_configs(configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Configurations but for seed and storage, each once: what all have in common, and the rest of each."""
    left_out = IDENTITY["seed"]
    kept = [{k: v for k, v in c.items() if k != left_out and k.split(".")[-1] not in STORAGE} for c in configs]
    common = {key: value for key, value in kept[0].items() if all(key in c and c[key] == value for c in kept)}
    rest = [{key: value for key, value in c.items() if key not in common} for c in kept]
    return {"common": common, "runs": [c for i, c in enumerate(rest) if c not in rest[:i]]}


def sidecar_of(out: Path) -> Path:
    """Where the configurations of the runs of a CSV stand."""
    return out.with_suffix(".configs.json")


def read_configs(out: Path, varying: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The configurations of the runs of ``out``, and the fields that vary in it.

    Raises ExperimentError where they are not there, or ``varying`` names other fields.
    """
    try:
        packed = json.loads(sidecar_of(out).read_text(encoding="utf-8"))
        configs, before = [packed["common"] | rest for rest in packed["runs"]], packed["varying"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExperimentError(
            f"{sidecar_of(out)}, which this needs, is not there or damaged: name another CSV, or collect it anew"
        ) from error
    if varying and set(varying) != set(before):
        raise ExperimentError(f"{out} was collected with --varying {' '.join(before)}: name the same fields, or none")
    return configs, before
