"""Where data files come from: a folder that the user names, the user's cache, or a download into it.

    --data_dir, else the folder that GFLOWNET_TLM_DATA names, else ~/.cache/gflownet-tlm

A file is used if its sha256 is the one in the table here. A folder given as --data_dir must hold the file; into the
others it is downloaded if it has a public address.
"""

import os
import sys
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pooch

from mols.common.terminal import ExperimentError, reason

VARIABLE = "GFLOWNET_TLM_DATA"
TIMEOUT_S = 15  # without a byte


class Unavailable(ExperimentError):
    """A file is not where it may lie, and cannot be downloaded.

    Args:
        what: is wrong.
        advice: how to go on.
    """

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}: {advice}")
        self.what = what


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


def find(name: str, data_dir: str | Path | None = None) -> Path:
    """The path of a file of ``FILES``, its hash checked; it is downloaded if it has to be.

    Args:
        name: of the file.
        data_dir: the only folder to look in; None or empty: GFLOWNET_TLM_DATA or the cache, and a download.

    Raises:
        Unavailable: the file is not available, and no folder was named that should have it.
        ExperimentError: a folder is not there, or lacks the file, or the file is another one.
    """
    file, folder = FILES[name], Path(data_dir).absolute() if data_dir else cache_folder()
    path = folder / name
    try:
        for origin, named in (("--data_dir", data_dir), (VARIABLE, os.environ.get(VARIABLE))):
            if named and not Path(named).is_dir():
                raise ExperimentError(f"{origin} is {str(named)!r}, which is not a folder: name one, or leave it out")
        if not path.is_file():
            missing = Unavailable(f"{name} is not in {folder}", f"put it there{_or(file.instead)}")
            if data_dir:
                raise ExperimentError(str(missing))
            if file.url is None:
                raise missing
            return _download(file, folder)
        found = pooch.file_hash(str(path))
    except OSError as error:
        raise ExperimentError(
            f"cannot look for {name} ({error.filename}: {reason(error)}): make it readable, or name another folder"
        ) from error
    if found != file.sha256:
        raise ExperimentError(
            f"{path} is damaged or another file (its sha256 is {found[:12]}..., not {file.sha256[:12]}...): "
            f"replace it, or delete it to download it again{_or(file.instead)}"
        )
    return path


def cache_folder() -> Path:
    """What GFLOWNET_TLM_DATA names, else ``~/.cache/gflownet-tlm`` or this system's like; it need not exist."""
    return Path(os.environ.get(VARIABLE) or pooch.os_cache("gflownet-tlm")).absolute()


def _download(file: DataFile, folder: Path) -> Path:
    """Fetch a file into a folder, where it appears complete and checked or not at all."""
    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_S)
    try:
        path = pooch.retrieve(file.url, f"sha256:{file.sha256}", file.name, folder, downloader=downloader)
    except (OSError, ValueError) as error:  # the network, the folder; another hash
        raise Unavailable(
            f"cannot download {file.url} into {folder} ({' '.join(str(error).split())})",
            f"put {file.name} there, or into a folder that --data_dir names{_or(file.instead)}",
        ) from error
    return Path(path)


def _or(instead: str) -> str:
    return f", or {instead}" if instead else ""
