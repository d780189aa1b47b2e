"""Pictures and the list of modes of a run: ``curves.png``, ``top_molecules.png`` and ``modes.csv``."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import matplotlib
import numpy as np
from rdkit import Chem
from rdkit.Chem import Draw

from mols.analysis.labels import COLOURS
from mols.common.files import save_picture, written
from mols.common.run_folder import read_metrics
from mols.evaluation import Found, MoleculeTracker, sorted_modes

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter

N_DRAWN = 20
CURVES = (
    ("reward r", [("top_100_reward", "100 best so far"), ("mean_reward", "mean since the last row")], "linear"),
    ("Pearson correlation, log P(x) and log R",
     [("reward_correlation", "test set"), ("reward_correlation_generated", "molecules of the model")], "linear"),
    ("loss of P_F at that step", [("loss", "")], "log"),
    ("mean |log P_B - log uniform| (nats)", [("pb_deviation", "")], "linear"),
    ("diversity of the 100 best (1 - Tanimoto)", [("top_100_diversity", "")], "linear"),
)  # fmt: skip
STYLES = ("-", "--", ":")


def draw_run(directory: Path, molecules: MoleculeTracker) -> None:
    """Write the pictures and ``modes.csv`` into a run folder.

    Args:
        directory: the run folder, with its config.json and metrics.csv.
        molecules: what training found.
    """
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    heading = (
        f"{config['environment']}, {reward_name(config)}: {config['algo']}, P_B {config['backward_approach']}, "
        f"learning rate {config['lr']:g}, seed {config['seed']}"
    )
    modes = [(f"modes_found_{threshold:g}", f"r >= {threshold:g}") for threshold in molecules.thresholds]
    _draw_curves(directory, [("modes found in training", modes, "linear"), *CURVES], config, heading)
    _write_modes(directory / "modes.csv", molecules)
    _draw_molecules(directory / "top_molecules.png", molecules, heading)


def reward_name(config: dict) -> str:
    """What a run's molecules were rewarded by."""
    return f"reward {config['reward']}" if "reward" in config else f"{config['proxy']} proxy"


def _draw_curves(directory: Path, curves: list, config: dict, heading: str) -> None:
    metrics, colour = read_metrics(directory), COLOURS[config["backward_approach"]]
    steps = np.array(metrics["step"])
    figure, axes = plt.subplots(2, 3, figsize=(14, 7.5), layout="constrained")
    for axis, (label, columns, scale) in zip(axes.flat, curves, strict=True):
        axis.set_xlabel("iterations")
        axis.set_ylabel(label)
        axis.xaxis.set_major_formatter(EngFormatter())
        for (column, name), style in zip(columns, STYLES, strict=False):
            values = np.array(metrics[column])
            known = np.isfinite(values)
            marker = "o" if known.sum() < 60 else None
            axis.plot(steps[known], values[known], style, color=colour, marker=marker, mfc="white", label=name)
        if not axis.lines or not any(len(line.get_xdata()) for line in axis.lines):
            axis.text(0.5, 0.5, "not computed in this run", ha="center", va="center", transform=axis.transAxes)
        elif len(columns) > 1:
            axis.legend(frameon=False)
        if scale == "log" and all((line.get_ydata() > 0).all() for line in axis.lines):
            axis.set_yscale("log")
    figure.suptitle(heading)
    save_picture(figure, directory / "curves.png", dpi=120)
    plt.close(figure)


def _write_modes(path: Path, molecules: MoleculeTracker) -> None:
    """The modes of the lowest threshold in the order of their discovery: SMILES, reward, step found."""
    with written(path) as file:
        csv.writer(file, lineterminator="\n").writerows([Found._fields, *molecules.counters[0].modes])


def _draw_molecules(path: Path, molecules: MoleculeTracker, heading: str) -> None:
    """The best molecules that are unlike one another, with their rewards; the best of all where there are no modes."""
    modes = sorted_modes(list(molecules.candidates.values()), molecules.thresholds[0], N_DRAWN)
    shown = [(mode.smiles, mode.reward) for mode in modes] or molecules.top[:N_DRAWN]
    what = "best modes, Tanimoto similarity below 0.7" if modes else "best molecules (no modes yet)"
    with written(path, binary=True) as file:
        draw_grid(file, [(smiles, f"r = {reward:.3f}") for smiles, reward in shown], f"{heading}: {what}")


def draw_grid(file: BinaryIO, molecules: Sequence[tuple[str, str]], title: str) -> None:
    """Draw molecules in rows of five.

    Args:
        file: to write the PNG to.
        molecules: SMILES and the text below each.
        title: above all.
    """
    n_rows = max(1, -(-len(molecules) // 5))
    figure, axis = plt.subplots(figsize=(14, 2.1 * n_rows + 0.5), layout="constrained")
    axis.axis("off")
    if molecules:
        image = Draw.MolsToGridImage(
            [Chem.MolFromSmiles(smiles) for smiles, _ in molecules],
            molsPerRow=5,
            subImgSize=(400, 300),
            legends=[legend for _, legend in molecules],
        )
        axis.imshow(np.asarray(image))
    figure.suptitle(title)
    figure.savefig(file, dpi=90, format="png")
    plt.close(figure)
