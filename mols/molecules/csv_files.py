"""The CSVs that commands read and write, in UTF-8 whatever the locale.

One line is one row. What is read may begin with a byte order mark, end its lines in any way and have blank ones; it has
commas between its cells, and as many cells in each row as in the first.
"""

import csv
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mols.common.files import written
from mols.common.terminal import ExperimentError


def read_columns(path: Path, names: Sequence[str]) -> list[tuple[str, ...]]:
    """The cells of some columns, row by row.

    Args:
        path: of the CSV.
        names: of the columns; it may have others.

    Raises:
        ExperimentError: it cannot be read, is not as this module says, or lacks a column or has it twice.
    """
    columns = f"a CSV with the column{'s' * (len(names) > 1)} {', '.join(names)}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = _rows(path, file)
            head = next(rows, [])
            for name in names:
                if name not in head:
                    advice = "give it a first line with that name, and commas between columns"
                    raise ExperimentError(f"{path} has no column {name}: {advice}")
                if head.count(name) > 1:
                    raise ExperimentError(f"{path} has the column {name} {head.count(name)} times: leave one of them")
            places = [head.index(name) for name in names]
            return [tuple(row[place] for place in places) for row in rows]
    except OSError as error:
        raise ExperimentError(f"cannot read {path} ({error.strerror}): name {columns}") from error
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path} is not a CSV in UTF-8 ({error}): name {columns}") from error


def _rows(path: Path, file: Iterable[str]) -> Iterator[list[str]]:
    """The rows that are not blank; ExperimentError, which names the line, of what is none."""
    reader, line, n_cells = csv.reader(file, strict=True), 1, 0
    try:
        for row in reader:
            if reader.line_num > line:
                raise csv.Error("it ends within quotes")
            if any(map(str.strip, row)):
                n_cells = n_cells or len(row)
                if len(row) != n_cells:
                    raise ExperimentError(f"{path}, line {line} has {len(row)} cells, the first {n_cells}: correct it")
                yield row
            line += 1
    except csv.Error as error:
        raise ExperimentError(
            f"{path}, line {line} is no row ({error}): correct it, there may be a quote too many"
        ) from error


def require_writable(out: Path) -> None:
    """Refuse, before anything is computed, what can be known to fail at the end.

    Raises:
        ExperimentError: ``out`` exists, or its folder does not, or cannot be written into.
    """
    try:
        _require_new(out)
        if not out.parent.is_dir():
            raise ExperimentError(f"{out.parent} is not a folder: make it, or choose another --out")
        if not os.access(out.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ExperimentError(f"cannot write {out} ({error.strerror}): choose another --out") from error


def _require_new(out: Path) -> None:
    if out.exists():
        raise ExperimentError(f"{out} exists: delete it, or choose another name")


def write_table(out: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a new CSV, complete or not at all.

    Args:
        out: there must be none yet.
        rows: the head first.

    Raises:
        ExperimentError: it cannot be written, or is there.
    """
    with written(out) as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
        _require_new(out)


def write_raw(out: Path, rows: Iterable[tuple[str, float | None]]) -> None:
    """Write the new CSV of a network: SMILES and raw output with six decimals; None: an empty cell.

    Raises:
        ExperimentError: as ``write_table``.
    """
    cells = ((smiles, "" if raw is None else f"{raw:.6f}") for smiles, raw in rows)
    write_table(out, [("smiles", "raw"), *cells])
