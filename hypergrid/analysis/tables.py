"""Collected CSV files as one table: read and checked, one number per run, and the learning rate that is reported.

A learning rate is chosen on the tuning seeds, the smallest of an approach's seeds, and reported on the others. Runs of
a CSV that was collected with ``--varying`` belong to the comparison of these fields alone.
This file is the same, byte for byte, in every suite.
"""

import argparse
import re
import sys
from pathlib import Path

import pandas as pd

from ..common.files import make_folder, read_rows
from ..common.reporting import Metric, last
from ..common.terminal import ExperimentError
from ..suite import RESULTS_VERSIONS

RUN = ["environment", "objective", "approach", "learning_rate", "seed"]
NUMBERS = ("learning_rate", "seed", "step", "trajectories", "wall_s", "results_version")
REQUIRED = ("suite", *RUN, "step", "trajectories", "wall_s", "results_version")
TEXTS = ("suite", *RUN[:3], "git_hash", "stretches")  # columns that hold no numbers, besides varied fields
MAY_BE_EMPTY = ("approach", "learning_rate")  # of references that learn nothing
SAME_OBJECTIVE = {"dqn": "munchausen_dqn"}
OBJECTIVES = {"munchausen_dqn": "MunchausenDQN", "db": "DB", "tb": "TB", "subtb": "SubTB", "soft_dqn": "SoftDQN"}
VARYING = "varying"  # the column that read() adds: the varied fields of the row's CSV


def read(paths: list[Path], suite: str) -> pd.DataFrame:
    """The rows of all files, each once; says on stderr what makes them hard to compare.

    Of an objective's runs those of its newest results version count, of a run that files have at different lengths the
    longest.

    Raises:
        ExperimentError: a file is missing, empty, of another suite or no collected CSV, or two hold the same run at
            the same length with other numbers.
    """
    files = [_read_one(path, suite).assign(file=number) for number, path in enumerate(paths)]
    table = _longest(_newest(pd.concat(files, ignore_index=True))).drop(columns="file").drop_duplicates()
    twice = table[table.duplicated([*RUN, *varied_fields(table), VARYING, "step"])]
    if len(twice):
        run = ", ".join(f"{twice.iloc[0][name]}" for name in RUN)
        raise ExperimentError(f"the run ({run}) is there twice, with different numbers: name CSV files that agree")
    for (environment, objective), rows in table.groupby(RUN[:2]):
        ends = rows.groupby(RUN, dropna=False)["step"].max()
        if ends.nunique() > 1:
            steps = f"steps {ends.min()} to {ends.max()}"
            print(
                f"warning: {environment}, {objective}: runs end at {steps}; compared up to the first", file=sys.stderr
            )
    return table


def _newest(table: pd.DataFrame) -> pd.DataFrame:
    """Without the runs of an objective that are of an older results version than others of it."""
    kept = table["results_version"] == table.groupby("objective")["results_version"].transform("max")
    if not kept.all():
        older = ", ".join(sorted(table[~kept]["objective"].unique()))
        print(f"warning: {older}: runs of an older results version do not count", file=sys.stderr)
    table = table[kept]
    now = {SAME_OBJECTIVE.get(name, name): version for name, version in RESULTS_VERSIONS.items()}
    stale = table[table["results_version"] != table["objective"].map(now)]["objective"].unique()
    if len(stale):
        print(f"warning: {', '.join(sorted(stale))}: today's program computes another results version", file=sys.stderr)
    return table


def versions_of(table: pd.DataFrame) -> str:
    """Where the numbers come from, for captions: the results version of each objective, and the commits."""
    found = table.groupby("results_version")["objective"].unique()
    text = ", ".join(f"{version} ({', '.join(sorted(names))})" for version, names in found.items())
    commits = sorted({commit[:7] for commit in table["git_hash"].dropna()})
    return f"results version {text}; commit {', '.join(commits)}"


def _longest(table: pd.DataFrame) -> pd.DataFrame:
    """Without the rows of runs that another file has with more steps."""
    run = [*RUN, *varied_fields(table), VARYING]
    longest = table.groupby(run, dropna=False)["step"].transform("max")
    kept = table.groupby([*run, "file"], dropna=False)["step"].transform("max") == longest
    if not kept.all():
        shorter = table[~kept].drop_duplicates([*run, "file"])
        print(f"warning: {len(shorter)} runs are longer in another file, which counts", file=sys.stderr)
    return table[kept]


def read_file(path: Path) -> pd.DataFrame:
    """The rows of a CSV file that ``collect`` made.

    Raises:
        ExperimentError: it cannot be read, or is damaged; names the line or the column.
    """
    read_rows(path, _numeric)  # which is stricter than pandas
    return pd.read_csv(path, encoding="utf-8-sig", dtype=dict.fromkeys(TEXTS, str), keep_default_na=False,
                       na_values=[""])  # fmt: skip


def _numeric(names: list[str]) -> set[str]:
    behind = names[names.index("step") :] if "step" in names else []
    return {*NUMBERS, *behind} - {*TEXTS}


