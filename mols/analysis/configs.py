"""The configurations beside a collected CSV: what identifies a run in them, and whether runs belong together.

This file is the same, byte for byte, in every suite.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..common.terminal import ExperimentError
from ..suite import BACKWARD_LEARNING_RATE, IDENTITY, LENGTH, NEWER, OF_APPROACH, OF_ENVIRONMENT

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
APART = "collect them apart, or add --varying {}"


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """environment, objective, approach, learning_rate and seed of a flattened configuration; None where it has none."""
    run: dict[str, Any] = {name: config.get(key) for name, key in IDENTITY.items()}
    others = [(key, config[key]) for key, usual in OF_ENVIRONMENT.items() if key in config and config[key] not in usual]
    words = [value if isinstance(value, str) else f"{key.split('.')[-1]}={value}" for key, value in others]
    return run | {"environment": " ".join([run["environment"], *words])} if others else run


def require_comparable(configs: Sequence[dict[str, Any]], varying: Sequence[str], advice: str = APART) -> None:
    """Refuse configurations that differ in more than what identifies a run.

    A field may follow from the environment, the objective or the learning rate, as a reward's levels, the Munchausen
    coefficient and P_B's learning rate do. How P_B begins, what its own loss trains, and which model samples may follow
    from the approach.
    Raises ExperimentError, which names the field and two of its values, and ends in the advice.
    """
    runs = pd.DataFrame([identity(config) for config in configs])
    for key in sorted(set().union(*configs) - {*IDENTITY.values(), *varying}):
        if key.split(".")[-1] in STORAGE:
            continue
        values = pd.Series([json.dumps(config[key]) if key in config else None for config in configs], dtype=str)
        found = pd.DataFrame({"as it is": values, "in units of P_F's": values})
        if key == BACKWARD_LEARNING_RATE:
            units = pd.to_numeric(values, errors="coerce") / pd.to_numeric(runs["learning_rate"])
            found["in units of P_F's"] = values.mask(units.notna(), units.map("{:.6g}".format))
        by = ["environment", "objective", "approach"] if key in OF_APPROACH else ["environment", "objective"]
        for _, cell in found.groupby([runs[name] for name in by], dropna=False):
            if (cell.nunique() > 1).all():
                first, second = sorted(cell["as it is"].dropna().unique())[:2]
                raise ExperimentError(f"the runs differ in {key} ({first}, {second}): {advice.format(key)}")


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
        configs, before = [NEWER | packed["common"] | rest for rest in packed["runs"]], packed["varying"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExperimentError(
            f"{sidecar_of(out)}, which this needs, is not there or damaged: name another CSV, or collect it anew"
        ) from error
    if varying and set(varying) != set(before):
        raise ExperimentError(f"{out} was collected with --varying {' '.join(before)}: name the same fields, or none")
    return configs, before


def require_alike(paths: Sequence[Path]) -> None:
    """Refuse CSV files whose runs ``collect`` would not put into one; fields that vary on purpose do not count.

    Raises ExperimentError as ``require_comparable`` does, or where configurations beside a CSV are damaged.
    """
    beside = [read_configs(path, []) for path in paths if sidecar_of(path).exists()]
    varying = [field for _, fields in beside for field in fields]
    if configs := [config for found, _ in beside for config in found]:
        require_comparable(configs, [*LENGTH, *varying], "name CSV files that agree")
