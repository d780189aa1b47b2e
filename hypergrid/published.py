"""This suite's curves over those of the published code: a picture and a table, from CSV files alone.

    python -m hypergrid.published [OURS.csv] [--out FOLDER]

``results/published_curves.csv`` holds curves of the published code (its commit 2ebc8c8, seed 1, defects that change
speed only switched off), measured for this project. OURS.csv, by default ``results/published_ours.csv``, is collected
from the runs of ``sweeps/published.sh``. The question to each cell is whether the published curve could be a seed
of ours: the 95% prediction interval of a further draw, from mean and standard deviation of our seeds (Student's t).
Writes published.png and published.md beside OURS.csv, or into ``--out``, and prints the table.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from scipy import stats

from hypergrid.colours import COLOURS
from hypergrid.files import save_picture, write_text
from hypergrid.tables import OBJECTIVES, output_folder, read, versions_of
from hypergrid.terminal import ExperimentError

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).resolve().parent / "results"
CELL = ["environment", "objective", "approach"]
AT = (8_000, 16_000, 24_000, 32_000, 80_000)  # trajectories
MIN_SEEDS = 2


def prediction_interval(values: np.ndarray) -> tuple[float, float]:
    """Where one more draw lies with probability 0.95, given (S,) independent normal ones, S at least 2."""
    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / n)
    return values.mean() - half, values.mean() + half


def comparisons(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and number of trajectories in ``AT`` that both have, l1_dist times 1e6.

    Raises:
        ExperimentError: a published cell has fewer than two seeds of ours.
    """
    rows = []
    for cell, curve in published.groupby(CELL, sort=False):
        runs = ours[(ours[CELL] == list(cell)).all(axis=1)]
        if runs["seed"].nunique() < MIN_SEEDS:
            raise ExperimentError(
                f"{', '.join(cell)} has fewer than {MIN_SEEDS} seeds: run sweeps/published.sh and collect"
            )
        for x in AT:
            theirs = curve.loc[curve["trajectories"] == x, "l1_dist"].to_numpy() * 1e6
            values = runs.loc[runs["trajectories"] == x].sort_values("seed")["l1_dist"].to_numpy() * 1e6
            if len(theirs) and len(values) >= MIN_SEEDS:
                low, high = prediction_interval(values)
                found = {"trajectories": x, "published": theirs, "ours": values, "low": low, "high": high}
                rows.append(dict(zip(CELL, cell, strict=True)) | found)
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame, origin: str) -> str:
    """The comparisons as a table in Markdown."""
    lines = [
        "| reward | objective | P_B | trajectories | published | ours, seed by seed | ours / published "
        "| one more seed (95%) | there |",
        "|---" * 9 + "|",
    ]
    for row in table.itertuples():
        inside = all(row.low <= value <= row.high for value in row.published)
        cells = [row.environment, OBJECTIVES[row.objective], row.approach, f"{row.trajectories:,}"]
        cells += [", ".join(f"{value:.2f}" for value in values) for values in (row.published, row.ours)]
        cells += [f"{row.ours.mean() / row.published.mean():.3f}", f"{row.low:.2f} to {row.high:.2f}"]
        lines.append("| " + " | ".join([*cells, "yes" if inside else "**no**"]) + " |")
    return (
        "\n".join(
            [*lines, "", f"`l1_dist` x 1e6; TB on the grid of height 8, the others of height 20. Ours: {origin}."]
        )
        + "\n"
    )


def draw(ours: pd.DataFrame, published: pd.DataFrame) -> matplotlib.figure.Figure:
    """A panel per cell: our seeds thin, the published curve dashed."""
    cells = list(published.groupby(CELL, sort=False))
    columns = 4
    rows = -(-len(cells) // columns)
    picture, axes = plt.subplots(rows, columns, figsize=(3 * columns, 2.4 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(cells) :]:
        axis.axis("off")
    for axis, (cell, curve) in zip(axes.flat, cells, strict=False):
        environment, objective, approach = cell
        runs = ours[(ours[CELL] == list(cell)).all(axis=1) & (ours["trajectories"] <= curve["trajectories"].max())]
        for number, (_, run) in enumerate(runs.groupby("seed")):
            label = "this suite, one line a seed" if number == 0 else None
            axis.plot(run["trajectories"], run["l1_dist"], color=COLOURS[approach], linewidth=0.8, label=label)
        axis.plot(curve["trajectories"], curve["l1_dist"], "k--", linewidth=1.2, label="published code")
        axis.set_title(f"{environment}, {OBJECTIVES[objective]}, {approach}", fontsize=9)
        axis.set_yscale("log")
        axis.tick_params(labelsize=7, which="both")
        axis.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
        axis.legend(fontsize=6, frameon=False)
    picture.supxlabel("trajectories", fontsize=9)
    picture.supylabel("l1_dist (mean over states)", fontsize=9)
    return picture


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hypergrid.published", description=__doc__.splitlines()[0])
    parser.add_argument(
        "results", nargs="*", type=Path, default=[RESULTS / "published_ours.csv"], help="our runs, collected"
    )
    parser.add_argument("--out", type=Path, help="folder to write to (beside the CSV)")
    arguments = parser.parse_args(argv)
    try:
        ours, published = read(arguments.results, "hypergrid"), pd.read_csv(RESULTS / "published_curves.csv")
        page = markdown(comparisons(ours, published), versions_of(ours))
        folder = output_folder(arguments)
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_text(folder / "published.md", page)
    save_picture(draw(ours, published), folder / "published.png", dpi=150)
    print(page, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
