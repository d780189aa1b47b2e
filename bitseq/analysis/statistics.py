"""What several seeds say together, and what a comparison of TLM with a baseline says of a claim.

    interquartile mean           mean of the middle half of the seeds; below four seeds, their mean
    band                         95% bootstrap interval of it with five or more seeds, smallest to largest below
    probability of improvement   P(ours > theirs) + P(ours = theirs) / 2 over pairs of a seed of ours and one of theirs

(Agarwal et al. 2021.) Intervals are percentile bootstraps over seeds, each side resampled by itself, with a fixed
random state: the same numbers give the same interval. With few seeds they are too narrow; hence ``MIN_SEEDS``.
A verdict:

    better       the probability of improvement: supported above 0.5, contradicted below
    similar      the difference of interquartile means: supported within the margin, contradicted outside
    not better   the same difference: supported below the margin in our favour, contradicted above it

each by an interval that lies there as a whole; undecided otherwise.
This file is the same, byte for byte, in every suite.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, trim_mean

from ..common.reporting import Metric

CONFIDENCE = 0.95
N_RESAMPLES = 2000
MIN_SEEDS_OF_A_BAND = 5
# Three against three that are wholly apart happen by chance in 2 of 20 orders, four against four in 2 of 70.
MIN_SEEDS = 4
SETTINGS = {"confidence_level": CONFIDENCE, "n_resamples": N_RESAMPLES, "method": "percentile", "rng": 0}

Statistic = Callable[..., np.ndarray]


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean without the lowest and the highest quarter, rounded down, along the axis of the seeds."""
    return trim_mean(values, 0.25, axis=axis)


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge, (X,) each, around the interquartile mean of (S, X) values of S seeds."""
    if len(values) < MIN_SEEDS_OF_A_BAND:
        return values.min(0), values.max(0)
    edges = bootstrap((values,), interquartile_mean, axis=0, vectorized=True, **SETTINGS).confidence_interval
    return edges.low, edges.high


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray, axis: int = -1) -> np.ndarray:
    """Share of the pairs of seeds in which ours is larger, equal pairs counting half.

    Args:
        ours, theirs: (..., S) and (..., T), larger being better.
        axis: of the seeds; the last.
    """
    if axis != -1:
        raise ValueError("the seeds are the last axis")
    difference = np.asarray(ours)[..., :, None] - np.asarray(theirs)[..., None, :]
    return (np.sign(difference) / 2 + 0.5).mean((-2, -1))


def difference_of_means(ours: np.ndarray, theirs: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean of ours minus that of theirs."""
    return interquartile_mean(ours, axis) - interquartile_mean(theirs, axis)


def interval(statistic: Statistic, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float] | None:
    """95% interval of a statistic of two samples; None with fewer than ``MIN_SEEDS`` on either side."""
    if min(len(ours), len(theirs)) < MIN_SEEDS:
        return None
    edges = bootstrap((ours, theirs), statistic, vectorized=True, paired=False, **SETTINGS).confidence_interval
    return float(edges.low), float(edges.high)


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