def _read_one(path: Path, suite: str) -> pd.DataFrame:
    mend = f"make it by python -m {suite}.analysis.collect"
    if not path.is_file():
        raise ExperimentError(f"there is no file {path}: {mend}")
    rows = read_file(path)
    missing = [name for name in REQUIRED if name not in rows]
    if missing:
        raise ExperimentError(f"{path} lacks the column {missing[0]}: {mend}")
    if rows.empty:
        raise ExperimentError(f"{path} has no rows: {mend}")
    others = set(rows["suite"]) - {suite}
    if others:
        raise ExperimentError(f"{path} is of the suite {min(map(str, others))}: use that suite's command")
    gaps = [name for name in REQUIRED if name not in MAY_BE_EMPTY and rows[name].isna().any()]
    if gaps:
        raise ExperimentError(f"{path} has an empty cell in the column {gaps[0]}: {mend}")
    names = list(rows)
    rows[VARYING] = " ".join(names[names.index("seed") + 1 : names.index("step")])
    return rows.assign(objective=rows["objective"].replace(SAME_OBJECTIVE))


def varied_fields(table: pd.DataFrame) -> list[str]:
    """The fields that ``--varying`` named when the files were collected."""
    return sorted({field for fields in table[VARYING].unique() for field in fields.split()})


def main_runs(table: pd.DataFrame) -> pd.DataFrame:
    """The runs of the figures and of all claims but those on a varied field; references that learn nothing left out."""
    return table[(table[VARYING] == "") & table["approach"].notna()]


def settings_of(table: pd.DataFrame, field: str) -> pd.DataFrame:
    """The runs of files in which ``field`` varies, other varied fields at their most frequent value.

    Where they show one value alone, the main runs of the same cells come along, with NaN for it.
    """
    varied = table[table[VARYING].str.split().map(lambda fields: field in fields)]
    for other in set(varied_fields(varied)) - {field}:
        common = varied[other].mode()
        varied = varied[varied[other].isna() | varied[other].isin(common[:1])]
    main, cells = main_runs(table), RUN[:4]
    single = varied.groupby(cells)[field].nunique().loc[lambda count: count == 1].index
    return pd.concat([varied[varied[field].notna()], main[pd.MultiIndex.from_frame(main[cells]).isin(single)]])


def column_of(rows: pd.DataFrame, name: str) -> str | None:
    """The column ``name``, or else the first ``name_<number>`` that has numbers in these rows."""
    names = [name] if name in rows else [column for column in rows if re.fullmatch(rf"{name}_[0-9.]+", column)]
    return next((column for column in names if rows[column].notna().any()), None)


def run_numbers(table: pd.DataFrame, metric: Metric, by: list[str] | None = None) -> pd.DataFrame:
    """One row per run: what identifies it, its ``value``, and ``end``, the x up to which it counts.

    In a cell of environment and objective every run counts up to the last x that all of them have.
    """
    run, found = [*RUN, *(by or [])], []
    for _, cell in table.groupby(RUN[:2]):
        column = column_of(cell, metric.column)
        if column is None:
            continue
        runs = {key: rows.sort_values(metric.x) for key, rows in cell[cell[column].notna()].groupby(run, dropna=False)}
        if metric.summary is last:
            shared = set.intersection(*(set(rows[metric.x]) for rows in runs.values()))
            end = max(shared, default=-1)
        else:
            end = min(rows[metric.x].max() for rows in runs.values())
        for key, rows in runs.items():
            rows = rows[rows[metric.x] <= end]
            if len(rows):
                value = metric.summary(rows[metric.x].to_numpy(float), rows[column].to_numpy(float), rows)
                found.append({**dict(zip(run, key, strict=True)), "value": value, "end": end})
    return pd.DataFrame(found, columns=[*run, "value", "end"])


def reported(numbers: pd.DataFrame, metric: Metric, n_tuning: int) -> pd.DataFrame:
    """The runs to report, at each approach's best learning rate by the mean over its tuning seeds.

    Where an approach has one learning rate, all its seeds are reported. Column ``fresh``: whether the seeds took no
    part in the choice; False where there are no others.
    """
    kept = []
    for _, cell in numbers.groupby(RUN[:3]):
        if cell["learning_rate"].nunique() == 1:
            kept.append(cell.assign(fresh=True))
            continue
        tuning = cell["seed"].isin(sorted(cell["seed"].unique())[:n_tuning])
        means = cell[tuning].groupby("learning_rate")["value"].mean() * metric.sign
        chosen = cell["learning_rate"] == means.idxmax()
        fresh = (chosen & ~tuning).any()
        kept.append(cell[chosen & (~tuning if fresh else tuning)].assign(fresh=fresh))
    return pd.concat(kept) if kept else numbers.assign(fresh=True)


def rows_of(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table that belong to these runs."""
    wanted = pd.MultiIndex.from_frame(runs[RUN])
    return table[pd.MultiIndex.from_frame(table[RUN]).isin(wanted)]


def add_arguments(parser: argparse.ArgumentParser, suite: str) -> None:
    """What the commands that read collected files have in common."""
    parser.add_argument("results", nargs="+", type=Path, help=f"CSV files made by python -m {suite}.analysis.collect")
    parser.add_argument("--out", type=Path, help="folder to write to, made if needed; what it holds of this command is "
                        "made anew (beside the first CSV)")  # fmt: skip
    parser.add_argument("--tuning_seeds", type=int, default=1, choices=range(1, 1000), metavar="INT",
                        help="seeds that choose the learning rate, the smallest ones (1)")  # fmt: skip


def output_folder(arguments: argparse.Namespace) -> Path:
    """``--out``, or the folder of the first CSV; made if it is not there.

    Raises:
        ExperimentError: it cannot be a folder.
    """
    folder = arguments.out or arguments.results[0].parent
    make_folder(folder)
    return folder
