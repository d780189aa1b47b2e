"""Where a result comes from: results version, commit, command, library versions, machine, time.

Everything here ends in a run folder's meta.json. Runs of one objective and results version belong together, whatever
their commits: ``suite.py`` says when that version is raised. This file is the same, byte for byte, in every suite.
"""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

RECORDED_VERSIONS = ("torch", "torchgfn", "torch-geometric", "rdkit", "numpy", "numba")


def describe_start(
    suite: Path, results_version: int, previous: dict[str, Any], stretch: dict[str, Any]
) -> dict[str, Any]:
    """meta.json of a run that starts or goes on; the first start's facts stay, resumptions are listed.

    Args:
        suite: the suite's package folder.
        results_version: of what is computed with the run's objective.
        previous: the meta.json that is there; empty for a fresh run.
        stretch: device and threads from now on.
    """
    stretch = stretch | {"machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "gpu": _gpu()}}
    if previous:
        now_on = {"start": now(), "git_hash": _git(suite, "rev-parse", "HEAD"), **stretch}
        resumed = [*previous.get("resumed", []), now_on]
        return previous | {"resumed": resumed, "stop": None, "status": "running"}
    return {
        "suite": suite.name,
        "results_version": results_version,
        "git_hash": _git(suite, "rev-parse", "HEAD"),
        "git_dirty": bool(_git(suite, "status", "--porcelain", ".")),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "versions": {"python": platform.python_version(), **_library_versions()},
        **stretch,
        "start": now(),
        "resumed": [],
        "stop": None,
        "status": "running",
    }


def _gpu() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _library_versions() -> dict[str, str]:
    installed = {d.name: d.version for d in importlib.metadata.distributions()}
    return {name: installed[name] for name in RECORDED_VERSIONS if name in installed}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.decode(errors="replace").strip()


def now() -> str:
    """Local time with its offset from UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
