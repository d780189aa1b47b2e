"""The numbers of a run, by hand."""

import numpy as np
import pandas as pd
import pytest

from hypergrid.common.reporting import excess_over_floor, last, mean_over_training, value_at

X = np.array([0.0, 10.0, 40.0])
VALUES = np.array([8.0, 2.0, 1.0])
NO_ROWS = pd.DataFrame()


def test_the_mean_over_training_is_the_area_under_the_curve():
    area = (10 * (8 + 2) + 30 * (2 + 1)) / 2
    assert mean_over_training(X, VALUES, NO_ROWS) == pytest.approx(area / 40, rel=1e-3)


def test_decades_above_the_floor_do_not_go_below_it():
    floor = pd.DataFrame({"l1_floor": [0.08, 0.2, 4.0]})
    area = (10 * (2 + 1) + 30 * (1 + 0)) / 2  # log10 of 100, of 10, and 0 where the value is below its floor
    assert excess_over_floor(X, VALUES, floor) == pytest.approx(area / 40, rel=1e-3)


@pytest.mark.parametrize(("place", "value"), [(10, 2), (25, 1.5), (-5, np.nan), (90, np.nan)])
def test_the_value_at_a_place_lies_on_the_line_of_its_rows(place, value):
    assert value_at(place)(X, VALUES, NO_ROWS) == pytest.approx(value, nan_ok=True)


def test_the_last_value():
    assert last(X, VALUES, NO_ROWS) == 1
