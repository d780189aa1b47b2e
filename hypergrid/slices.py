"""The slice of the grid that a trained model lacks most, as one line of CSV a run.

    python -m hypergrid.slices RUNS... --out slices.csv

RUNS are run folders or folders above them; runs that are not done are left out. Lines that the CSV has of other runs
stay, so that their folders may be gone. A slice is all states with one value of one coordinate. A sampler without
exploration noise can stop visiting one for good, and ``l1_dist`` hardly shows it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from hypergrid.analysis.collect import find_runs, read_origin
from hypergrid.analysis.configs import identity
from hypergrid.analysis.tables import read_cells
from hypergrid.common.files import written
from hypergrid.common.terminal import ExperimentError, command
from hypergrid.evaluation import distances
from hypergrid.torchgfn.estimators import load_agent

# A slice with less of the mass than this is left out: its relative error says little.
SMALLEST_SHARE = 0.005
WHICH = ["environment", "objective", "approach", "learning_rate", "seed", "trajectories", "results_version"]


def slice_masses(distribution: np.ndarray, ndim: int, height: int) -> np.ndarray:
    """(ndim, height) probability of each value of each coordinate, of a (height^ndim,) distribution over states."""
    grid = distribution.reshape((height,) * ndim)
    return np.array([grid.sum(tuple(other for other in range(ndim) if other != axis)) for axis in range(ndim)])


def least_served(learned: np.ndarray, true: np.ndarray) -> tuple[int, int, float]:
    """Coordinate (from 1) and value of the slice that has the least of its due, and the part of it that it has.

    Args:
        learned: (ndim, height) probabilities of the slices under the model.
        true: the same under R/Z; slices below ``SMALLEST_SHARE`` do not count, unless all are.
    """
    counted = true >= min(SMALLEST_SHARE, true.max())
    part = np.where(counted, learned / true, np.inf)
    axis, value = np.unravel_index(part.argmin(), part.shape)
    return int(axis) + 1, int(value), float(part[axis, value])


def describe(run: Path) -> dict[str, str]:
    """What a run is, its exact total variation, the slice that it lacks most, and the part that it has of it."""
    agent = load_agent(run)
    environment = agent.environment
    if not environment.enumerated:
        raise ExperimentError(f"{run} is of a grid too large to list: leave it out")
    learned, true = agent.exact_distribution(), environment.true_distribution
    masses = (slice_masses(table, environment.ndim, environment.height) for table in (learned, true))
    coordinate, value, part = least_served(*masses)
    config, origin = read_origin(run)
    who = identity(config)
    return {name: str(who[name]) for name in WHICH[:5]} | {
        "trajectories": str(config["general.n_trajectories"]),
        "results_version": origin["results_version"],
        "exact_total_variation": f"{distances(learned, true)['total_variation']:.4f}",
        "coordinate": str(coordinate),
        "value": str(value),
        "part_of_its_due": f"{part:.3f}",
    }


def collect_slices(paths: list[Path], out: Path) -> int:
    """Write the CSV; lines that it has of other runs stay. Returns the number of its lines.

    Raises:
        ExperimentError: a run or the CSV cannot be read, or two lines of one run would differ.
    """
    lines = pd.DataFrame([describe(run) for run in find_runs(paths, unfinished=False)])
    if out.exists():
        old = read_cells(out)
        if list(old) != list(lines):
            raise ExperimentError(f"{out} is not a CSV of this command: name another --out")
        lines = pd.concat([old, lines])
    lines = lines.drop_duplicates().sort_values(WHICH)
    if len(twice := lines[lines.duplicated(WHICH)]):
        run = ", ".join(twice[WHICH].iloc[0])
        raise ExperimentError(f"the run ({run}) is there twice, with different numbers: name one, or another --out")
    with written(out) as file:
        lines.to_csv(file, index=False, lineterminator="\n")
    return len(lines)


def main(argv: list[str] | None = None) -> int:
    """Look at the runs named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hypergrid.slices", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders above them")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write, or to add to")
    a = parser.parse_args(argv)
    return command(lambda: print(f"{collect_slices(a.runs, a.out)} lines in {a.out}"))


if __name__ == "__main__":
    sys.exit(main())
