"""Collected CSV files as one table: read and checked, one number per run, and the learning rate that is reported.

A learning rate is chosen on the tuning seeds, the smallest of an approach's seeds, and reported on the others. Runs of
a CSV that was collected with ``--varying`` belong to the comparison of these fields alone.
This file is the same, byte for byte, in every suite.
"""

import argparse
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd

from ..common.files import make_folder, read_rows
from ..common.reporting import Metric, last
from ..common.terminal import ExperimentError
from ..suite import RESULTS_VERSIONS
from .configs import require_alike

SUITE = Path(__file__).resolve().parents[1]
RUN = ["environment", "objective", "approach", "learning_rate", "seed"]
NUMBERS = ("learning_rate", "seed", "step", "trajectories", "wall_s", "results_version")
REQUIRED = ("suite", *RUN, "step", "trajectories", "wall_s", "results_version")
STRETCHES = "stretches"  # the column of runs that went on elsewhere than they started
TEXTS = ("suite", *RUN[:3], "git_hash", STRETCHES)  # columns that hold no numbers, besides varied fields
INCIDENTAL = ("wall_s", "git_hash", STRETCHES)  # columns in which a run may differ from itself run again
SAME_OBJECTIVE = {"dqn": "munchausen_dqn"}
OBJECTIVES = {"munchausen_dqn": "MunchausenDQN", "db": "DB", "tb": "TB", "subtb": "SubTB", "soft_dqn": "SoftDQN"}
SMALL_SETTING = ", small setting"  # behind the claims and titles of runs of a smaller setting than the paper's
VARYING = "varying"  # the column that read_results adds: the varied fields of the row's CSV
VALUE = "value"  # the column of the metric in question


def read_cells(
    path: Path, numbers: Callable[[list[str]], Collection[str]] = lambda names: (), *, torn: bool = False
) -> pd.DataFrame:
    """The cells of a CSV file as they stand there; arguments and errors are those of ``read_rows``."""
    names, rows = read_rows(path, numbers, torn=torn)
    return pd.DataFrame(rows, columns=names, dtype=str)


def read_numbers(path: Path) -> pd.DataFrame:
    """The rows of a CSV file that ``collect`` made, numbers as such; errors are those of ``read_rows``."""
    read_rows(path, _numeric)  # which is stricter than pandas
    texts = dict.fromkeys(TEXTS, str)
    return pd.read_csv(path, encoding="utf-8-sig", dtype=texts, keep_default_na=False, na_values=[""])


def _numeric(names: list[str]) -> set[str]:
    behind = names[names.index("step") :] if "step" in names else []
    return {*NUMBERS, *behind} - {*TEXTS}


def read_results(paths: Sequence[Path]) -> pd.DataFrame:
    """The rows of all files, each once; says on stderr what makes them hard to compare.

    Of an objective's runs those of its newest results version count, of a run that files have at different lengths the
    longest. Raises ExperimentError where a file is missing, empty, damaged, of another suite or no collected CSV, or
    two hold the same run at the same length with other numbers, or their configurations differ.
    """
    files = [_read_checked(path).assign(file=number) for number, path in enumerate(paths)]
    require_alike(paths)
    table = _longest(_newest(pd.concat(files, ignore_index=True))).drop(columns="file")
    table = table.drop_duplicates(subset=table.columns.difference([*INCIDENTAL]))
    twice = table[table.duplicated([*RUN, *varied_fields(table), VARYING, "step"])]
    if len(twice):
        run = ", ".join(f"{twice.iloc[0][name]}" for name in RUN)
        raise ExperimentError(f"the run ({run}) is there twice, with different numbers: name CSV files that agree")
    ends = table.groupby([*RUN, VARYING], dropna=False)["step"].max().groupby([*RUN[:2], VARYING]).agg(["min", "max"])
    for cell, (first, end) in zip(ends.index, ends.to_numpy(), strict=True):
        if first < end:
            _warn(f"{', '.join(cell[:2])}: runs end at steps {first} to {end}; compared up to the first")
    return table


