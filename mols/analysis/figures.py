"""Figures from collected CSV files: a row of panels per environment, a column per objective, a curve per approach.

    python -m <suite>.analysis.figures RESULTS.csv [...] [--out FOLDER] [--tuning_seeds 1] [--approaches uniform tlm]

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
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from ..common.backward_loss import APPROACHES
from ..common.files import written
from ..common.reporting import ALL, Figure
from ..common.terminal import ExperimentError, command, file_name
from ..suite import FIGURES, SMALL
from . import tables
from .labels import curve_style, label_approach
from .statistics import MIN_SEEDS_OF_A_BAND, band, interquartile_mean
from .tables import OBJECTIVES, RUN, SMALL_SETTING, VALUE

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, NullLocator

# Columns that select_rows adds: the title of the row of panels, what tells curves of one approach apart, and whether
# learning rates were chosen.
PANELS, SETTING, CHOSEN = "panels", "setting", "chosen"
# Without the time: the same CSV gives the same bytes.
FORMATS: dict[str, dict[str, Any]] = {"png": {}, "pdf": {"CreationDate": None}}
LINES = ("-", "--", ":", "-.")
MAX_TITLE = 30  # letters of a line above a panel
BELOW_TITLE: dict[str, Any] = {"xycoords": "axes fraction", "ha": "center", "va": "bottom", "fontsize": 7}
FLOOR: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1, "label": "perfect sampler"}
LABELS = {"trajectories": "trajectories sampled", "step": "iterations", "learning_rate": "learning rate of P_F"}


def select_rows(figure: Figure, table: pd.DataFrame, n_tuning: int, field: str = "") -> pd.DataFrame:
    """The rows of the runs that a figure draws, with the columns above and VALUE; none where it has no curve.

    Args:
        figure: what to draw.
        table: of all runs.
        n_tuning: how many seeds choose a learning rate.
        field: that varies, if the figure is of one.
    """
    rows, chosen = tables.main_runs(table), False
    setting = pd.Series("", rows.index)
    if field:  # NaN is the default of runs that were collected by themselves
        rows, name = tables.settings_of(table, field), field.split(".")[-1]
        setting = rows[field].map(lambda value: f"{name} {'default' if pd.isna(value) else value}")
    elif figure.every_rate or figure.x != "learning_rate":
        chosen = bool((rows.groupby(RUN[:3])["learning_rate"].nunique() > 1).any())
        if figure.every_rate and not chosen:
            return rows[:0]
    mixed = ", small" * (not set(rows["environment"]) <= SMALL.keys())  # else the figure's title says it
    small = {name: figure.environments[of] + mixed for name, of in SMALL.items()}
    title = rows["environment"].replace(figure.environments | small)
    if figure.every_rate:
        title, chosen = title + rows["learning_rate"].map(", rate {:g}".format), False
    added: dict[str, Any] = {PANELS: title, SETTING: setting, CHOSEN: chosen}
    rows = rows.assign(**added)
    if chosen:
        runs = tables.chosen_runs(tables.run_numbers(rows, figure.metric), figure.metric, n_tuning)
        rows = rows.merge(runs[RUN])
    return tables.measured_rows(rows, figure.y)


def draw_figure(figure: Figure, rows: pd.DataFrame, caption: str) -> matplotlib.figure.Figure:
    """The figure of these rows; a panel without runs says so."""
    objectives = [*ALL, *sorted(set(rows["objective"]) - set(ALL))]
    places = [*figure.environments, *sorted(set(rows["environment"]) - set(figure.environments))]
    sort = rows.assign(place=rows["environment"].map(places.index)).sort_values(["place", "learning_rate"])
    titles = list(sort[PANELS].unique())
    if not (figure.every_rate or figure.varied or set(titles).isdisjoint(figure.environments.values())):
        titles = list(dict.fromkeys([*figure.environments.values(), *titles]))
    lines = dict(zip(sorted(rows[SETTING].unique()), LINES * 10, strict=False))
    shape, size = (len(titles), len(objectives)), (2.4 * len(objectives), 2.1 * len(titles) + 1.3)
    picture, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False, sharex=True, sharey="row")
    for title, line in zip(titles, axes, strict=True):
        for objective, axis in zip(objectives, line, strict=True):
            named = textwrap.fill(f"{title}, {OBJECTIVES.get(objective, objective)}", MAX_TITLE)
            axis.set_title(named, fontsize=10, pad=14)
            cell = rows[(rows[PANELS] == title) & (rows["objective"] == objective)]
            if cell.empty:
                axis.text(0.5, 0.5, "no data", ha="center", va="center", transform=axis.transAxes)
            else:
                _draw_panel(axis, cell, figure, lines)
        line[0].set_ylabel(figure.y_label, fontsize=9)
        line[0].set_yscale(figure.y_scale)
        line[0].tick_params(labelleft=title in set(rows[PANELS]))
    for axis in axes[-1]:
        axis.set_xlabel(LABELS[figure.x], fontsize=9)
    if figure.x == "learning_rate":
        rates = sorted(rows["learning_rate"].unique())
        axes[0, 0].set_xscale("log")
        axes[0, 0].set_xticks(rates, [f"{rate:g}" for rate in rates])
        for axis in axes[-1]:
            axis.tick_params(axis="x", labelsize=8)  # else they touch those of the next panel
        axes[0, 0].xaxis.set_minor_locator(NullLocator())
    else:
        axes[0, 0].xaxis.set_major_formatter(EngFormatter(sep=""))
    picture.suptitle(figure.title + SMALL_SETTING * (set(rows["environment"]) <= SMALL.keys()))
    handles = [Line2D([], [], label=label_approach(name), **curve_style(name)) for name in _order(rows)]
    handles += [Line2D([], [], color="grey", linestyle=line, label=name) for name, line in lines.items() if name]
    handles += [Line2D([], [], **FLOOR)] if figure.floor in rows else []
    said = "\n".join(textwrap.wrap(caption, 34 * len(objectives)))
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": min(3, len(handles)), "frameon": False}
    picture.legend(handles=handles, title=said, fontsize=9, title_fontsize=8, **place)
    return picture


def _draw_panel(axis: Axes, rows: pd.DataFrame, figure: Figure, lines: dict[str, str]) -> None:
    for approach in _order(rows):
        for setting, runs in rows[rows["approach"] == approach].groupby(SETTING):
            style = {"linestyle": lines[str(setting)], **curve_style(approach)}
            if figure.x == "learning_rate":
                _draw_rates(axis, tables.run_numbers(runs, figure.metric), style)
            else:
                _draw_curves(axis, runs, figure.x, style)
    seeds = rows.groupby(["approach", "learning_rate", SETTING])["seed"].nunique()
    few = "" if seeds.min() == seeds.max() else f"{seeds.min()} to "
    axis.annotate(f"{few}{seeds.max()} seed{'s' * bool(seeds.max() > 1)}", (0.5, 1.02), **BELOW_TITLE)
    if figure.floor in rows:  # older runs may lack it
        longest = max((run for _, run in rows.groupby(RUN)), key=lambda run: run[figure.x].max())
        longest = longest.sort_values(figure.x)
        axis.plot(longest[figure.x], longest[figure.floor], **FLOOR)


def _draw_curves(axis: Axes, runs: pd.DataFrame, x: str, style: dict[str, Any]) -> None:
    """Thin lines of the seeds, and their mean and band as far as all of them go."""
    seeds = [run[[x, VALUE]].sort_values(x).to_numpy(float).T for _, run in runs.groupby(RUN)]
    start, end = max(seed[0][0] for seed in seeds), min(seed[0][-1] for seed in seeds)
    grid = np.unique(np.concatenate([seed[0] for seed in seeds]))
    grid = grid[(grid >= start) & (grid <= end)]
    values = np.stack([np.interp(grid, *seed) for seed in seeds])
    if len(seeds) > 1:
        for seed in seeds:
            axis.plot(*seed, color=style["color"], linestyle=style["linestyle"], linewidth=0.5, alpha=0.6)
        axis.fill_between(grid, *band(values), color=style["color"], alpha=0.2, linewidth=0)
    axis.plot(grid, interquartile_mean(values), linewidth=1.8, markersize=4, markevery=0.15, **style)


def _draw_rates(axis: Axes, runs: pd.DataFrame, style: dict[str, Any]) -> None:
    """A dot per seed, and mean and band of each learning rate."""
    axis.scatter(runs["learning_rate"], runs[VALUE], s=5, color=style["color"], alpha=0.6)
    rates = sorted(runs["learning_rate"].unique())
    seeds = [runs.loc[runs["learning_rate"] == rate, VALUE].to_numpy()[:, None] for rate in rates]
    axis.plot(rates, [interquartile_mean(values)[0] for values in seeds], linewidth=1.8, markersize=5, **style)
    edges = np.array([band(values) for values in seeds])[:, :, 0].T
    axis.fill_between(rates, *edges, color=style["color"], alpha=0.2, linewidth=0)


def _order(rows: pd.DataFrame) -> list[str]:
    """The approaches in the order of their table, TLM's curves on top; others behind them."""
    present = set(rows["approach"])
    return [*sorted(present - APPROACHES.keys()), *(name for name in APPROACHES if name in present)]


