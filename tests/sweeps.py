"""What a sweep prints, as lines and as the configurations that they ask for."""

import contextlib
import os
import re
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

from hypergrid.common.run_folder import flatten

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("*/sweeps/*.sh")) if path.stem != "grid"]
VARIABLES = ("SEEDS", "ENVIRONMENTS", "OBJECTIVES", "APPROACHES", "LEARNING_RATES", "TECHNIQUES", "SCALE", "OUTPUT_DIR")


def sweep(path: str, **variables: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    return subprocess.run(["bash", str(ROOT / path)], cwd="/", env=env, capture_output=True, text=True)


def lines(path: str, **variables: str) -> list[str]:
    done = sweep(path, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def config_of(line: str) -> dict:
    """The flattened configuration of a line, parsed at the repository's root as a run does."""
    name = re.search(r"hypergrid|bitseq|mols", line).group()
    with contextlib.chdir(ROOT):
        return flatten(import_module(f"{name}.suite").configuration(shlex.split(line)))


def configs(path: str, **variables: str) -> list[dict]:
    return [config_of(line) for line in lines(path, **variables)]


def run_tiny(line: str, folder: Path, options: str, python: str) -> list[Path]:
    """Run a printed line with further options; returns the folders of the runs that are done."""
    command = f"{line.replace('python', shlex.quote(python), 1)} {options}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [path.parent for path in folder.rglob("DONE")]
