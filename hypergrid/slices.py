"""The slice of the grid that a trained model lacks most, as one line of CSV a run.

    python -m hypergrid.slices RUNS... > slices.csv

RUNS are run folders or folders above them; runs that are not done are left out. A slice is all states with one value
of one coordinate. A sampler without exploration noise can stop visiting one for good, and ``l1_dist`` hardly shows it.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np

from hypergrid.analysis.collect import find_runs, identity
from hypergrid.common.run_folder import flatten
from hypergrid.common.terminal import ExperimentError, command
from hypergrid.evaluation import distances
from hypergrid.torchgfn.estimators import load_agent

# A slice with less of the mass than this is left out: its relative error says little.
SMALLEST_SHARE = 0.005


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


def write_lines(runs: list[Path]) -> None:
    """One line of CSV a run on standard output: what it is, its exact total variation, the slice and its part."""
    found = find_runs(runs, unfinished=False)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    names = ("environment", "objective", "approach", "seed")
    writer.writerow([*names, "trajectories", "exact_total_variation", "coordinate", "value", "part_of_its_due"])
    for run in found:
        agent = load_agent(run)
        environment = agent.environment
        if not environment.enumerated:
            raise ExperimentError(f"{run} is of a grid too large to list: leave it out")
        learned, true = agent.exact_distribution(), environment.true_distribution
        masses = (slice_masses(table, environment.ndim, environment.height) for table in (learned, true))
        coordinate, value, part = least_served(*masses)
        distance = distances(learned, true)["total_variation"]
        config = flatten(json.loads((run / "config.json").read_text(encoding="utf-8")))
        who = [identity(config)[name] for name in names]
        length = config["general.n_trajectories"]
        writer.writerow([*who, length, f"{distance:.4f}", coordinate, value, f"{part:.3f}"])
        sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    """Look at the runs named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hypergrid.slices", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders above them")
    arguments = parser.parse_args(argv)
    return command(lambda: write_lines(arguments.runs))


if __name__ == "__main__":
    sys.exit(main())
