"""One comparison of TLM with a baseline: the numbers, their intervals, and what they say about an expectation.

    better       the probability of improvement: supported above 0.5, contradicted below
    similar      the difference of interquartile means: supported within the margin, contradicted outside
    not better   the same difference: supported below the margin in our favour, contradicted above it

each by a 95% bootstrap interval over seeds that lies there as a whole; undecided otherwise.
This file is the same, byte for byte, in every suite.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .aggregates import (
    MIN_SEEDS,
    Statistic,
    difference_of_means,
    interquartile_mean,
    interval,
    probability_of_improvement,
)
from .tables import Metric

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
SEEDS_TRIED = (5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40)  # in all, of each side

Holds = Callable[[float, float, float], bool]
# Expectation -> the statistic, and when its interval (low, high) supports or contradicts, given the margin.
RULES: dict[str, tuple[Statistic, Holds, Holds]] = {
    "better": (
        probability_of_improvement,
        lambda low, high, margin: low > 0.5,
        lambda low, high, margin: high < 0.5,
    ),
    "similar": (
        difference_of_means,
        lambda low, high, margin: -margin <= low and high <= margin,
        lambda low, high, margin: low > margin or high < -margin,
    ),
    "not better": (
        difference_of_means,
        lambda low, high, margin: high <= margin,
        lambda low, high, margin: low > margin,
    ),
}


@dataclass(frozen=True)
class Comparison:
    """Numbers of our seeds against theirs; differences and probabilities are in our favour where they are larger.

    ``more`` says how many more seeds of each side would decide: exactly as if further ones repeated those at hand,
    None where even the largest number tried would not.
    """

    means: tuple[float, float]
    seeds: tuple[int, int]
    improvement: float
    improvement_interval: tuple[float, float] | None
    difference: float
    difference_interval: tuple[float, float] | None
    verdict: str
    more: int | None = None


def compare(ours: np.ndarray, theirs: np.ndarray, expected: str, metric: Metric, fresh: bool = True) -> Comparison:
    """Compare the runs' numbers.

    Args:
        ours, theirs: (S,) and (T,), one number per seed.
        expected: better, similar or not better.
        metric: what the numbers are.
        fresh: whether the seeds took no part in the choice of the learning rate; without such, nothing is decided.
    """
    upward = metric.sign * np.asarray(ours, float), metric.sign * np.asarray(theirs, float)
    margin = metric.margin * (abs(interquartile_mean(upward[1])) if metric.relative else 1.0)
    verdict = _verdict(*upward, expected, margin) if fresh else UNDECIDED
    seeds = len(upward[0]), len(upward[1])
    return Comparison(
        means=(float(interquartile_mean(ours)), float(interquartile_mean(theirs))),
        seeds=seeds,
        improvement=float(probability_of_improvement(*upward)),
        improvement_interval=interval(probability_of_improvement, *upward),
        difference=float(difference_of_means(*upward)),
        difference_interval=interval(difference_of_means, *upward),
        verdict=verdict,
        more=_more_seeds(*upward, expected, margin, fresh) if verdict == UNDECIDED else None,
    )


def _verdict(ours: np.ndarray, theirs: np.ndarray, expected: str, margin: float) -> str:
    statistic, supports, contradicts = RULES[expected]
    edges = interval(statistic, ours, theirs)
    if edges is None or margin == 0:  # a tenth of no modes says nothing
        return UNDECIDED
    if supports(*edges, margin):
        return SUPPORTED
    return CONTRADICTED if contradicts(*edges, margin) else UNDECIDED


def _more_seeds(ours: np.ndarray, theirs: np.ndarray, expected: str, margin: float, fresh: bool) -> int | None:
    """How many more of each side; with fewer than ``MIN_SEEDS`` their spread is not known: as many as are needed."""
    if not fresh:
        return MIN_SEEDS
    fewest, most = sorted((len(ours), len(theirs)))
    if fewest < MIN_SEEDS:
        return MIN_SEEDS - fewest
    for n in SEEDS_TRIED:
        if n > most and _verdict(np.resize(ours, n), np.resize(theirs, n), expected, margin) != UNDECIDED:
            return n - fewest
    return None
