"""Files written whole or not at all, and CSV files read strictly; whatever is wrong with them is one sentence.

Text is UTF-8, whatever the locale. A name that is no UTF-8 keeps its bytes.
This file is the same, byte for byte, in every suite.
"""

import contextlib
import csv
import errno
import io
import math
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .terminal import ExperimentError, reason

ENCODING, ERRORS = "utf-8", "surrogateescape"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
SEPARATORS = {";": "semicolons", "\t": "tabs"}


@contextmanager
def written(path: Path, *, binary: bool = False) -> Iterator[Any]:
    """A file to write that takes the place of ``path`` once it is whole and on disk; until then nothing changes.

    Raises:
        ExperimentError: the operating system refuses.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        if path.exists() and not path.is_file():
            raise ExperimentError(f"cannot write {path} (it exists, and is not a file): choose another name")
        with partial.open("wb") if binary else partial.open("w", encoding=ENCODING, errors=ERRORS, newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole. Raises ExperimentError."""
    with written(path) as file:
        file.write(text)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file, the whole of it or nothing. Raises ExperimentError."""
    data = f"{line}\n".encode(ENCODING, ERRORS)
    try:
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            if file.write(data) < len(data):
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise _unwritable(path, error) from error


def save_picture(figure: Any, path: Path, dpi: int) -> None:
    """Write a matplotlib figure in the format that the name ends in. Raises ExperimentError."""
    with written(path, binary=True) as file:
        figure.savefig(file, dpi=dpi, format=path.suffix.removeprefix("."))


def make_folder(path: Path) -> None:
    """Make a folder where there is none. Raises ExperimentError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExperimentError(f"cannot create the folder {path} ({reason(error)}): choose another one") from error


def _unwritable(path: Path, error: OSError) -> ExperimentError:
    return ExperimentError(f"cannot write {path} ({reason(error)}): make room, or choose another place")


def read_rows(
    path: Path, numbers: Callable[[list[str]], Collection[str]] = lambda names: (), *, torn: bool = False
) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of a CSV file. A byte order mark, CRLF and blank lines mean nothing.

    Args:
        path: of the file.
        numbers: which of the columns hold finite numbers, or nothing.
        torn: whether the last line may be half written; then it is left out.

    Raises:
        ExperimentError: anything else about it is not plain; names the line or the column.
    """
    lines = _lines(path)
    if not lines:
        raise ExperimentError(f"{path} is empty or not a CSV: make it again")
    (_, names), *rows = lines
    separator = next((what for sign, what in SEPARATORS.items() if len(names) == 1 and sign in names[0]), None)
    if separator:
        raise ExperimentError(f"{path} has {separator} between its cells: save it with commas")
    if twice := [name for name in names if names.count(name) > 1 or not name]:
        what = f"the column {twice[0]} more than once" if twice[0] else "a column without a name"
        raise ExperimentError(f"{path} has {what}: leave one, and name it")
    if torn and rows and len(rows[-1][1]) < len(names) and not path.read_bytes().endswith(b"\n"):
        rows.pop()
    numeric = set(numbers(names))
    for line, cells in rows:
        if len(cells) != len(names):
            raise ExperimentError(f"{path}, line {line} has {len(cells)} cells, not {len(names)}: correct the line")
        for name, cell in zip(names, cells, strict=True):
            if name in numeric and cell and not _is_number(cell):
                raise ExperimentError(
                    f"{path}, line {line} has text in the column {name}: {cell[:40]!r} is not a number"
                )
    return names, [dict(zip(names, cells, strict=True)) for _, cells in rows]


def _is_number(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The lines that are not blank, by their number in the file, as cells without quotes, line breaks and edge spaces.

    Raises:
        ExperimentError: it cannot be read, or has other cells.
    """
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
    except OSError as error:
        raise ExperimentError(f"cannot read {path} ({reason(error)}): name another file") from error
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path} is empty or not a CSV: it is not text in UTF-8, make it again") from error
    lines, line = [], 1
    try:
        for cells in reader:
            if any(set(cell) & {'"', "\n", "\r"} or cell != cell.strip() for cell in cells):
                raise ExperimentError(f"{path}, line {line} has a stray quote or space in a cell: correct the line")
            lines += [(line, cells)] if cells else []
            line = reader.line_num + 1
    except csv.Error as error:
        raise ExperimentError(f"{path}, line {line} has a stray quote or is not a CSV ({error}): correct it") from error
    return lines
