"""Pictures of runs: ``curves.png`` and ``distribution.png`` of one run, and several runs in one picture.

python -m hypergrid.plots RUN_DIR [RUN_DIR ...] --out FILE.png
"""

import argparse
import json
import math
import sys
from pathlib import Path

import matplotlib
import numpy as np

from hypergrid.analysis.labels import COLOURS
from hypergrid.common.files import make_folder, save_picture
from hypergrid.common.run_folder import read_metrics
from hypergrid.common.terminal import ExperimentError, command

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter, MaxNLocator

FLOOR_STYLE = {"color": "black", "linestyle": "--", "linewidth": 1}
CURVES = (
    ("l1_dist", "L1 distance to R/Z, mean over states", "log"),
    ("total_variation", "total variation distance to R/Z", "linear"),
    ("kl_dist", "kl_dist (nats)", "log"),
    ("loss", "loss of P_F at that step", "log"),
    ("pb_deviation", "mean |log P_B - log uniform| (nats)", "linear"),
    ("log_z_error", "|estimated - true log Z| (nats)", "log"),
)
# Of a grid whose states are not listed.
LARGE_CURVES = (
    ("mean_log_reward", "mean log R of the last samples (nats)", "linear"),
    ("modes_visited", "modes among the last samples", "linear"),
    ("loss", "loss of P_F at that step", "log"),
    ("pb_deviation", "mean |log P_B - log uniform| (nats)", "linear"),
    ("log_z_error", "|estimated - true log Z| (nats)", "log"),
)


def draw_run(directory: Path, agent) -> None:
    """Write ``curves.png``, and ``distribution.png`` where the states are listed, into a run folder.

    Args:
        directory: the run folder, with its metrics.csv.
        agent: the trained ``hypergrid.agents.base.SamplingAgent``.
    """
    metrics, config = read_metrics(directory), read_config(directory)
    figure, axes = plt.subplots(2, 3, figsize=(14, 7.5), layout="constrained")
    curves = CURVES if agent.environment.enumerated else LARGE_CURVES
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    for axis, (column, label, scale) in zip(axes.flat, curves, strict=False):
        axis.xaxis.set_major_formatter(EngFormatter())
        _draw_metric(axis, metrics, column, label, scale, COLOURS[config["algo"].get("backward_approach")])
        floor = {"l1_dist": 1.0, "total_variation": config["env"]["height"] ** config["env"]["ndim"] / 2}.get(column)
        if floor:
            scaled = np.array(metrics["l1_floor"]) * floor
            axis.plot(metrics["trajectories"], scaled, **FLOOR_STYLE, marker=_marker(scaled), label="perfect sampler")
            axis.legend(frameon=False)
    figure.suptitle(title(config))
    save_picture(figure, directory / "curves.png", dpi=120)
    plt.close(figure)
    if agent.environment.enumerated:
        _draw_distribution(directory / "distribution.png", agent, title(config))


def title(config: dict) -> str:
    """One line that names a run: environment, grid, algorithm, approach, seed."""
    env, algo = config["env"], config["algo"]
    approach = f", P_B {algo['backward_approach']}" if "backward_approach" in algo else ""
    grid = f"hypergrid {env['name']} {env['height']}^{env['ndim']}"
    return f"{grid}, {algo['name']}{approach}, seed {config['general']['seed']}"


def read_config(directory: Path) -> dict:
    """config.json of a run folder of this suite.

    Raises:
        ExperimentError: there is none.
    """
    path = directory / "config.json"
    if not path.is_file() or not (directory / "metrics.csv").is_file():
        raise ExperimentError(f"{directory} is not a run folder: it needs config.json and metrics.csv")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExperimentError(f"{path} is damaged: leave the run out") from error
    if "env" not in config:
        raise ExperimentError(f"{directory} is not a run of the hypergrid: leave it out")
    return config


def _draw_metric(axis, metrics: dict[str, list[float]], column: str, label: str, scale: str, colour: str) -> None:
    steps, values = np.array(metrics["trajectories"]), np.array(metrics[column])
    axis.set_xlabel("trajectories sampled")
    axis.set_ylabel(label)
    known = np.isfinite(values)
    if not known.any():
        axis.text(0.5, 0.5, "this algorithm has none", ha="center", va="center", transform=axis.transAxes)
        return
    shown = values[known]
    axis.plot(steps[known], shown, color=colour, marker=_marker(shown), label="last samples of training")
    exact = {"l1_dist": "exact_l1_dist", "total_variation": "exact_total_variation"}.get(column)
    if exact and np.isfinite(metrics[exact]).any():
        known = np.isfinite(metrics[exact])
        axis.plot(
            steps[known], np.array(metrics[exact])[known], "o", color=colour, mfc="white", label="exact, current P_F"
        )
    if scale == "log" and np.nanmin(values) > 0:
        axis.set_yscale("log")


def _marker(values) -> str | None:
    """A line of one point would not be seen without one."""
    return "." if len(values) == 1 else None


