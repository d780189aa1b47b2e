"""Pictures of a run: ``curves.png``, the metrics, and ``modes.png``, what was found when and the best strings."""

from pathlib import Path

import matplotlib
import numpy as np
from ml_collections import ConfigDict

from bitseq.agents.base import LearningAgent
from bitseq.analysis.labels import COLOURS
from bitseq.common.files import save_picture
from bitseq.common.run_folder import read_metrics

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import EngFormatter, MaxNLocator

CURVES = (
    ("modes_found", "modes found", "linear"),
    ("mean_log_reward", "mean log R of training strings (nats)", "linear"),
    ("reward_correlation", "Spearman correlation, log P(x) and log R", "linear"),
    ("loss", "loss of P_F at that step", "log"),
    ("pb_deviation", "mean |log P_B - log uniform| (nats)", "linear"),
    ("exact_total_variation", "total variation distance to R/Z, exact", "linear"),
)

PERFECT = {"color": "black", "linestyle": "--", "linewidth": 1, "label": "perfect sampler"}
MAX_LABELLED = 200  # modes, beyond which labels would not be readable


def draw_run(directory: Path, agent: LearningAgent) -> None:
    """Write ``curves.png`` and ``modes.png`` into a run folder.

    Args:
        directory: the run folder, with its metrics.csv.
        agent: the trained one.
    """
    config = agent.config
    colour = COLOURS[config["backward_approach"]]
    heading = (
        f"bit strings n={config['n']}, k={config['k']}: {config['objective']}, P_B {config['backward_approach']}, "
        f"learning rate {config['learning_rate']:g}, seed {config['seed']}"
    )
    _draw_curves(directory, config, colour, heading)
    _draw_modes(directory / "modes.png", agent, colour, heading)


def _draw_curves(directory: Path, config: ConfigDict, colour: str, heading: str) -> None:
    metrics = read_metrics(directory)
    steps = np.array(metrics["step"])
    figure, axes = plt.subplots(2, 3, figsize=(14, 7.5), layout="constrained")
    for axis, (column, label, scale) in zip(axes.flat, CURVES, strict=True):
        axis.set_xlabel("iterations")
        axis.set_ylabel(label)
        axis.set_xlim(0, config["num_iterations"])
        axis.xaxis.set_major_formatter(EngFormatter())
        values = np.array(metrics[column])
        known = np.isfinite(values)
        if not known.any():
            axis.text(0.5, 0.5, "not computed in this run", ha="center", va="center", transform=axis.transAxes)
            axis.set(xticks=[], yticks=[])
            continue
        marker = "o" if known.sum() < 60 else None
        axis.plot(steps[known], values[known], color=colour, marker=marker, mfc="white")
        if scale == "log" and values[known].min() > 0:
            axis.set_yscale("log")
        if column == "modes_found":
            axis.axhline(config["M_size"], color="black", linestyle="--", linewidth=1)
            axis.annotate(f"all {config['M_size']}", (0.01, config["M_size"]), xycoords=("axes fraction", "data"),
                          xytext=(0, 2), textcoords="offset points")  # fmt: skip
            axis.set_ylim(0, 1.1 * config["M_size"])
            axis.yaxis.set_major_locator(MaxNLocator(integer=True))
            axis.plot(steps, metrics["modes_current"], ":", color=colour, label="near the last 1,000 strings")
            axis.legend(frameon=False)
        if column == "mean_log_reward":
            axis.plot(steps, metrics["mean_log_reward_perfect"], **PERFECT)
            axis.legend(frameon=False)
        if column == "reward_correlation":
            _draw_uniform_correlation(axis, steps, np.array(metrics["reward_correlation_uniform"]))
    figure.suptitle(heading)
    save_picture(figure, directory / "curves.png", dpi=120)
    plt.close(figure)


def _draw_uniform_correlation(axis: Axes, steps: np.ndarray, values: np.ndarray) -> None:
    known = np.isfinite(values)
    axis.plot(steps[known], values[known], "x", color="black", label="trajectories from a uniform P_B")
    axis.legend(frameon=False)


def _draw_modes(path: Path, agent: LearningAgent, colour: str, heading: str) -> None:
    """Left, when each mode was found; right, the best string of training against each mode, bit by bit."""
    modes, environment = agent.modes, agent.environment
    found_at = modes.found_at.numpy() / agent.batch_size
    distance = modes.best_distance.numpy()
    order = np.argsort(np.where(found_at < 0, np.inf, found_at), kind="stable")
    rows = np.arange(len(order))
    figure, (when, best) = plt.subplots(
        1,
        2,
        figsize=(14, 3 + 0.11 * min(len(order), MAX_LABELLED)),
        layout="constrained",
        width_ratios=(1, 2),
        sharey=True,
    )
    found = found_at[order] >= 0
    when.plot(found_at[order][found], rows[found], "o", color=colour)
    when.set_xlim(0, agent.n_steps)
    when.set_xlabel("iteration at which the mode was found")
    when.set_ylabel("modes by number, in the order in which they were found")
    when.set_title(f"{modes.modes_found} of {environment.m_size} within {agent.config.mode_threshold} bits")
    when.xaxis.set_major_formatter(EngFormatter())
    if len(order) <= MAX_LABELLED:
        when.set_yticks(rows, order, fontsize=7)
    target = environment.modes.cpu().numpy() < 0
    wrong = environment.bits(modes.best_string.to(environment.device)).cpu().numpy() != target
    # Four shades: the mode's bit 0 or 1, and the same where the best string differs.
    best.imshow((target + 2 * wrong)[order], aspect="auto", interpolation="nearest", cmap=_shades(), vmin=0, vmax=3)
    best.set_xlabel("bit; orange: where the best string of training differs from the mode (grey 0, black 1)")
    best.set_title("best string against each mode; right: its distance in bits")
    for row, value in enumerate(distance[order] if len(order) <= MAX_LABELLED else ()):
        best.text(environment.n - 0.4, row, f"{value}", va="center", fontsize=7)
    figure.suptitle(heading)
    save_picture(figure, path, dpi=120)
    plt.close(figure)


def _shades() -> ListedColormap:
    return ListedColormap(["#DDDDDD", "#333333", "#F5B98A", "#D55E00"])
