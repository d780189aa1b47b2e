"""Of a sweep's command lines, print those whose runs the results do not have yet.

    bash <suite>/sweeps/<figure>.sh | python -m <suite>.analysis.pending RESULTS.csv | python -m <suite>.analysis.launch

RESULTS.csv (or several) was made by ``collect``. A run is in it if it is there in full length, of today's results
version, and with the configuration that its line asks for. A field that the CSV's configurations lack, because it is
newer, has the value that ``suite.py`` gives it. Lines are read as ``launch`` runs them, at the repository's root.
This file is the same, byte for byte, in every suite.
"""

import contextlib
import shlex
import sys
from math import prod
from pathlib import Path
from typing import Any

from ..common.run_folder import flatten
from ..common.terminal import ExperimentError, command
from ..suite import IDENTITY, LENGTH, NEWER, RESULTS_VERSIONS, configuration
from .collect import run_columns
from .configs import STORAGE, read_configs
from .merging import name_runs, plain, read_collected
from .tables import SUITE, new_parser

AUTO = "auto"  # what the machine decides: config.json has the outcome


class Results:
    """The runs of a collected CSV; none where there is no file. Raises ExperimentError where it is damaged."""

    def __init__(self, path: Path) -> None:
        self._rows = read_collected(path)
        self._configs, self._varying = read_configs(path, []) if len(self._rows) else ([], [])
        self._names = name_runs(self._rows)

    def has(self, config: dict[str, Any]) -> bool:
        """Whether a run of this flattened configuration is there, complete and of today's results version."""
        columns = run_columns(config, self._varying)
        version, length = RESULTS_VERSIONS[columns["objective"]], prod(config[field] for field in LENGTH)
        own = self._rows[self._names == ", ".join(map(plain, columns.values()))]
        whole = (own["results_version"].map(plain) == str(version)) & (own["trajectories"].astype(float) >= length)
        return bool(whole.any()) and any(_agree(config, other) for other in self._configs)


def _agree(asked: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a configuration is what is asked for; seed, storage and what the machine is to decide apart."""
    free = {IDENTITY["seed"], *(key for key, value in asked.items() if value == AUTO)}
    fields = {key for key in asked.keys() | other.keys() - NEWER.keys() if key.split(".")[-1] not in STORAGE}
    return all(asked.get(field) == other.get(field) for field in fields - free)


def read_line(line: str) -> dict[str, Any]:
    """The flattened configuration that a command line asks for.

    Raises:
        ExperimentError: it is not a command of this suite, or a wrong one.
    """
    try:
        config = configuration(shlex.split(line))
    except ValueError as error:
        raise ExperimentError(f"the line {line!r} is not a command ({error}): check its quotes") from error
    if config is None:
        raise ExperimentError(
            f"the line {line!r} is not a run of {SUITE.name}: pipe in what bash {SUITE.name}/sweeps/... prints"
        )
    return flatten(config)


def pending(lines: list[str], paths: list[Path]) -> list[str]:
    """The lines whose runs no CSV has. Raises ExperimentError where a line or a CSV is wrong."""
    for path in paths:
        if not path.exists():
            print(f"there is no {path} yet: it counts as empty", file=sys.stderr)
    results = [Results(path) for path in paths]
    with contextlib.chdir(SUITE.parent):
        configs = {line: read_line(line) for line in map(str.strip, lines) if line and not line.startswith("#")}
    return [line for line, config in configs.items() if not any(known.has(config) for known in results)]


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = new_parser("pending", __doc__)
    parser.add_argument("results", nargs="+", type=Path, help="CSV files that collect made, or will make")
    paths = parser.parse_args(argv).results
    return command(lambda: print(end="".join(f"{line}\n" for line in pending(sys.stdin.read().splitlines(), paths))))


if __name__ == "__main__":
    sys.exit(main())
