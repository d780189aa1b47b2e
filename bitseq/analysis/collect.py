"""Run folders -> one tidy CSV, the only thing that figures, claims and reports read.

    python -m <suite>.analysis.collect RUNS... --out results/<name>.csv [--varying FIELD ...] [--append] [--unfinished]

RUNS are run folders or folders above them. One row per kept evaluation, at most 200 a run, the last always among
them; measured numbers to 7 significant digits. Runs whose configurations differ in anything but environment,
objective, approach, learning rate and seed are refused unless ``--varying`` names the field, which is then a column
behind the seed; so are runs of one objective with different results versions. Runs that are not done are left out
unless ``--unfinished`` takes them. Of a run that went on elsewhere than it started, the column stretches says where:
cpu x1; cuda x1 is one thread on the CPU, then a GPU.

Beside the CSV, <name>.configs.json holds the configurations. With them, ``--append`` adds runs to a CSV whose own run
folders are gone: a run that it has already is not repeated, one that does not belong there is refused. Without
``--append``, a CSV that has runs which are not collected now is not overwritten.
This file is the same, byte for byte, in every suite.
"""

import json
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..common.files import make_folder, written
from ..common.run_folder import flatten
from ..common.terminal import ExperimentError, command
from ..suite import NEWER
from . import merging
from .configs import identity, pack_configs, read_configs, require_comparable, sidecar_of
from .merging import PROVENANCE, name_runs
from .tables import STRETCHES, SUITE, new_parser, read_cells

MAX_POINTS = 200


def find_runs(paths: list[Path], unfinished: bool) -> list[Path]:
    """This suite's run folders at or below the paths, sorted; says which are left out. Raises ExperimentError."""
    found = {path: {config.parent for config in path.rglob("config.json")} for path in paths}
    if empty := [path for path in paths if not found[path]]:
        raise ExperimentError(f"no run folder at or below {empty[0]}: name folders with config.json")
    own = [run for run in sorted(set().union(*found.values())) if _suite_of(run) in (SUITE.name, None)]
    kept = own if unfinished else [run for run in own if (run / "DONE").exists()]
    if not kept:
        raise ExperimentError(f"none of the {len(own)} runs of {SUITE.name} is done: finish one, or add --unfinished")
    if left_out := sorted(set(own) - set(kept)):
        print(f"left out, not done: {', '.join(map(str, left_out))}", file=sys.stderr)
    return kept


def _suite_of(run: Path) -> object:
    """The suite that meta.json names; None where it does not."""
    try:
        return json.loads((run / "meta.json").read_text(encoding="utf-8")).get("suite")
    except (OSError, ValueError, AttributeError):
        return None  # read_origin will say what is wrong


def run_columns(config: dict[str, Any], varying: Sequence[str]) -> dict[str, str]:
    """What stands before the step in the rows of a run: suite, identity and the fields that vary."""
    named = {"suite": SUITE.name, **identity(config), **{field: config.get(field) for field in varying}}
    return {name: "" if value is None else str(value) for name, value in named.items()}


def stretches_of(meta: dict[str, Any]) -> str:
    """Device, threads and, of several, machine of each stretch of a run; empty where they are the same."""
    machines, names, first = [], [], {name: meta.get(name) for name in ("device", "threads", "machine")}
    for stretch in [first, *meta["resumed"]]:
        where = first | stretch  # before there were moves, only the start was recorded, and its device was not
        machines.append(json.dumps(where["machine"]))
        names.append(f"{where['device']} x{where['threads']}" if where["device"] else "unknown")
    if len(known := list(dict.fromkeys(machines))) > 1:
        names = [f"{n} on machine {known.index(m) + 1}" for n, m in zip(names, machines, strict=True)]
    places = [name for name, _ in groupby(names)]
    return "; ".join(places) if len(places) > 1 else ""


