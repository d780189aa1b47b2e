"""Where a result comes from: code version, commit, command, library versions, machine, time.

    python -m <suite>.provenance    # prints the suite's code version

Everything here ends in a run folder's meta.json. This file is the same, byte for byte, in every suite.
"""

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# A suite's files that start runs or read their results: no part of what a run computes.
TOOLS = ("benchmark", "claims", "collect", "figures", "launch", "plots", "report", "sample")
TOOLS += ("aggregates", "citations", "collected", "colours", "panels", "tables", "verdicts")
RECORDED_VERSIONS = ("torch", "torchgfn", "torch-geometric", "rdkit", "numpy")


def code_version(suite: Path) -> str:
    """12 hex digits over the suite's Python files but its tools: runs of one version are comparable across commits."""
    digest = hashlib.sha256()
    tools = {suite / f"{name}.py" for name in TOOLS}
    for path in sorted(set(suite.rglob("*.py")) - tools):
        digest.update(path.relative_to(suite).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def describe_start(suite: Path, previous: dict[str, Any], stretch: dict[str, Any]) -> dict[str, Any]:
    """meta.json of a run that starts or goes on; the first start's facts stay, resumptions are listed.

    Args:
        suite: the suite's package folder.
        previous: the meta.json that is there; empty for a fresh run.
        stretch: device and threads from now on.
    """
    version = code_version(suite)
    stretch = stretch | {"machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "gpu": _gpu()}}
    if previous:
        resumed = [*previous.get("resumed", []), {"start": now(), "code_version": version, **stretch}]
        if version != previous["code_version"]:
            print(f"warning: resumed with code version {version}, started with {previous['code_version']}")
        return previous | {"resumed": resumed, "stop": None, "status": "running"}
    return {
        "suite": suite.name,
        "git_hash": _git(suite, "rev-parse", "HEAD"),
        "git_dirty": bool(_git(suite, "status", "--porcelain", ".")),
        "code_version": version,
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "versions": {"python": platform.python_version(), **_library_versions()},
        **stretch,
        "start": now(),
        "resumed": [],
        "stop": None,
        "status": "running",
    }


def _gpu() -> str | None:
    import torch  # seconds to import: not for the code version alone

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


if __name__ == "__main__":
    print(code_version(Path(__file__).resolve().parent))
