"""What the networks' commands write: a CSV with the columns smiles and raw."""

import csv
from collections.abc import Iterable
from pathlib import Path

from mols.experiment import ExperimentError


def require_writable(out: Path) -> None:
    """Refuse, before anything is computed, what can be known to fail at the end.

    Raises:
        ExperimentError: ``out`` exists, or its folder does not.
    """
    try:
        if out.exists():
            raise ExperimentError(f"{out} exists: delete it, or choose another --out")
        if not out.parent.is_dir():
            raise ExperimentError(f"{out.parent} is no folder: make it, or choose another --out")
    except OSError as error:
        raise ExperimentError(f"cannot write {out} ({error.strerror}): choose another --out") from error


def write_rows(out: Path, rows: Iterable[tuple[str, float | None]]) -> None:
    """Write a new CSV.

    Args:
        out: there must be none yet.
        rows: SMILES and raw output with six decimals; None: an empty cell.

    Raises:
        ExperimentError: it cannot be written.
    """
    cells = [(smiles, "" if raw is None else f"{raw:.6f}") for smiles, raw in rows]
    try:
        with out.open("x", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("smiles", "raw"), *cells])
    except OSError as error:
        raise ExperimentError(f"cannot write {out} ({error.strerror}): choose another --out") from error
