"""Figures from collected CSV files: a row of panels per environment, a column per objective, a curve per approach.

    python -m <suite>.analysis.figures results/*.csv [--out FOLDER] [--tuning_seeds 1] [--approaches uniform tlm]

Writes PNG and PDF beside the first CSV, anew where they are there: each figure of ``suite.py`` that has a curve, and
appendix_<field> for each field that ``collect --varying`` named. Every seed is thin, their interquartile mean thick,
the band its 95% bootstrap interval with five or more seeds and the smallest to the largest below.
This file is the same, byte for byte, in every suite.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from ..common.backward_loss import APPROACHES
from ..common.files import written
from ..common.reporting import ALL, Figure
from ..common.terminal import ExperimentError, command, file_name
from ..suite import FIGURES
from .labels import COLOURS, MARKERS, OTHER, label
from .statistics import MIN_SEEDS_OF_A_BAND, band, interquartile_mean
from .tables import (
    OBJECTIVES,
    RUN,
    add_arguments,
    column_of,
    main_runs,
    output_folder,
    read,
    reported,
    rows_of,
    run_numbers,
    settings_of,
    varied_fields,
    versions_of,
)

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, NullLocator

LINES = ("-", "--", ":", "-.")
SETTING = "setting"  # the column that tells curves of one approach apart
CHOSEN = "chosen"  # the column that says whether learning rates were chosen
FLOOR = {"color": "black", "linestyle": "--", "linewidth": 1, "label": "perfect sampler"}
LABELS = {"trajectories": "trajectories", "step": "iterations", "learning_rate": "learning rate"}


Panels = dict[str, dict[str, pd.DataFrame]]  # title of the row -> objective -> rows of the runs in it


def panels_of(figure: Figure, table: pd.DataFrame, n_tuning: int) -> Panels:
    """What each panel draws, SETTING naming what tells apart curves of one approach; empty where there is nothing."""
    rows = main_runs(table).assign(**{SETTING: "", CHOSEN: False})
    known = not figure.every_rate and rows["environment"].isin(figure.environments).any()
    found: Panels = {title: {} for title in figure.environments.values()} if known else {}
    column = column_of(rows, figure.y)
    has_choice = (rows.groupby(RUN[:3])["learning_rate"].nunique() > 1).any()
    if column is None or (figure.every_rate and not has_choice):
        return {}
    if figure.x != "learning_rate" and not figure.every_rate:
        runs = reported(run_numbers(rows, figure.metric), figure.metric, n_tuning)
        rows = rows_of(rows, runs).assign(**{CHOSEN: has_choice})
    return _arranged(rows, figure, found)


def _arranged(rows: pd.DataFrame, figure: Figure, found: Panels) -> Panels:
    by = ["environment", "objective", *(["learning_rate"] if figure.every_rate else [])]
    for (environment, objective, *rate), cell in rows.groupby(by):
        if column_of(cell, figure.y):
            title = figure.environments.get(environment, environment) + "".join(f", rate {value:g}" for value in rate)
            found.setdefault(title, {})[objective] = cell
    return found


def varied_panels(figure: Figure, table: pd.DataFrame, field: str) -> Panels:
    """The panels of a field that varies; NaN is the default of runs that were collected by themselves."""
    rows, short = settings_of(table, field), field.split(".")[-1]
    names = rows[field].map(lambda value: f"{short} {'default' if pd.isna(value) else value}")
    return _arranged(rows.assign(**{SETTING: names, CHOSEN: False}), figure, {})


def draw(figure: Figure, panels: Panels, caption: str) -> matplotlib.figure.Figure:
    """The figure; a panel without runs says so."""
    drawn = pd.concat([rows for row in panels.values() for rows in row.values()])
    objectives = [*ALL, *sorted(set(drawn["objective"]) - set(ALL))]
    lines = dict(zip(sorted(drawn[SETTING].unique()), LINES * 10, strict=False))
    shape = len(panels), len(objectives)
    picture, axes = plt.subplots(
        *shape,
        figsize=(3.2 * shape[1], 2.5 * shape[0] + 1.5),
        layout="constrained",
        squeeze=False,
        sharex=True,
        sharey="row",
    )
    for (title, row), line in zip(panels.items(), axes, strict=True):
        for objective, axis in zip(objectives, line, strict=True):
            axis.set_title(f"{title}, {OBJECTIVES.get(objective, objective)}", fontsize=10)
            if objective in row:
                _draw_panel(axis, row[objective], figure, lines)
            else:
                axis.text(0.5, 0.5, "no data", ha="center", va="center", transform=axis.transAxes)
        line[0].set_ylabel(figure.y_label)
        line[0].set_yscale(figure.y_scale)
        line[0].tick_params(labelleft=bool(row))
    for axis in axes[-1]:
        axis.set_xlabel(LABELS[figure.x])
    if figure.x == "learning_rate":
        rates = sorted(drawn["learning_rate"].unique())
        axes[0, 0].set_xscale("log")
        axes[0, 0].set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes[0, 0].xaxis.set_minor_locator(NullLocator())
    else:
        axes[0, 0].xaxis.set_major_formatter(EngFormatter(sep=""))
    picture.suptitle(figure.title)
    handles = _handles(drawn, figure, lines)
    picture.legend(
        handles=handles,
        title="\n".join(textwrap.wrap(caption, 42 * shape[1])),
        loc="outside lower center",
        ncols=min(4, len(handles)),
        frameon=False,
        fontsize=9,
        title_fontsize=8,
    )
    return picture


def _draw_panel(axis: Axes, rows: pd.DataFrame, figure: Figure, lines: dict[str, str]) -> None:
    for approach in _order(rows):
        for setting, runs in rows[rows["approach"] == approach].groupby(SETTING):
            colour = COLOURS.get(approach, OTHER)
            style = {"color": colour, "marker": MARKERS.get(approach, "."), "linestyle": lines[setting]}
            if figure.x == "learning_rate":
                _draw_rates(axis, run_numbers(runs, figure.metric), style)
            else:
                _draw_curves(axis, runs, figure.x, column_of(rows, figure.y), style)
    if figure.floor in rows:  # older runs may lack it
        longest = max((run for _, run in rows.groupby(RUN)), key=lambda run: run[figure.x].max())
        longest = longest.sort_values(figure.x)
        axis.plot(longest[figure.x], longest[figure.floor], **FLOOR)


def _draw_curves(axis: Axes, runs: pd.DataFrame, x: str, y: str, style: dict[str, str]) -> None:
    """Thin lines of the seeds, and their mean and band as far as all of them go."""
    seeds = [run[[x, y]].dropna().sort_values(x).to_numpy(float).T for _, run in runs.groupby(RUN)]
    seeds = [seed for seed in seeds if seed.size]
    if not seeds:
        return
    if len(seeds) > 1:
        for seed in seeds:
            axis.plot(*seed, color=style["color"], linestyle=style["linestyle"], linewidth=0.5, alpha=0.6)
    start, end = max(seed[0][0] for seed in seeds), min(seed[0][-1] for seed in seeds)
    grid = np.unique(np.concatenate([seed[0] for seed in seeds]))
    grid = grid[(grid >= start) & (grid <= end)]
    values = np.stack([np.interp(grid, *seed) for seed in seeds])
    axis.plot(grid, interquartile_mean(values), linewidth=1.8, markersize=4, markevery=0.15, **style)
    if len(seeds) > 1:
        axis.fill_between(grid, *band(values), color=style["color"], alpha=0.2, linewidth=0)


def _draw_rates(axis: Axes, runs: pd.DataFrame, style: dict[str, str]) -> None:
    """A dot per seed, and mean and band of each learning rate."""
    axis.scatter(runs["learning_rate"], runs["value"], s=5, color=style["color"], alpha=0.6)
    groups = [(rate, cell["value"].to_numpy()[:, None]) for rate, cell in runs.groupby("learning_rate")]
    rates, means = [rate for rate, _ in groups], [interquartile_mean(values)[0] for _, values in groups]
    axis.plot(rates, means, linewidth=1.8, markersize=5, **style)
    edges = np.array([band(values) for _, values in groups])[:, :, 0].T
    axis.fill_between(rates, *edges, color=style["color"], alpha=0.2, linewidth=0)


def _order(rows: pd.DataFrame) -> list[str]:
    """The approaches in the order of their table, TLM's curves on top; others behind them."""
    present = set(rows["approach"])
    return [*sorted(present - APPROACHES.keys()), *(name for name in APPROACHES if name in present)]


