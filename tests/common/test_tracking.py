"""The lines of a run without a terminal: rate, time left, loss and main metric."""

from pathlib import Path

import pytest

from hypergrid.common import tracking


@pytest.fixture
def lines(monkeypatch, capsys):
    """``lines(n_steps, seconds)``: what is printed when each step lasts so many seconds."""

    def printed(n_steps: int, seconds: list[float]) -> list[str]:
        clock = [0.0]
        monkeypatch.setattr(tracking.time, "perf_counter", lambda: clock[0])
        monkeypatch.setattr(tracking.sys.stderr, "isatty", lambda: False)
        tracker = tracking.Tracker(
            "tb-tlm", n_steps=n_steps, first_step=0, main_metric="l1_dist", directory=Path(), config={}
        )
        with tracker:
            for step, passed in enumerate(seconds, start=1):
                clock[0] += passed
                tracker.log({"step": step, "l1_dist": 1 / step})
                tracker.advance(step, 0.5)
        return capsys.readouterr().out.splitlines()

    return printed


def test_the_first_step_counts_for_nothing_in_the_time_left(lines):
    assert lines(100, [30.0] + 10 * [1.0]) == ["tb-tlm: 11/100  1.0 it/s  1 min 29 s left  loss 0.5  l1_dist 0.09091"]


def test_a_run_of_one_step_prints_its_line(lines):
    assert lines(1, [0.5]) == ["tb-tlm: 1/1  2.0 it/s  0 min 0 s left  loss 0.5  l1_dist 1"]
