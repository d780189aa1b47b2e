"""What several seeds say together, and what a comparison of TLM with a baseline says of a claim.

    interquartile mean           mean of the middle half of the seeds; below four seeds, their mean
    band                         95% bootstrap interval of it with five or more seeds, smallest to largest below
    probability of improvement   P(ours > theirs) + P(ours = theirs) / 2 over pairs of a seed of ours and one of theirs

(Agarwal et al. 2021.) Intervals are percentile bootstraps over seeds, each side resampled by itself, with a fixed
random state: the same numbers give the same interval. With few seeds they are too narrow; hence ``MIN_SEEDS``.
A verdict looks at one number, and where it lies if the expectation is right:

    better       the probability of improvement, above 0.5
    similar      the difference of interquartile means, within the margin
    not better   the same difference, below the margin in our favour

supported if the interval lies there as a whole, contradicted if it lies elsewhere as a whole, undecided otherwise.
Where all runs are as good as equal (``LEVEL``), nothing is better.
This file is the same, byte for byte, in every suite.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, trim_mean

from ..common.reporting import Metric

CONFIDENCE = 0.95
N_RESAMPLES = 2000
N_RESAMPLES_OF_A_VERDICT = 20_000  # so that it depends neither on the random state nor on which side is ours
MIN_SEEDS_OF_A_BAND = 5
# By chance, three against three are wholly apart in 2 of 20 orders; four against four are decided in 4 of 70.
MIN_SEEDS = 4
LEVEL = 0.02  # of the margin: runs as close as that are equal, as where none leaves the first corner of a grid
SETTINGS = {"confidence_level": CONFIDENCE, "method": "percentile", "rng": 0, "vectorized": True, "batch": N_RESAMPLES}

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean without the lowest and the highest quarter, rounded down, along the axis of the seeds."""
    return trim_mean(values, 0.25, axis=axis)


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge, (X,) each, around the interquartile mean of (S, X) values of S seeds."""
    if len(values) < MIN_SEEDS_OF_A_BAND:
        return values.min(0), values.max(0)
    edges = bootstrap((values,), interquartile_mean, axis=0, n_resamples=N_RESAMPLES, **SETTINGS).confidence_interval
    return edges.low, edges.high


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Share of the pairs of a seed of ours (..., S) and one of theirs (..., T) in which ours is larger, equal half."""
    return (np.sign(ours[..., :, None] - theirs[..., None, :]) / 2 + 0.5).mean((-2, -1))


def difference_of_means(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Interquartile mean of ours (..., S) minus that of theirs (..., T)."""
    return interquartile_mean(ours, -1) - interquartile_mean(theirs, -1)


def interval(statistic: Statistic, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float] | None:
    """95% interval of a statistic of two samples; None with fewer than ``MIN_SEEDS`` on either side."""
    if min(len(ours), len(theirs)) < MIN_SEEDS:
        return None

    def along_seeds(ours: np.ndarray, theirs: np.ndarray, axis: int) -> np.ndarray:
        return statistic(ours, theirs)  # bootstrap puts the seeds last

    resampled = bootstrap((ours, theirs), along_seeds, paired=False, n_resamples=N_RESAMPLES_OF_A_VERDICT, **SETTINGS)
    edges = resampled.confidence_interval
    return float(edges.low), float(edges.high)


SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
SEEDS_TRIED = (5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40)  # in all, of each side
# Expectation -> the statistic, and where it lies if the expectation is right, given the margin.
RULES: dict[str, tuple[Statistic, Callable[[float], tuple[float, float]]]] = {
    "better": (probability_of_improvement, lambda margin: (0.5, np.inf)),
    "similar": (difference_of_means, lambda margin: (-margin, margin)),
    "not better": (difference_of_means, lambda margin: (-np.inf, margin)),
}


@dataclass(frozen=True)
class Comparison:
    """Numbers of our seeds against theirs; differences and probabilities are in our favour where they are larger.

    A ``small`` difference is within the margin. ``more`` says how many more seeds of each side would decide, as if
    further ones repeated those at hand; None where even the largest number tried would not.
    """

    means: tuple[float, float]
    seeds: tuple[int, int]
    improvement: float
    improvement_interval: tuple[float, float] | None
    difference: float
    difference_interval: tuple[float, float] | None
    small: bool
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
    margin = metric.margin * (float(abs(interquartile_mean(upward[1]))) if metric.relative else 1.0)
    verdict, more = _verdict(*upward, expected, margin) if fresh else UNDECIDED, None
    if verdict == UNDECIDED:
        more = _more_seeds(*upward, expected, margin) if fresh else MIN_SEEDS
    difference = float(difference_of_means(*upward))
    return Comparison(
        means=(float(interquartile_mean(ours)), float(interquartile_mean(theirs))),
        seeds=(len(ours), len(theirs)),
        improvement=float(probability_of_improvement(*upward)),
        improvement_interval=interval(probability_of_improvement, *upward),
        difference=difference,
        difference_interval=interval(difference_of_means, *upward),
        small=abs(difference) <= margin,
        verdict=verdict,
        more=more,
    )


def _verdict(ours: np.ndarray, theirs: np.ndarray, expected: str, margin: float) -> str:
    if expected == "better" and np.ptp([*ours, *theirs]) < LEVEL * margin:
        return UNDECIDED
    statistic, region = RULES[expected]
    edges, (start, end) = interval(statistic, ours, theirs), region(margin)
    if edges is None or (margin == 0 and expected != "better"):  # a tenth of no modes says nothing
        return UNDECIDED
    if start < edges[0] and edges[1] < end:
        return SUPPORTED
    return CONTRADICTED if edges[1] < start or end < edges[0] else UNDECIDED


def _more_seeds(ours: np.ndarray, theirs: np.ndarray, expected: str, margin: float) -> int | None:
    """How many more of each side; with fewer than ``MIN_SEEDS`` their spread is not known: as many as are needed."""
    fewest, most = sorted((len(ours), len(theirs)))
    if fewest < MIN_SEEDS:
        return MIN_SEEDS - fewest
    larger = (n for n in SEEDS_TRIED if n > most)
    decided = (n for n in larger if _verdict(np.resize(ours, n), np.resize(theirs, n), expected, margin) != UNDECIDED)
    return next((n - fewest for n in decided), None)