def _handles(drawn: pd.DataFrame, figure: Figure, lines: dict[str, str]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=COLOURS.get(name, OTHER), marker=MARKERS.get(name, "."), label=label(name))
        for name in _order(drawn)
    ]
    handles += [Line2D([], [], color="grey", linestyle=line, label=name) for name, line in lines.items() if name]
    return handles + ([Line2D([], [], **FLOOR)] if figure.floor in drawn else [])


def caption_of(figure: Figure, panels: Panels, files: Sequence[Path], n_tuning: int) -> str:
    """How to read the figure, and where its numbers come from."""
    drawn = pd.concat([rows for row in panels.values() for rows in row.values()])
    seeds = drawn.groupby([*RUN[:4], SETTING])["seed"].nunique()
    count = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    text = f"Thin: every seed ({count} a curve). Thick: interquartile mean. Band: "
    text += f"95% bootstrap interval with {MIN_SEEDS_OF_A_BAND} or more seeds, smallest to largest below. "
    if drawn[CHOSEN].any():
        text += f"Learning rates: each approach's best {figure.metric.name} on its {n_tuning} smallest seed"
        text += f"{'s' * (n_tuning > 1)}, shown on its others where there are any. "
    return f"{text}From {', '.join(map(file_name, files))}; {versions_of(drawn)}."


