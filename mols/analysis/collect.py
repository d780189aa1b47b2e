"""Run folders -> one tidy CSV, the only thing that figures, claims and reports read.

    python -m <suite>.analysis.collect RUNS... --out results/<name>.csv [--varying FIELD ...] [--append] [--unfinished]

RUNS are run folders or folders above them. One row per kept evaluation, at most 200 a run, the last always among
them. Runs whose configurations differ in anything but environment, objective, approach, learning rate and seed are
refused unless ``--varying`` names the field, which is then a column behind the seed; so are runs of one objective with
different results versions. Runs that are not done are left out unless ``--unfinished`` takes them. Of a run that went
on elsewhere than it started, the column stretches says where: cpu x1; cuda x1 is one thread on the CPU, then a GPU.

Beside the CSV, <name>.configs.json holds the configurations. With them, ``--append`` adds runs to a CSV whose own run
folders are gone: a run that it has already is not repeated, one that does not belong there is refused. Without
``--append``, a CSV that has runs which are not collected now is not overwritten.
This file is the same, byte for byte, in every suite.
"""

import argparse
import csv
import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..common.files import make_folder, read_rows, written
from ..common.run_folder import flatten
from ..common.terminal import ExperimentError, command
from ..suite import BACKWARD_LEARNING_RATE, IDENTITY, OF_APPROACH, OF_ENVIRONMENT
from .merging import (
    PROVENANCE,
    STORAGE,
    STRETCHES,
    by_run,
    merged,
    name_of,
    packed_configs,
    read_collected,
    read_configs,
    sidecar_of,
)

MAX_POINTS = 200


def find_runs(paths: list[Path], suite: str, unfinished: bool) -> list[Path]:
    """The suite's run folders at or below the given paths, sorted; says on stderr which are left out.

    Raises:
        ExperimentError: a path has none.
    """
    found = {path: {config.parent for config in path.rglob("config.json")} for path in paths}
    empty = [path for path in paths if not found[path]]
    if empty:
        raise ExperimentError(f"no run folder at or below {empty[0]}: name folders with config.json")
    runs = sorted(set().union(*found.values()))
    own = [run for run in runs if _suite_of(run) in (suite, None)]
    kept = own if unfinished else [run for run in own if (run / "DONE").exists()]
    if not kept:
        raise ExperimentError(f"none of the {len(own)} runs of {suite} is done: finish one, or add --unfinished")
    if left_out := sorted(set(own) - set(kept)):
        print(f"left out, not done: {', '.join(map(str, left_out))}", file=sys.stderr)
    return kept


def _suite_of(run: Path) -> str | None:
    """The suite that meta.json names; None where it does not."""
    try:
        return json.loads((run / "meta.json").read_text(encoding="utf-8")).get("suite")
    except (OSError, ValueError, AttributeError):
        return None  # read_runs will say what is wrong


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """environment, objective, approach, learning_rate and seed of a flattened configuration; None where it has none."""
    run = {name: config.get(key) for name, key in IDENTITY.items()}
    others = [config[key] for key, usual in OF_ENVIRONMENT.items() if config.get(key, usual) != usual]
    return run | {"environment": " ".join([run["environment"], *others])} if others else run


def run_columns(config: dict[str, Any], suite: str, varying: list[str]) -> dict[str, str]:
    """What stands before the step in the rows of a run: suite, identity and the fields that vary."""
    named = {"suite": suite, **identity(config), **{field: config.get(field) for field in varying}}
    return {name: "" if value is None else str(value) for name, value in named.items()}


def require_comparable(configs: list[dict[str, Any]], varying: list[str]) -> None:
    """Refuse configurations that differ in more than what identifies a run.

    A field may follow from the environment, the objective or the learning rate, as a reward's levels, the Munchausen
    coefficient and P_B's learning rate do; how P_B begins and which model samples may follow from the approach.

    Raises:
        ExperimentError: names the field and two of its values.
    """
    allowed = {*IDENTITY.values(), *varying}
    for key in sorted(set().union(*configs)):
        if key in allowed or key.split(".")[-1] in STORAGE:
            continue
        values: dict[Any, set[str]] = {}
        ratios: dict[Any, set[str]] = {}
        for config in configs:
            if key in config:
                run = identity(config)
                follows = run["environment"], run["objective"], key in OF_APPROACH and run["approach"]
                values.setdefault(follows, set()).add(json.dumps(config[key]))
                ratios.setdefault(follows, set()).add(_ratio(key, config[key], run["learning_rate"]))
        for follows, found in values.items():
            if len(found) > 1 and len(ratios[follows]) > 1:
                first, second = sorted(found)[:2]
                raise ExperimentError(
                    f"the runs differ in {key} ({first}, {second}): collect them apart, or add --varying {key}"
                )


def _ratio(key: str, value: Any, learning_rate: float | None) -> str:
    """A learning rate of P_B in units of P_F's; any other field as it is."""
    if key == BACKWARD_LEARNING_RATE and learning_rate:
        return f"{value / learning_rate:.6g}"
    return json.dumps(value)


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


