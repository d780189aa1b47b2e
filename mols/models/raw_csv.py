"""The CSVs that commands write; those of the networks have the columns smiles and raw."""

import csv
from collections.abc import Iterable, Sequence
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
    write_table(out, [("smiles", "raw"), *((smiles, "" if raw is None else f"{raw:.6f}") for smiles, raw in rows)])


def write_table(out: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write a new CSV of texts.

    Args:
        out: there must be none yet.
        rows: the head first.

    Raises:
        ExperimentError: it cannot be written.
    """
    try:
        with out.open("x", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    except OSError as error:
        raise ExperimentError(f"cannot write {out} ({error.strerror}): choose another --out") from error