def of_approaches(table: pd.DataFrame, names: Sequence[str] | None) -> pd.DataFrame:
    """The runs of these approaches; all with None.

    Raises:
        ExperimentError: one of them has no run.
    """
    present = set(table["approach"].dropna())
    missing = sorted(set(names or ()) - present)
    if missing:
        has = ", ".join(sorted(present))
        raise ExperimentError(f"--approaches: these files have no run of {missing[0]}: choose among {has}")
    return table if names is None else table[table["approach"].isin(names)]


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    suite = Path(__file__).resolve().parents[1].name
    parser = argparse.ArgumentParser(prog=f"python -m {suite}.analysis.figures", description=__doc__.splitlines()[0])
    add_arguments(parser, suite)
    parser.add_argument("--approaches", nargs="+", metavar="NAME", help="after the files: draw these alone (all)")
    arguments = parser.parse_args(argv)
    return command(lambda: _make(suite, arguments))


def _make(suite: str, arguments: argparse.Namespace) -> None:
    """Draw all figures that have a curve; none of the files is replaced before all are drawn."""
    table = of_approaches(read(arguments.results, suite), arguments.approaches)
    folder, n_tuning, made = output_folder(arguments), arguments.tuning_seeds, []
    with ExitStack() as files:
        for figure in FIGURES:
            parts = {figure.name: None}
            if figure.varied:
                parts = {f"{figure.name}_{field.split('.')[-1]}": field for field in varied_fields(table)}
            for name, field in parts.items():
                panels = varied_panels(figure, table, field) if field else panels_of(figure, table, n_tuning)
                if not any(panels.values()):
                    continue
                picture = draw(figure, panels, caption_of(figure, panels, arguments.results, n_tuning))
                for suffix in ("png", "pdf"):
                    made.append(folder / f"{name}.{suffix}")
                    file = files.enter_context(written(made[-1], binary=True))
                    picture.savefig(file, dpi=150, format=suffix)
                plt.close(picture)
    if not made:
        raise ExperimentError("no figure has a curve in these files: collect runs of a backward approach")
    print("\n".join(map(str, made)))


if __name__ == "__main__":
    sys.exit(main())