def thinned_rows(
    run: Path, config: dict[str, Any], suite: str, varying: list[str], origin: dict[str, str]
) -> list[dict[str, str]]:
    """At most 200 evenly spaced rows of a run's metrics.csv, the last among them, with what identifies the run.

    A row with rarer metrics than most takes the place of its nearest neighbour, but not of the last row's.
    """
    _, rows = read_rows(run / "metrics.csv", list, torn=True)
    if not rows:
        return []
    last = len(rows) - 1
    kept = np.linspace(0, last, min(len(rows), MAX_POINTS)).round().astype(int)
    filled = np.array([sum(value != "" for value in row.values()) for row in rows])
    for rich in np.flatnonzero(filled > np.median(filled)):
        if rich not in kept:
            kept[np.abs(kept[:-1] - rich).argmin()] = rich
    return [run_columns(config, suite, varying) | rows[i] | origin for i in np.unique(kept)]


def read_runs(
    runs: list[Path], suite: str, varying: list[str], known: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Configurations, behind those that are known, and rows of run folders.

    Raises:
        ExperimentError: a folder is damaged, or the runs do not belong together.
    """
    configs, origins = [], []
    for run in runs:
        try:
            configs.append(flatten(json.loads((run / "config.json").read_text(encoding="utf-8"))))
            meta = json.loads((run / "meta.json").read_text(encoding="utf-8"))
            where = stretches_of(meta)
            origins.append({STRETCHES: where} if where else {})
            origins[-1] |= {name: str(meta[name] or "") for name in PROVENANCE}
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ExperimentError(
                f"{run} has no readable config.json and meta.json with a results_version: leave it out, or run it anew"
            ) from error
    unknown = [field for field in varying if not any(field in config for config in configs)]
    if unknown:
        raise ExperimentError(f"--varying {unknown[0]}: no run has such a field: take a name as config.json has it")
    require_comparable(known + configs, varying)
    rows: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for run, config, origin in zip(runs, configs, origins, strict=True):
        for key, added in by_run(thinned_rows(run, config, suite, varying, origin)).items():
            rows[key] = merged(rows.get(key, []), added)
    if not rows:
        raise ExperimentError("no run has a row of metrics yet: wait for its first evaluation")
    return known + configs, [row for run in rows.values() for row in run]


def require_one_version(rows: list[dict[str, str]]) -> None:
    """Refuse runs of one objective that have different results versions.

    Raises:
        ExperimentError: names the objective and the versions.
    """
    versions: dict[str, set[str]] = {}
    for row in rows:
        versions.setdefault(row["objective"], set()).add(row["results_version"])
    for objective, found in versions.items():
        if len(found) > 1:
            raise ExperimentError(
                f"the runs of {objective} have the results versions {', '.join(sorted(found))}: collect them apart"
            )


def collect(
    paths: list[Path], out: Path, varying: list[str], suite: str, append: bool = False, unfinished: bool = False
) -> int:
    """Write the CSV and the configurations beside it; returns the number of runs in it.

    Raises:
        ExperimentError: nothing to collect, runs that do not belong together, or a CSV that would lose runs.
    """
    runs = find_runs(paths, suite, unfinished)
    old = read_collected(out)
    known: list[dict[str, Any]] = []
    if append and old:
        known, varying = read_configs(out, varying)
    configs, rows = read_runs(runs, suite, varying, known)
    require_one_version([*(old if append else []), *rows])
    if append:
        rows = merged(old, rows)
    elif lost := [run for run in by_run(old) if run not in by_run(rows)]:
        raise ExperimentError(
            f"{out} has {len(lost)} runs that are not collected now, such as {name_of(lost[0])}: add --append, or "
            "name another --out"
        )
    names = list(dict.fromkeys(name for row in rows for name in row if name not in PROVENANCE))
    make_folder(out.parent)
    with written(sidecar_of(out)) as packed, written(out) as file:
        packed.write(json.dumps({"varying": varying, **packed_configs(configs)}, indent=1) + "\n")
        writer = csv.DictWriter(file, [*names, *PROVENANCE], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return len(by_run(rows))


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    suite = Path(__file__).resolve().parents[1].name
    parser = argparse.ArgumentParser(prog=f"python -m {suite}.analysis.collect", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders above them")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    parser.add_argument("--varying", nargs="*", default=[], metavar="FIELD", help="fields in which runs may differ")
    parser.add_argument("--append", action="store_true", help="add to the CSV what it does not have")
    parser.add_argument("--unfinished", action="store_true", help="take runs that are not done too")
    arguments = parser.parse_args(argv)

    def work() -> None:
        n_runs = collect(
            arguments.runs, arguments.out, arguments.varying, suite, arguments.append, arguments.unfinished
        )
        print(f"{n_runs} runs in {arguments.out}")

    return command(work)


if __name__ == "__main__":
    sys.exit(main())
