"""metrics.csv: cut back on resume, damaged, newer columns, values that are not finite."""

import math

import pytest
from run_folders import (
    COLUMNS,
    FLAG,
    Weights,
    begin,
    refusal,
    row,
    train,
    unfinished,
)

from hypergrid.common.run_folder import read_metrics


def test_metrics_are_cut_back_and_a_torn_line_is_dropped(open_run):
    directory = unfinished(open_run(), steps=range(1, 8), checkpoint=5)
    path = directory / "metrics.csv"
    whole = path.read_text().splitlines()
    path.write_text("\n".join(whole[:-1]) + "\n" + whole[-1][:9])
    begin(open_run("resume"))
    assert path.read_text() == "\n".join(whole[:6]) + "\n"


def test_the_first_row_after_a_torn_line_is_whole(open_run):
    directory = unfinished(open_run(), steps=range(1, 4), checkpoint=3)
    with (directory / "metrics.csv").open("a") as file:
        file.write("4,64")
    train(open_run("resume"), steps=range(4, 6), checkpoint=5)
    assert read_metrics(directory)["step"] == [1, 2, 3, 4, 5]
    assert read_metrics(directory)["l1_dist"] == [1 / step for step in range(1, 6)]


def test_a_run_goes_on_with_a_column_that_it_did_not_have(open_run):
    directory = unfinished(open_run(), steps=range(1, 4), checkpoint=3)
    path = directory / "metrics.csv"
    *known, newer = path.read_text().splitlines()[0].split(",")
    path.write_text("".join(line.rpartition(",")[0] + "\n" for line in path.read_text().splitlines()))
    train(open_run("resume"), steps=range(4, 6), checkpoint=5)
    metrics = read_metrics(directory)
    assert tuple(metrics) == (*known, newer) and metrics["step"] == [1, 2, 3, 4, 5]
    assert [cell == "" for cell in (line.split(",")[-1] for line in path.read_text().splitlines()[1:4])] == [True] * 3


DAMAGED = [  # what it is replaced by, where, and what is said
    ("step", "epoch", "other columns"),
    ("step,", "", "line 2 has 8 cells, not 7"),
    ("step", "loss", "has the column loss more than once"),
    ("\n2,", "\nx,", "line 3 has text in the column step: 'x' is not a number"),
    ("\n2,", '\n"2,', "line 3 has a stray quote"),
    (None, "", "is empty"),
]


def test_damaged_metrics_are_refused_and_left_alone(open_run):
    directory = unfinished(open_run(), steps=range(1, 4), checkpoint=3)
    path = directory / "metrics.csv"
    whole = path.read_text()
    for old, new, said in DAMAGED:
        path.write_text(whole.replace(old, new, 1) if old else new)
        before = path.read_bytes()
        message = refusal(begin, open_run("resume"))
        assert said in message and f"{FLAG}=overwrite" in message
        assert path.read_bytes() == before


def test_a_missing_value_is_an_empty_cell(open_run):
    run = open_run()
    with run.recorded(COLUMNS):
        run.write_row(row(7, pb_loss=None, log_z_error=0.1))
        run.write_row(row(8, l1_dist=0.0))
    _, first, second = (run.directory / "metrics.csv").read_text().splitlines()
    assert first == "7,112,0.5,1.25,,,,0.1"
    assert second == "8,128,0.5,1.25,,,0.0,"
    metrics = read_metrics(run.directory)
    assert tuple(metrics) == run.columns
    assert math.isnan(metrics["l1_dist"][0])
    assert metrics["l1_dist"][1] == 0.0


def test_a_row_is_on_disk_at_once_and_exact(open_run):
    run, value = open_run(), 0.1 + 0.2
    with run.recorded(COLUMNS):
        run.write_row(row(1, l1_dist=value))
        assert read_metrics(run.directory)["l1_dist"] == [value]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", ["loss", "l1_dist"])
def test_a_metric_that_is_not_finite_is_an_error(open_run, bad, column):
    run = open_run()
    with run.recorded(COLUMNS):
        run.write_row(row(1))
        assert "no checkpoint was written yet" in refusal(run.write_row, row(2) | {column: bad})
        run.save(Weights(1.0), 1)
        message = refusal(run.write_row, row(2) | {column: bad})
        assert f"step 2: {column} is {bad}" in message
        assert f"the last good checkpoint is {run.directory / 'checkpoint.pt'} of step 1" in message
    assert read_metrics(run.directory)["step"] == [1]


def test_an_unknown_column_is_an_error(open_run):
    run = open_run()
    with run.recorded(COLUMNS), pytest.raises(ValueError, match="l2_dist"):
        run.write_row(row(1, l2_dist=0.5))
    assert read_metrics(run.directory) == {}


def test_a_row_that_does_not_fit_leaves_nothing_of_itself(open_run, small_disk):
    run = open_run()
    with run.recorded(COLUMNS):
        run.write_row(row(1))
        before = (run.directory / "metrics.csv").read_bytes()
        with small_disk(len(before) + 5):
            assert "metrics.csv (No space left on device)" in refusal(run.write_row, row(2))
        assert (run.directory / "metrics.csv").read_bytes() == before
        run.write_row(row(2))
    assert read_metrics(run.directory)["step"] == [1, 2]
