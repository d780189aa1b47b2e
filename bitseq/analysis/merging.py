"""A collected CSV and the configurations beside it: what they hold, and how new runs join them.

This file is the same, byte for byte, in every suite.
"""

import json
from pathlib import Path
from typing import Any

from ..common.files import read_rows
from ..common.terminal import ExperimentError
from ..suite import IDENTITY

PROVENANCE = ("results_version", "git_hash")  # the last columns; runs of an objective share the first
STRETCHES = "stretches"  # only of runs that went on elsewhere than they started
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


def merged(old: list[dict[str, str]], new: list[dict[str, str]]) -> list[dict[str, str]]:
    """Old rows, then those of runs that the old ones lack.

    Raises:
        ExperimentError: a run is in both, with other numbers; how long it took does not matter.
    """
    before, added = by_run(old), by_run(new)
    for run in added.keys() & before.keys():
        if [_numbers(row) for row in before[run]] != [_numbers(row) for row in added[run]]:
            raise ExperimentError(f"the run {name_of(run)} is there twice, with different numbers: leave one out")
    return old + [row for run, rows in added.items() if run not in before for row in rows]


def by_run(rows: list[dict[str, str]]) -> dict[tuple[str, ...], list[dict[str, str]]]:
    """The rows of each run: suite, environment and so on up to the seed, and what else stands before the step."""
    runs: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        names = list(row)
        runs.setdefault(tuple(plain(row[name]) for name in names[: names.index("step")]), []).append(row)
    return runs


def _numbers(row: dict[str, str]) -> dict[str, str]:
    skipped = ("wall_s", "git_hash", STRETCHES)
    return {name: plain(value) for name, value in row.items() if value != "" and name not in skipped}


def plain(text: str) -> str:
    """A number as Python writes it: a spreadsheet may have made 1E-03 of 0.001."""
    try:
        return repr(float(text)).removesuffix(".0")
    except ValueError:
        return text


def name_of(run: tuple[str, ...]) -> str:
    """How messages call a run."""
    return ", ".join(run[1:])


def read_collected(out: Path) -> list[dict[str, str]]:
    """The rows of a collected CSV; none where there is no file.

    Raises:
        ExperimentError: the file is something else, or damaged.
    """
    if not out.exists():
        return []
    names, rows = read_rows(out, lambda names: ("step", "trajectories"))
    if not {"suite", *IDENTITY, "step", "trajectories", *PROVENANCE} <= set(names):
        raise ExperimentError(f"{out} is no collected CSV: name another --out")
    return rows


def packed_configs(configs: list[dict[str, Any]]) -> dict[str, Any]:
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

    Raises:
        ExperimentError: they are not there, or ``varying`` names other fields.
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