def _read_checked(path: Path) -> pd.DataFrame:
    advice = f"make it by python -m {SUITE.name}.analysis.collect"
    if not path.is_file():
        raise ExperimentError(f"there is no file {path}: {advice}")
    rows = read_numbers(path)
    if missing := [name for name in REQUIRED if name not in rows]:
        raise ExperimentError(f"{path} lacks the column {missing[0]}: {advice}")
    if rows.empty:
        raise ExperimentError(f"{path} has no rows: {advice}")
    if others := set(rows["suite"]) - {SUITE.name}:
        raise ExperimentError(f"{path} is of the suite {min(map(str, others))}: use that suite's command")
    gaps = rows[[*REQUIRED]].isna()
    gaps.loc[gaps["approach"], ["approach", "learning_rate"]] = False  # references that learn nothing
    if gaps.any(axis=None):
        raise ExperimentError(f"{path} has an empty cell in the column {gaps.any().idxmax()}: {advice}")
    varied = rows.loc[:, "seed":"step"].columns[1:-1]
    return rows.assign(objective=rows["objective"].replace(SAME_OBJECTIVE), **{VARYING: " ".join(varied)})


def _newest(table: pd.DataFrame) -> pd.DataFrame:
    """Without the runs of an objective that are of an older results version than others of it."""
    version = table["results_version"]
    older = version < version.groupby(table["objective"]).transform("max")
    now = {SAME_OBJECTIVE.get(name, name): number for name, number in RESULTS_VERSIONS.items()}
    stale = ~older & (version != table["objective"].map(now))
    for which, said in (
        (older, "runs of an older results version do not count"),
        (stale, "today's program computes another results version"),
    ):
        if which.any():
            _warn(f"{', '.join(sorted(table[which]['objective'].unique()))}: {said}")
    return table[~older]


def _longest(table: pd.DataFrame) -> pd.DataFrame:
    """Without the rows of runs that another file has with more steps."""
    run = [*RUN, *varied_fields(table), VARYING]
    longest = table.groupby(run, dropna=False)["step"].transform("max")
    kept = table.groupby([*run, "file"], dropna=False)["step"].transform("max") == longest
    if shorter := len(table[~kept].drop_duplicates([*run, "file"])):
        _warn(f"{shorter} runs are longer in another file, which counts")
    return table[kept]


def _warn(said: str) -> None:
    print(f"warning: {said}", file=sys.stderr)


def describe_versions(table: pd.DataFrame) -> str:
    """Where the numbers come from, for captions: the results version of each objective, and the commits."""
    found = table.groupby("results_version")["objective"].unique()
    text = ", ".join(f"{version} ({', '.join(sorted(names))})" for version, names in found.items())
    return f"results version {text}; commit {', '.join(sorted(table['git_hash'].dropna().str[:7].unique()))}"


def varied_fields(table: pd.DataFrame) -> list[str]:
    """The fields that ``--varying`` named when the files were collected."""
    return sorted(set(" ".join(table[VARYING].unique()).split()))


def main_runs(table: pd.DataFrame) -> pd.DataFrame:
    """The runs of the figures and of all claims but those on a varied field; references that learn nothing left out."""
    return table[(table[VARYING] == "") & table["approach"].notna()]


def settings_of(table: pd.DataFrame, field: str) -> pd.DataFrame:
    """The runs of files in which ``field`` varies, other varied fields at their most frequent value.

    Where they show one value alone, the main runs of the same cells come along, with NaN for it.
    """
    varied = table[table[VARYING].str.split().map(lambda fields: field in fields)]
    for other in set(varied_fields(varied)) - {field}:
        varied = varied[varied[other].isna() | varied[other].isin(varied[other].mode()[:1])]
    main, cells = main_runs(table), RUN[:4]
    single = varied.groupby(cells)[field].nunique().loc[lambda count: count == 1].index
    return pd.concat([varied[varied[field].notna()], main[pd.MultiIndex.from_frame(main[cells]).isin(single)]])


