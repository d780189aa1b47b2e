"""This suite's curves over those of the published code: a picture and a table, from CSV files alone.

    bash <suite>/sweeps/published.sh | python -m <suite>.analysis.launch
    python -m <suite>.analysis.collect runs/published --out <suite>/results/published_ours.csv
    python -m <suite>.analysis.published [OURS.csv] [--out FOLDER]

``results/published_curves.csv`` holds curves of the published code (its commit 2ebc8c8, defects that change speed only
switched off), measured for this project. The question to each cell is whether the published value could be that of one
more seed of ours: the 95% prediction interval of a further draw, from the mean and the standard deviation of our seeds
(Student's t). Writes published.png beside OURS.csv (results/published_ours.csv) and the table between its markers in
the suite's README.md; with ``--out``, published.png and published.md into that folder.
This file is the same, byte for byte, in every suite.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from scipy import stats

from ..common.files import save_picture, write_text
from ..common.reporting import Published
from ..common.terminal import ExperimentError, command
from ..suite import PUBLISHED
from .labels import COLOURS
from .report import replaced
from .tables import OBJECTIVES, output_folder, read, read_file, versions_of

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter

RESULTS = Path(__file__).resolve().parents[1] / "results"
CELL = ["environment", "objective", "approach"]
MIN_SEEDS = 3
HEADS = ("environment", "objective", "P_B", "what", "at", "published", "ours, by seed", "one more of ours (95%)")


def prediction_interval(values: np.ndarray) -> tuple[float, float]:
    """Where one more draw lies with probability 0.95, given (S,) independent normal ones, S at least 2."""
    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / n)
    return values.mean() - half, values.mean() + half


def values_at(rows: pd.DataFrame, metric: str, x: int, published: Published) -> np.ndarray:
    """The metric at x, one number per seed that has a row there."""
    window = published.window if metric in published.averaged else 1
    reached = rows[(rows[published.x] <= x) & (rows[published.x] > x - window)]
    seeds = reached[reached["seed"].isin(reached.loc[reached[published.x] == x, "seed"])]
    return seeds.dropna(subset=metric).groupby("seed")[metric].mean().to_numpy()


def comparisons(ours: pd.DataFrame, theirs: pd.DataFrame, published: Published) -> pd.DataFrame:
    """One row per cell, metric and x that both have: the numbers of both sides and the prediction interval of ours.

    Raises:
        ExperimentError: a published cell has fewer than three seeds of ours.
    """
    found = []
    for cell, curves in theirs.groupby(CELL, sort=False):
        runs = ours[(ours[CELL] == list(cell)).all(axis=1)]
        if runs["seed"].nunique() < MIN_SEEDS:
            few = f"{', '.join(cell)} has fewer than {MIN_SEEDS} seeds"
            raise ExperimentError(f"{few}: run sweeps/published.sh and collect its runs")
        for metric in published.metrics:
            for x in published.at:
                sides = [values_at(rows, metric, x, published) for rows in (curves, runs)]
                if len(sides[0]) and len(sides[1]) >= MIN_SEEDS:
                    found.append([*cell, metric, x, *sides, *prediction_interval(sides[1])])
    return pd.DataFrame(found, columns=[*CELL, "metric", "x", "published", "ours", "low", "high"])


def markdown(table: pd.DataFrame, published: Published, origin: str) -> str:
    """The comparisons in Markdown, and how many of the published values lie in the interval."""
    lines = ["| " + " | ".join((*HEADS, "there")) + " |", "|---" * (len(HEADS) + 1) + "|"]
    inside = [[row.low <= value <= row.high for value in row.published] for row in table.itertuples()]
    for row, hits in zip(table.itertuples(), inside, strict=True):
        cells = [row.environment, OBJECTIVES[row.objective], row.approach, published.metrics[row.metric], f"{row.x:,}"]
        cells += [", ".join(f"{value:.3g}" for value in values) for values in (row.published, row.ours)]
        cells += [f"{row.low:.3g} to {row.high:.3g}", "yes" if all(hits) else "**no**"]
        lines.append("| " + " | ".join(cells) + " |")
    hits = sum(map(sum, inside))
    lines += ["", f"{hits} of {sum(map(len, inside))} published values lie in the interval.", f"Ours: {origin}."]
    return "\n".join(lines) + "\n"


def draw(ours: pd.DataFrame, theirs: pd.DataFrame, published: Published) -> matplotlib.figure.Figure:
    """A row of panels per cell, a column per metric: our seeds thin, the published curves dashed."""
    cells, metrics = list(theirs.groupby(CELL, sort=False)), published.metrics
    panels = [(cell, curves, metric) for cell, curves in cells for metric in metrics]
    columns = len(metrics) if len(metrics) > 1 else 4
    shape = -(-len(panels) // columns), columns
    size = 3.2 * shape[1], 2.4 * shape[0]
    picture, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (cell, curves, metric) in zip(axes.flat, panels, strict=False):
        environment, objective, approach = cell
        runs = ours[(ours[CELL] == list(cell)).all(axis=1) & (ours[published.x] <= curves[published.x].max())]
        ours_style, their_style = {"color": COLOURS[approach], "linewidth": 0.8}, {"color": "black", "linestyle": "--"}
        for rows, style in ((runs, ours_style), (curves, their_style)):
            for _, run in rows.groupby("seed"):
                run = run.dropna(subset=metric).sort_values(published.x)
                axis.plot(run[published.x], run[metric], **style)
        axis.set_xlim(0, runs[published.x].max())
        axis.set_title(f"{environment}, {OBJECTIVES[objective]}, {approach}", fontsize=9)
        axis.set_ylabel(metrics[metric], fontsize=8)
        axis.tick_params(labelsize=7, which="both")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    picture.suptitle("Dashed: the published code. Coloured: this suite, a line per seed.", fontsize=10)
    picture.supxlabel({"step": "iterations"}.get(published.x, published.x), fontsize=9)
    return picture


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    suite = Path(__file__).resolve().parents[1].name
    parser = argparse.ArgumentParser(prog=f"python -m {suite}.analysis.published", description=__doc__.splitlines()[0])
    default = [RESULTS / "published_ours.csv"]
    parser.add_argument("results", nargs="*", type=Path, default=default, help="our runs, collected")
    parser.add_argument("--out", type=Path, help="folder to write to (beside the CSV)")
    arguments = parser.parse_args(argv)
    return command(lambda: _make(suite, arguments))


def _make(suite: str, arguments: argparse.Namespace) -> None:
    if PUBLISHED is None:
        raise ExperimentError(f"no curves of the published code are known for {suite}")
    ours, theirs = read(arguments.results, suite), read_file(RESULTS / "published_curves.csv")
    page = markdown(comparisons(ours, theirs, PUBLISHED), PUBLISHED, versions_of(ours))
    folder = output_folder(arguments)
    save_picture(draw(ours, theirs, PUBLISHED), folder / "published.png", dpi=150)
    if arguments.out:
        write_text(folder / "published.md", page)
    else:
        begin = f"<!-- published: python -m {suite}.analysis.published -->"
        readme = RESULTS.parent / "README.md"
        text = readme.read_text(encoding="utf-8")
        write_text(readme, replaced(text, page.rstrip(), begin, "<!-- end of published -->"))
    print(page, end="")


if __name__ == "__main__":
    sys.exit(main())