def _draw_distribution(path: Path, agent, heading: str) -> None:
    """True, learned and difference: the 2-D grid itself, or 2-D marginals of the first and last pair of dimensions."""
    environment = agent.environment
    learned = agent.exact_distribution() if agent.exact_is_possible else agent.empirical_distribution()
    kind = "P_F, exact" if agent.exact_is_possible else "last samples of training"
    shape = (environment.height,) * environment.ndim
    true, learned = environment.true_distribution.reshape(shape), learned.reshape(shape)
    pairs = sorted({(0, 1), (environment.ndim - 2, environment.ndim - 1)}) if environment.ndim > 1 else [(0,)]
    figure, axes = plt.subplots(len(pairs), 3, figsize=(12, 3.8 * len(pairs)), layout="constrained", squeeze=False)
    for row, pair in zip(axes, pairs, strict=True):
        rest = tuple(d for d in range(environment.ndim) if d not in pair)
        panels = [np.atleast_2d(table.sum(rest)) for table in (true, learned)]
        top, bound = max(panel.max() for panel in panels), np.abs(panels[1] - panels[0]).max() or 1.0
        names = ("true R/Z", f"learned ({kind})", "learned - true")
        for axis, panel, name in zip(row, (*panels, panels[1] - panels[0]), names, strict=True):
            limits = {"vmin": 0, "vmax": top, "cmap": "viridis"}
            if name == names[2]:
                limits = {"vmin": -bound, "vmax": bound, "cmap": "PuOr_r"}
            image = axis.imshow(panel.T, origin="lower", **limits)
            figure.colorbar(image, ax=axis, shrink=0.8, label="probability")
            axis.set_title(name)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(integer=True))
            axis.set_xlabel(f"coordinate {pair[0] + 1}")
            axis.set_ylabel(f"coordinate {pair[-1] + 1}" if len(pair) > 1 else "")
    figure.suptitle(heading if environment.ndim <= 2 else f"{heading}: two 2-D marginals")
    save_picture(figure, path, dpi=120)
    plt.close(figure)


def draw_comparison(directories: list[Path], out: Path) -> None:
    """l1_dist and total variation of several runs of one environment over trajectories, with the floor.

    Raises:
        ExperimentError: a folder is not a run, has no rows yet, or belongs to another environment.
    """
    configs = [read_config(directory) for directory in directories]
    environments = {json.dumps(config["env"], sort_keys=True) for config in configs}
    if len(environments) > 1:
        raise ExperimentError("the runs belong to different environments: draw each environment by itself")
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    for directory, config in zip(directories, configs, strict=True):
        metrics, algo = read_metrics(directory), config["algo"]
        if not metrics:
            raise ExperimentError(f"{directory} has no rows in metrics.csv yet: wait for its first evaluation")
        if all(map(math.isnan, metrics["l1_dist"])):
            raise ExperimentError(f"{directory} is of a grid too large to list, without distances: see its curves.png")
        label = f"{algo['name']}, P_B {algo.get('backward_approach', '-')}, seed {config['general']['seed']}"
        colour = COLOURS[algo.get("backward_approach")]
        for axis, exact in zip(axes, (None, "exact_total_variation"), strict=True):
            column = "l1_dist" if exact is None else "total_variation"
            values = metrics[column]
            axis.plot(metrics["trajectories"], values, color=colour, marker=_marker(values), label=label)
            if exact:
                axis.plot(metrics["trajectories"], metrics[exact], "o", color=colour, mfc="white")
    longest = max((read_metrics(directory) for directory in directories), key=lambda m: len(m["step"]))
    axes[0].plot(longest["trajectories"], longest["l1_floor"], **FLOOR_STYLE, label="perfect sampler (floor)")
    scale = configs[0]["env"]["height"] ** configs[0]["env"]["ndim"] / 2
    floor = np.array(longest["l1_floor"]) * scale
    axes[1].plot(longest["trajectories"], floor, **FLOOR_STYLE, label="perfect sampler (floor)")
    axes[1].plot([], [], "o", color="grey", mfc="white", label="exact, current P_F (floor 0)")
    axes[0].set_yscale("log")
    axes[0].set_ylabel("L1 distance to R/Z, mean over states")
    axes[1].set_ylabel("total variation distance to R/Z")
    axes[1].set_ylim(0, 1)
    for axis in axes:
        axis.set_xlabel("trajectories sampled")
        axis.xaxis.set_major_formatter(EngFormatter())
        axis.legend(frameon=False)
    env = configs[0]["env"]
    samples = math.ceil(configs[0]["general"]["validation_samples"] / 1000)
    figure.suptitle(f"hypergrid {env['name']} {env['height']}^{env['ndim']}, empirical: last {samples}k samples")
    save_picture(figure, out, dpi=120)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Draw the runs named on the command line into one picture; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hypergrid.plots", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, seed=<k>")
    parser.add_argument("--out", type=Path, required=True, help="the PNG or PDF to write")
    arguments = parser.parse_args(argv)

    def work() -> None:
        if arguments.out.suffix not in (".png", ".pdf"):
            raise ExperimentError(f"--out is {arguments.out}: its name must end in .png or .pdf")
        make_folder(arguments.out.parent)
        draw_comparison(arguments.runs, arguments.out)
        print(arguments.out)

    return command(work)


if __name__ == "__main__":
    sys.exit(main())