def measured_rows(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows that have a value of the metric ``name``, which is then in the column VALUE.

    In a cell of environment and objective that is the column ``name``, or else the first ``name_<number>`` that has
    numbers there.
    """
    names = [name] if name in table else [column for column in table if re.fullmatch(rf"{name}_[0-9.]+", str(column))]
    values = pd.Series(float("nan"), table.index)
    for column in reversed(names):
        known = table[column].groupby([table[key] for key in RUN[:2]]).transform("count") > 0
        values = values.mask(known, table[column])
    return table.assign(**{VALUE: values})[values.notna()]


def run_numbers(table: pd.DataFrame, metric: Metric, by: Sequence[str] = ()) -> pd.DataFrame:
    """One row per run: what identifies it, its ``value``, and ``end``, the x up to which it counts.

    In a cell of environment and objective every run counts up to the last x that all of them have.
    """
    run, found = [*RUN, *by], []
    for _, cell in measured_rows(table, metric.column).sort_values(metric.x).groupby(RUN[:2]):
        runs, counts = cell.groupby(run, dropna=False), cell[metric.x].value_counts()
        shared = counts.index[counts == runs.ngroups]
        end = shared.max() if metric.summary is last else runs[metric.x].max().min()
        for key, rows in cell[cell[metric.x] <= end].groupby(run, dropna=False):
            value = metric.summary(rows[metric.x].to_numpy(float), rows[VALUE].to_numpy(float), rows)
            found.append([*key, value, end])
    return pd.DataFrame(found, columns=[*run, VALUE, "end"]).astype(table.dtypes[run].to_dict())


def chosen_runs(numbers: pd.DataFrame, metric: Metric, n_tuning: int) -> pd.DataFrame:
    """The runs to report, at each approach's best learning rate by the mean over its tuning seeds.

    Where an approach has one learning rate, all its seeds are reported. Column ``fresh``: whether the seeds took no
    part in the choice; False where there are no others.
    """
    kept = [numbers[:0].assign(fresh=True)]
    for _, cell in numbers.groupby(RUN[:3]):
        tuning = cell["seed"].isin(sorted(cell["seed"].unique())[:n_tuning])
        means = cell[tuning].groupby("learning_rate")["value"].mean() * metric.sign
        chosen = cell["learning_rate"] == means.idxmax()
        if cell["learning_rate"].nunique() == 1:
            tuning = ~chosen
        fresh = (chosen & ~tuning).any()
        kept.append(cell[chosen & (tuning != fresh)].assign(fresh=fresh))
    return pd.concat(kept)


def markdown_table(heads: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown, without a line end behind it."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def new_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of this folder's command ``name``, whose module says in its first line what it does."""
    about = (description or "").partition("\n")[0]
    return argparse.ArgumentParser(prog=f"python -m {SUITE.name}.analysis.{name}", description=about)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the commands that read collected files have in common."""
    made_by = f"CSV files made by python -m {SUITE.name}.analysis.collect"
    parser.add_argument("results", nargs="+", type=Path, help=made_by)
    made_anew = "folder to write to, made if needed; what it holds of this command is made again (beside the first CSV)"
    parser.add_argument("--out", type=Path, help=made_anew)
    seeds = "seeds that choose the learning rate, the smallest ones (1)"
    parser.add_argument("--tuning_seeds", type=int, default=1, choices=range(1, 1000), metavar="INT", help=seeds)


def output_folder(arguments: argparse.Namespace) -> Path:
    """``--out``, or the folder of the first CSV; made if it is not there. Raises ExperimentError."""
    folder: Path = arguments.out or arguments.results[0].parent
    make_folder(folder)
    return folder
