"""Run folders -> one tidy CSV, the only thing that figures, claims and reports read.

    python -m <suite>.collect RUNS... --out results/<name>.csv [--varying FIELD ...]

RUNS are run folders or folders above them. One row per kept evaluation, at most 200 a run, the last always among
them. Runs whose configurations differ in anything but environment, objective, approach, learning rate and seed are
refused unless ``--varying`` names the field. This file is the same, byte for byte, in every suite.
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .experiment import ExperimentError, flatten

MAX_POINTS = 200
# Where the suites' configurations keep what identifies a run.
IDENTITY = {
    "environment": ("env.name", "environment", "task"),
    "objective": ("algo.name", "objective", "algo"),
    "approach": ("algo.backward_approach", "backward_approach"),
    "learning_rate": ("algo.learning_rate", "learning_rate", "lr"),
    "seed": ("general.seed", "seed"),
}
BACKWARD_LEARNING_RATE = ("backward_learning_rate", "blr")
# Where and how a run was stored: no part of the experiment.
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
)


def find_runs(paths: list[Path]) -> list[Path]:
    """The run folders at or below the given paths, sorted.

    Raises:
        ExperimentError: there is none.
    """
    runs = sorted({config.parent for path in paths for config in path.rglob("config.json")})
    if not runs:
        raise ExperimentError(f"no run folder at or below {', '.join(map(str, paths))}: name folders with config.json")
    return runs


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """environment, objective, approach, learning_rate and seed of a flattened configuration; None where it has none."""
    return {name: next((config[k] for k in keys if k in config), None) for name, keys in IDENTITY.items()}


def require_comparable(configs: list[dict[str, Any]], varying: list[str]) -> None:
    """Refuse configurations that differ in more than what identifies a run.

    A field may follow from the environment, the objective or the learning rate, as a reward's levels, the Munchausen
    coefficient and P_B's learning rate do.

    Raises:
        ExperimentError: names the field and two of its values.
    """
    allowed = {key for keys in IDENTITY.values() for key in keys} | set(varying)
    for key in sorted(set().union(*configs)):
        if key in allowed or key.split(".")[-1] in STORAGE:
            continue
        values: dict[Any, set[str]] = {}
        ratios: dict[Any, set[str]] = {}
        for config in configs:
            if key in config:
                run = identity(config)
                follows = run["environment"], run["objective"]
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
    if key.split(".")[-1] in BACKWARD_LEARNING_RATE and learning_rate:
        return f"{value / learning_rate:.6g}"
    return json.dumps(value)


def rows_of(run: Path, config: dict[str, Any], suite: str) -> list[dict[str, Any]]:
    """At most 200 evenly spaced rows of a run's metrics.csv, the last among them, with what identifies the run.

    A row with rarer metrics than most takes the place of its nearest neighbour.
    """
    meta = json.loads((run / "meta.json").read_text())
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return []
    kept = np.linspace(0, len(rows) - 1, min(len(rows), MAX_POINTS)).round().astype(int)
    filled = np.array([sum(value != "" for value in row.values()) for row in rows])
    for rich in np.flatnonzero(filled > np.median(filled)):
        kept[np.abs(kept - rich).argmin()] = rich
    common = {"suite": suite, **identity(config)}
    return [common | rows[i] | {"code_version": meta["code_version"]} for i in np.unique(kept)]


def collect(paths: list[Path], out: Path, varying: list[str], suite: str) -> int:
    """Write the CSV; returns the number of runs in it.

    Raises:
        ExperimentError: nothing to collect, or runs that do not belong together.
    """
    runs = find_runs(paths)
    configs = [flatten(json.loads((run / "config.json").read_text())) for run in runs]
    require_comparable(configs, varying)
    rows = [row for run, config in zip(runs, configs, strict=True) for row in rows_of(run, config, suite)]
    names = list(dict.fromkeys(name for row in rows for name in row if name != "code_version"))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*names, "code_version"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(out)
    return len(runs)


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    suite = Path(__file__).resolve().parent.name
    parser = argparse.ArgumentParser(prog=f"python -m {suite}.collect", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders above them")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    parser.add_argument("--varying", nargs="*", default=[], metavar="FIELD", help="fields in which runs may differ")
    arguments = parser.parse_args(argv)
    try:
        n_runs = collect(arguments.runs, arguments.out, arguments.varying, suite)
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{n_runs} runs in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
