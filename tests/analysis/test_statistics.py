"""Statistics of several seeds against numbers by hand and against all resamples, enumerated."""

import itertools

import numpy as np
import pytest
from each import each

from hypergrid.analysis.statistics import (
    band,
    compare,
    difference_of_means,
    interquartile_mean,
    interval,
    probability_of_improvement,
)
from hypergrid.suite import CHOICE


@each(
    "values,expected",
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 9.0], 4.0),  # a quarter of three is none
        ([9.0, 1.0, 2.0, 3.0], 2.5),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 100.0], 2.5),  # one of six at each end
        ([-50.0, -50.0, 1.0, 2.0, 3.0, 6.0, 90.0, 90.0], 3.0),  # two of eight
    ],
)
def test_the_interquartile_mean_by_hand(values, expected):
    assert interquartile_mean(np.array(values)) == pytest.approx(expected)
    assert interquartile_mean(np.array([values, values]).T) == pytest.approx([expected, expected])


def test_a_band_of_few_seeds_goes_from_the_smallest_to_the_largest():
    low, high = band(np.array([[1.0, 5.0], [3.0, 4.0], [2.0, 9.0], [2.5, 8.0]]))
    assert low.tolist() == [1.0, 4.0] and high.tolist() == [3.0, 9.0]


def test_a_band_of_five_seeds_is_the_interval_of_all_resamples():
    values = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
    resamples = np.sort(np.array(list(itertools.product(values, repeat=5))), axis=1)
    low, high = band(np.stack([values, -values], 1))
    require_quantiles((low[0], high[0]), resamples[:, 1:-1].mean(1))
    require_quantiles((-high[1], -low[1]), resamples[:, 1:-1].mean(1))
    assert low[0] > 0.0 and high[0] < 8.0  # not the extremes


def require_quantiles(edges, resamples):
    """What 2,000 resamples may say of the 2.5% and 97.5% quantiles of all of them."""
    low, high = np.quantile(resamples, [0.015, 0.035]), np.quantile(resamples, [0.965, 0.985])
    assert low[0] - 1e-9 <= edges[0] <= low[1] + 1e-9 and high[0] - 1e-9 <= edges[1] <= high[1] + 1e-9


@each(
    "ours,theirs,expected",
    [
        ([2.0], [1.0], 1.0),
        ([1.0], [1.0], 0.5),
        ([1.0, 3.0], [2.0, 3.0], (0 + 0 + 1 + 0.5) / 4),
        ([1.0, 2.0, 3.0], [0.0, 2.0], (1 + 0 + 1 + 0.5 + 1 + 1) / 6),
        ([0.0, 0.0], [1.0, 2.0, 3.0], 0.0),
    ],
)
def test_the_probability_of_improvement_by_hand(ours, theirs, expected):
    assert probability_of_improvement(np.array(ours), np.array(theirs)) == pytest.approx(expected)
    assert probability_of_improvement(np.array(theirs), np.array(ours)) == pytest.approx(1 - expected)


def test_the_interval_is_that_of_all_pairs_of_resamples():
    ours, theirs = np.array([1.0, 3.0, 5.0, 6.0]), np.array([0.0, 2.0, 4.0, 5.0])
    of_ours = np.array(list(itertools.product(ours, repeat=4)))
    of_theirs = np.array(list(itertools.product(theirs, repeat=4)))
    difference = of_ours[:, None, :, None] - of_theirs[None, :, None, :]
    shares = ((difference > 0) + 0.5 * (difference == 0)).mean((2, 3)).ravel()
    low, high = interval(probability_of_improvement, ours, theirs)
    require_quantiles((low, high), shares)
    assert 0.1 < low < 0.4 and high > 0.9


def test_an_interval_resamples_both_sides_and_is_the_same_again():
    ours, theirs = np.arange(6.0), np.full(5, 2.5)
    low, high = interval(difference_of_means, ours, theirs)
    assert low < 0 < high and (low, high) == interval(difference_of_means, ours, theirs)
    assert interval(difference_of_means, theirs, theirs) == (0.0, 0.0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_seeds_have_no_interval(n):
    assert interval(probability_of_improvement, np.arange(n) + 10.0, np.arange(8.0)) is None
    assert interval(probability_of_improvement, np.arange(8.0), np.arange(n) + 10.0) is None


@each(
    "ours,verdict",
    [
        ((4, 5, 6, 7), "supported"),
        ((3, 5, 6, 7), "supported"),
        ((3, 4, 6, 7), "undecided"),
        ((2, 5, 6, 7), "undecided"),
        ((2, 4, 5, 7), "undecided"),
    ],
)
def test_four_of_eight_ranks_are_decided_alike_on_both_sides(ours, verdict):
    theirs = np.array(sorted({*range(8)} - {*ours}))
    turned = {"supported": "contradicted", "undecided": "undecided"}[verdict]
    assert compare(np.array(ours), theirs, "better", CHOICE).verdict == turned  # a distance: smaller is better
    assert compare(theirs, np.array(ours), "better", CHOICE).verdict == verdict


def test_runs_that_hardly_differ_are_not_better():
    stuck, apart = np.array([1.0, 1.0001, 1.0002, 1.0003]), np.array([2.0, 2.0001, 2.0002, 2.0003])
    assert compare(stuck, stuck + 0.0005, "better", CHOICE).verdict == "undecided"
    assert compare(stuck, stuck + 0.001, "better", CHOICE).verdict == "supported"
    assert compare(stuck, apart, "better", CHOICE).verdict == "supported"