def read_origin(run: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A run's flattened configuration, and where its numbers come from. Raises ExperimentError where it is damaged."""
    try:
        config = NEWER | flatten(json.loads((run / "config.json").read_text(encoding="utf-8")))
        meta = json.loads((run / "meta.json").read_text(encoding="utf-8"))
        where = stretches_of(meta)
        moved = {STRETCHES: where} if where else {}
        return config, moved | {name: str(meta[name] or "") for name in PROVENANCE}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ExperimentError(
            f"{run} has no readable config.json and meta.json with a results_version: leave it out, or run it again"
        ) from error


def read_thinned(run: Path) -> pd.DataFrame:
    """At most 200 evenly spaced rows of a run's metrics.csv, the last among them.

    A row with a metric that most rows lack, counted from its first value on, takes the place of the nearest row
    without one, but not of the last.
    """
    rows = read_cells(run / "metrics.csv", list, torn=True)
    if "step" not in rows:
        raise ExperimentError(f"{run / 'metrics.csv'} lacks the column step: leave the run out, or run it again")
    if rows.empty:
        return rows
    kept = _spread(np.arange(len(rows)), MAX_POINTS)
    filled = rows != ""
    rare = filled.sum() < filled.cumsum().astype(bool).sum() / 2
    rich = np.flatnonzero(filled.loc[:, rare].any(axis=1))
    free = ~np.isin(kept, rich)
    free[-1] = False
    for row in _spread(np.setdiff1d(rich, kept), free.sum()):
        place = np.where(free, np.abs(kept - row), len(rows)).argmin()
        kept[place], free[place] = row, False
    return rows.iloc[np.unique(kept)]


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, evenly spaced, the first and the last among them."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int)]


def read_runs(
    runs: Sequence[Path], varying: Sequence[str], known: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Configurations, behind those that are known, and rows of run folders with what identifies the run.

    Raises ExperimentError where a folder is damaged, or the runs do not belong together.
    """
    origins = [read_origin(run) for run in runs]
    if unknown := [field for field in varying if not any(field in config for config, _ in origins)]:
        raise ExperimentError(f"--varying {unknown[0]}: no run has such a field: take a name as config.json has it")
    configs = [*known, *(config for config, _ in origins)]
    require_comparable(configs, varying)
    tables = []
    for run, (config, origin) in zip(runs, origins, strict=True):
        rows, named = read_thinned(run), run_columns(config, varying)
        tables.append(rows.assign(**named, **origin)[[*named, *rows, *origin]])
    if not any(map(len, tables)):
        raise ExperimentError("no run has a row of metrics yet: wait for its first evaluation")
    return configs, merging.merge_runs([table for table in tables if len(table)])


def collect(paths: list[Path], out: Path, varying: list[str], append: bool = False, unfinished: bool = False) -> int:
    """Write the CSV and the configurations beside it; returns the number of runs in it.

    Raises ExperimentError: nothing to collect, runs that do not belong together, or a CSV that would lose runs.
    """
    runs = find_runs(paths, unfinished)
    old = merging.read_collected(out)
    before = [old] if append and len(old) else []
    known: list[dict[str, Any]] = []
    if before:
        known, varying = read_configs(out, varying)
    configs, new = read_runs(runs, varying, known)
    merging.require_one_version(pd.concat([*before, new]))
    rows = merging.merge_runs([*before, new])
    lost = name_runs(old)[lambda names: ~names.isin(name_runs(rows))].unique()
    if len(lost):
        name = lost[0].partition(", ")[2]
        few = f"{out} has {len(lost)} runs that are not collected now, such as {name}"
        raise ExperimentError(f"{few}: add --append, or name another --out")
    make_folder(out.parent)
    with written(sidecar_of(out)) as packed, written(out) as file:
        packed.write(json.dumps({"varying": varying, **pack_configs(configs)}, indent=1) + "\n")
        rows.to_csv(file, index=False, lineterminator="\n")
    return name_runs(rows).nunique()


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = new_parser("collect", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders above them")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    parser.add_argument("--varying", nargs="*", default=[], metavar="FIELD", help="fields in which runs may differ")
    parser.add_argument("--append", action="store_true", help="add to the CSV what it does not have")
    parser.add_argument("--unfinished", action="store_true", help="take runs that are not done too")
    a = parser.parse_args(argv)
    return command(lambda: print(f"{collect(a.runs, a.out, a.varying, a.append, a.unfinished)} runs in {a.out}"))


if __name__ == "__main__":
    sys.exit(main())
