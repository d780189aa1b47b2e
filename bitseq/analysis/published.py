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
from . import tables
from .labels import curve_style
from .report import RESULTS, replace_section
from .tables import OBJECTIVES, SUITE

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter, MaxNLocator

CELL = ["environment", "objective", "approach"]
FEWEST_SEEDS = 3
HEADS = (
    "environment",
    "objective",
    "P_B",
    "what",
    "at",
    "published",
    "ours, by seed",
    "one more of ours (95%)",
    "there",
)


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


def compare_curves(ours: pd.DataFrame, theirs: pd.DataFrame, published: Published) -> pd.DataFrame:
    """One row per cell, metric and x that both have: the numbers of both sides and the prediction interval of ours.

    Raises ExperimentError where a published cell has fewer than three seeds of ours.
    """
    found = []
    for cell, curves in theirs.groupby(CELL, sort=False):
        runs = ours[(ours[CELL] == list(cell)).all(axis=1)]
        if runs["seed"].nunique() < FEWEST_SEEDS:
            few = f"{', '.join(map(str, cell))} has fewer than {FEWEST_SEEDS} seeds"
            raise ExperimentError(f"{few}: run sweeps/published.sh and collect its runs")
        for metric in published.metrics:
            for x in published.at:
                sides = [values_at(rows, metric, x, published) for rows in (curves, runs)]
                if len(sides[0]) and len(sides[1]) >= FEWEST_SEEDS:
                    found.append([*cell, metric, x, *sides, *prediction_interval(sides[1])])
    return pd.DataFrame(found, columns=[*CELL, "metric", "x", "published", "ours", "low", "high"])


def describe_comparisons(compared: pd.DataFrame, published: Published, origin: str) -> str:
    """The comparisons in Markdown, and how many of the published values lie in the interval."""
    rows, inside = [], []
    for row in compared.to_dict("records"):
        hits = [row["low"] <= value <= row["high"] for value in row["published"]]
        inside += hits
        cells = [row["environment"], OBJECTIVES[row["objective"]], row["approach"], published.metrics[row["metric"]]]
        cells += [f"{row['x']:,}", *(", ".join(map("{:.3g}".format, row[side])) for side in ("published", "ours"))]
        rows.append([*cells, f"{row['low']:.3g} to {row['high']:.3g}", "yes" if all(hits) else "**no**"])
    counts = f"{sum(inside)} of {len(inside)} published values lie in the interval."
    return f"{tables.markdown_table(HEADS, rows)}\n\n{counts}\nOurs: {origin}.\n"


def draw_curves(ours: pd.DataFrame, theirs: pd.DataFrame, published: Published) -> matplotlib.figure.Figure:
    """A panel per cell and metric: our seeds thin, the published curves dashed."""
    metrics, x, order = published.metrics, published.x, list(OBJECTIVES)
    theirs = theirs.sort_values("objective", key=lambda names: names.map(order.index), kind="stable")
    panels = [(cell, curves, metric) for cell, curves in theirs.groupby(CELL, sort=False) for metric in metrics]
    columns = len(metrics) if len(metrics) > 1 else 4
    shape = -(-len(panels) // columns), columns
    size = (2.5 * shape[1], 2.0 * shape[0])
    picture, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (cell, curves, metric) in zip(axes.flat, panels, strict=False):
        environment, objective, approach = map(str, cell)
        runs = ours[(ours[CELL] == list(cell)).all(axis=1) & (ours[x] <= curves[x].max())]
        curves = curves[curves[x] <= runs[x].max()]
        our_style = {"color": curve_style(approach)["color"], "linewidth": 0.8}
        for rows, style in ((runs, our_style), (curves, {"color": "black", "linestyle": "--"})):
            for _, run in rows.dropna(subset=metric).sort_values(x).groupby("seed"):
                axis.plot(run[x], run[metric], **style)
        axis.set_xlim(0, runs[x].max())
        if (runs[metric].dropna() % 1 == 0).all():
            axis.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_title(f"{environment}, {OBJECTIVES[objective]}, {approach}", fontsize=8, y=1.06)  # above 1e-5
        axis.set_ylabel(metrics[metric], fontsize=8)
        axis.tick_params(labelsize=7, which="both")
        axis.yaxis.get_offset_text().set_fontsize(7)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    picture.suptitle("Dashed: the published code. Coloured: this suite, a line per seed.", fontsize=10)
    picture.supxlabel({"step": "iterations", "trajectories": "trajectories sampled"}[x], fontsize=9)
    return picture


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = tables.new_parser("published", __doc__)
    default = [RESULTS / "published_ours.csv"]
    parser.add_argument("results", nargs="*", type=Path, default=default, help="our runs, collected")
    parser.add_argument("--out", type=Path, help="folder to write to (beside the CSV)")
    arguments = parser.parse_args(argv)
    return command(lambda: _write(arguments))


def _write(arguments: argparse.Namespace) -> None:
    if PUBLISHED is None:
        raise ExperimentError(f"no curves of the published code are known for {SUITE.name}")
    ours, theirs = tables.read_results(arguments.results), tables.read_numbers(RESULTS / "published_curves.csv")
    page = describe_comparisons(compare_curves(ours, theirs, PUBLISHED), PUBLISHED, tables.describe_versions(ours))
    folder = tables.output_folder(arguments)
    save_picture(draw_curves(ours, theirs, PUBLISHED), folder / "published.png", dpi=200)
    if arguments.out:
        write_text(folder / "published.md", page)
    else:
        begin, readme = f"<!-- published: python -m {SUITE.name}.analysis.published -->", SUITE / "README.md"
        text = readme.read_text(encoding="utf-8")
        write_text(readme, replace_section(text, page.rstrip(), begin, "<!-- end of published -->"))
    print(page, end="")


if __name__ == "__main__":
    sys.exit(main())
