"""How a suite describes its results to the commands that read them: metrics of a run, figures, expectations of a claim.

``suite.py`` has the descriptions themselves. This file is the same, byte for byte, in every suite.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # a run needs a suite's versions, and not a second to import pandas
    import pandas as pd

ALL = ("munchausen_dqn", "db", "tb", "subtb")  # the objectives of the paper's figures, in its order
BASELINES = ("uniform", "naive", "maxent", "pessimistic")  # that the paper compares TLM with
WITHOUT_DECAY = "without decay"  # TLM with a constant learning rate of P_B

Summary = Callable[[np.ndarray, np.ndarray, "pd.DataFrame"], float]


@dataclass(frozen=True)
class Metric:
    """One number per run from a column of its evaluations.

    ``column`` also finds the first ``column_<number>`` that the environment has; ``summary`` takes x, the values and
    the rows of a run; ``margin`` is the difference that still counts as similar, of the baseline if ``relative``.
    """

    name: str
    column: str
    x: str
    summary: Summary
    sign: int  # 1: larger is better
    margin: float
    relative: bool = False


def mean_over_training(x: np.ndarray, values: np.ndarray, rows: "pd.DataFrame") -> float:
    """Mean over evenly spaced x, between which values are linear."""
    return float(np.interp(np.linspace(x[0], x[-1], 1000), x, values).mean())


def excess_over_floor(x: np.ndarray, values: np.ndarray, rows: "pd.DataFrame") -> float:
    """Mean over training of log10(values / l1_floor), at least 0: decades above a perfect sampler."""
    ratio = values / rows["l1_floor"].to_numpy()
    return mean_over_training(x, np.log10(ratio.clip(min=1.0)), rows)


def last(x: np.ndarray, values: np.ndarray, rows: "pd.DataFrame") -> float:
    """The last value."""
    return float(values[-1])


def value_at(place: float) -> Summary:
    """The value at this x, between two rows on the line through them; NaN before the first and after the last."""
    return lambda x, values, rows: float(np.interp(place, x, values, left=np.nan, right=np.nan))


@dataclass(frozen=True)
class Figure:
    """What a figure shows.

    Args:
        name: of its files.
        title: its heading.
        environments: titles of the rows that are drawn with or without data; others where there are some.
        x: trajectories or step; learning_rate for the metric of every run against its learning rate.
        y, y_label, y_scale: the column, as ``Metric.column``, what it is, and linear or log.
        metric: by which an approach's learning rate is chosen.
        floor: column of a reference line.
        every_rate: a row per learning rate, instead of the chosen one.
        varied: a figure for each field that varies, a line style per value.
    """

    name: str
    title: str
    environments: dict[str, str]
    x: str
    y: str
    y_label: str
    metric: Metric
    y_scale: str = "linear"
    floor: str = ""
    every_rate: bool = False
    varied: bool = False


@dataclass(frozen=True)
class Expectation:
    """What a claim expects of TLM against some baselines: better, similar or not better by a metric."""

    claim: str
    environments: tuple[str, ...]
    objectives: tuple[str, ...]
    metric: Metric
    expected: str
    against: tuple[str, ...] = BASELINES


@dataclass(frozen=True)
class Published:
    """Curves of the published code that ours are drawn over (results/published_curves.csv).

    Args:
        x: trajectories or step.
        metrics: columns to compare, and what each is.
        at: values of x at which they are compared.
        averaged: columns whose value is the mean over the rows of the last ``window`` x, of others the row at x counts.
    """

    x: str
    metrics: dict[str, str]
    at: tuple[int, ...]
    averaged: tuple[str, ...] = ()
    window: int = 1
