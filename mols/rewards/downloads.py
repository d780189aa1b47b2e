"""Where data files come from: a folder that the user names, the user's cache, or a download into it.

    --data_dir, else the folder that GFLOWNET_TLM_DATA names, else ~/.cache/gflownet-tlm, else the file's public address

A file is used if its sha256 is the one in the table here, wherever it lies. A folder given as --data_dir must hold the
file; of the other places, the first that has it counts.
"""

import hashlib
import math
import os
import tempfile
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tqdm import tqdm

from mols.common.terminal import ExperimentError

VARIABLE = "GFLOWNET_TLM_DATA"
TIMEOUT_S = 30.0  # without a byte
CHUNK_BYTES = 1 << 16


class Unavailable(ExperimentError):
    """A file is at none of the places where it may lie, and cannot be downloaded.

    Args:
        reason: a clause.
        mend: another.
    """

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(f"{reason}: {mend}")
        self.reason = reason


class DataFile(NamedTuple):
    """A file that the project uses and does not contain.

    Attributes:
        name: as it is called in every folder.
        url: public address; None where there is none.
        sha256: of its bytes, in hexadecimal.
        instead: what to do without it, as the end of a sentence.
    """

    name: str
    url: str | None
    sha256: str
    instead: str = ""


FILES = MappingProxyType({file.name: file for file in (
    DataFile(
        "bengio2021flow_proxy.pkl.gz",
        "https://github.com/GFNOrg/gflownet/raw/master/mols/data/pretrained_proxy/best_params.pkl.gz",
        "f76ab480b62e23dda04fd45fefe0e7ae2374b3f8c3f18fb7e00651cad05b9e1f",
        instead="let a run use --proxy surrogate",
    ),
    DataFile(
        "seh_test_set.csv",
        None,
        "db43fcc0e4b9712bc88f0fc45592e30cf30b8615245204bcc8440e52805ffc47",
        instead="use --test_set generated",
    ),
)})  # fmt: skip


def find(name: str, data_dir: str | Path | None = None, seconds: float = math.inf) -> Path:
    """The path of a file of ``FILES``, its hash checked; it is downloaded if it has to be.

    Args:
        name: of the file.
        data_dir: the only folder to look in; None or empty: GFLOWNET_TLM_DATA, the cache, a download.
        seconds: in which a download must be over.

    Raises:
        Unavailable: the file is not to be had, and no folder was named that ought to have it.
        ExperimentError: a folder is not there, or lacks the file, or the file is another one.
    """
    file = FILES[name]
    try:
        folders = _folders(data_dir)
        for folder in folders:
            if (folder / name).is_file():
                _require_hash(folder / name, file)
                return folder / name
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise ExperimentError(f"cannot look for {name} ({reason}): make it readable, or name another folder") from error
    if file.url is not None and not data_dir:
        return _download(file, cache_folder(), seconds)
    missing = Unavailable(f"{name} is not in {' nor in '.join(map(str, folders))}", f"put it there{_or(file.instead)}")
    raise ExperimentError(str(missing)) if data_dir else missing


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/gflownet-tlm``, by default ``~/.cache/gflownet-tlm``; it need not exist."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "gflownet-tlm"


def _folders(data_dir: str | Path | None) -> list[Path]:
    """Where to look, in this order."""
    for origin, named in (("--data_dir", data_dir), (VARIABLE, os.environ.get(VARIABLE))):
        if named:
            folder = Path(named).absolute()
            if not folder.is_dir():
                raise ExperimentError(f"{origin} is {str(named)!r}, which is no folder: name one, or leave it out")
            return [folder] if data_dir else [folder, cache_folder()]
    return [cache_folder()]


def _require_hash(path: Path, file: DataFile) -> None:
    found = _sha256(path)
    if found != file.sha256:
        mend = "delete it to download it again" if path.parent == cache_folder() and file.url else "replace it"
        raise ExperimentError(
            f"{path} is damaged or another file (its sha256 is {found[:12]}..., not {file.sha256[:12]}...): "
            f"{mend}{_or(file.instead)}"
        )


def _download(file: DataFile, folder: Path, seconds: float) -> Path:
    """Fetch a file into a folder, where it appears complete and checked or not at all."""
    mend = f"put {file.name} into {folder}, or into a folder that --data_dir or {VARIABLE} names{_or(file.instead)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as scratch:
            partial = Path(scratch) / file.name
            _fetch(file, partial, seconds)
            if _sha256(partial) != file.sha256:
                raise Unavailable(f"{file.url} is not the file that this program knows (another sha256)", mend)
            return partial.replace(folder / file.name)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Unavailable(f"cannot download {file.url} into {folder} ({reason})", mend) from error


def _fetch(file: DataFile, partial: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    with urllib.request.urlopen(file.url, timeout=min(TIMEOUT_S, seconds)) as response, partial.open("wb") as out:
        n_bytes = response.headers.get("Content-Length")
        total = int(n_bytes) if n_bytes else None
        with tqdm(total=total, desc=file.name, unit="B", unit_scale=True, disable=None) as bar:
            while chunk := response.read1(CHUNK_BYTES):
                out.write(chunk)
                bar.update(len(chunk))
                if time.monotonic() > end:
                    raise TimeoutError(f"not over after {seconds:g} s")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _or(instead: str) -> str:
    return f", or {instead}" if instead else ""
