"""What several seeds say together: interquartile mean, bands, probability of improvement (Agarwal et al. 2021).

    interquartile mean           mean of the middle half of the seeds; below four seeds, their mean
    band                         95% bootstrap interval of it with five or more seeds, smallest to largest below
    probability of improvement   P(ours > theirs) + P(ours = theirs) / 2 over pairs of a seed of ours and one of theirs

Intervals are percentile bootstraps over seeds, each side resampled by itself, with a fixed random state: the same
numbers give the same interval. With few seeds they are too narrow; hence ``MIN_SEEDS``.
This file is the same, byte for byte, in every suite.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import bootstrap, trim_mean

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