def describe_figure(figure: Figure, rows: pd.DataFrame, files: Sequence[Path], n_tuning: int) -> str:
    """How to read the figure, and where its numbers come from."""
    seeds = rows.groupby([*RUN[:4], SETTING])["seed"].nunique()
    text = ""
    if seeds.max() > 1:
        each, mean = ("Dots", "Lines") if figure.x == "learning_rate" else ("Thin", "Thick")
        text += f"{each}: every seed. {mean}: interquartile mean. Band: from the smallest to the largest; "
        text += f"with {MIN_SEEDS_OF_A_BAND} or more seeds its 95% bootstrap interval. "
    if rows[CHOSEN].any():
        text += f"Learning rates: each approach's best {figure.metric.name} on its {n_tuning} smallest seed"
        text += f"{'s' * (n_tuning > 1)}, shown on its others where there are any. "
    return f"{text}From {', '.join(map(file_name, files))}; {tables.describe_versions(rows)}."


def select_approaches(table: pd.DataFrame, names: Sequence[str] | None) -> pd.DataFrame:
    """The runs of these approaches; all with None. Raises ExperimentError where one of them has no run."""
    present = set(table["approach"].dropna())
    if missing := sorted(set(names or ()) - present):
        has = ", ".join(sorted(present))
        raise ExperimentError(f"--approaches: these files have no run of {missing[0]}: choose among {has}")
    return table if names is None else table[table["approach"].isin(names)]


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = tables.new_parser("figures", __doc__)
    tables.add_arguments(parser)
    parser.add_argument("--approaches", nargs="+", metavar="NAME", help="after the files: draw these alone (all)")
    arguments = parser.parse_args(argv)
    return command(lambda: _write_figures(arguments))


def _write_figures(arguments: argparse.Namespace) -> None:
    """Draw all figures that have a curve; none of the files is replaced before all are drawn."""
    table = select_approaches(tables.read_results(arguments.results), arguments.approaches)
    folder, n_tuning, made = tables.output_folder(arguments), arguments.tuning_seeds, []
    with ExitStack() as files:
        for figure in FIGURES:
            for field in tables.varied_fields(table) if figure.varied else [""]:
                rows = select_rows(figure, table, n_tuning, field)
                if rows.empty:
                    continue
                picture = draw_figure(figure, rows, describe_figure(figure, rows, arguments.results, n_tuning))
                for suffix, metadata in FORMATS.items():
                    name = f"{figure.name}_{field.split('.')[-1]}" if field else figure.name
                    made.append(folder / f"{name}.{suffix}")
                    file = files.enter_context(written(made[-1], binary=True))
                    picture.savefig(file, dpi=200, format=suffix, metadata=metadata)
                plt.close(picture)
    if not made:
        raise ExperimentError("no figure has a curve in these files: collect runs of a backward approach")
    print("\n".join(map(str, made)))


if __name__ == "__main__":
    sys.exit(main())
