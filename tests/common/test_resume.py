"""A run that was killed ends with the same metrics and the same weights as one that was not, in every suite."""

import copy
import signal
import subprocess
import time

import pytest
import torch
from each import each
from same import assert_same
from suites import MOLS, checkpoint, each_suite, quicken, require_equal, rows_in

from hypergrid.common.run_folder import read_metrics


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quicken(monkeypatch)


@each_suite
def test_recent_batches_and_seconds_survive_a_kill(suite, tmp_path, monkeypatch):
    """After more batches than P_B's buffer of the last 20 holds."""
    options = {"backward_approach": "pessimistic", "num_iterations": 25, "checkpoint_every": 22, "corr_every": 0}
    options |= {"exact_every": 0}
    suite.run("tb", tmp_path / "whole", **options)
    agent_class, steps = suite.module("agents.base").LearningAgent, iter(range(23))
    sample = agent_class.sample

    def killed(agent):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return sample(agent)

    with monkeypatch.context() as patch:
        patch.setattr(agent_class, "sample", killed)
        assert suite.main(suite.argv("tb", tmp_path / "killed", **options)) == 130
    assert len(checkpoint(tmp_path / "killed")["agent"]["recent"]) == 20
    (file,) = (tmp_path / "killed").rglob("checkpoint.pt")
    torch.save(torch.load(file, weights_only=True) | {"wall_s": 1000.0}, file)
    run = suite.run("tb", tmp_path / "killed", **options, if_exists="resume")
    assert 1000 < read_metrics(run)["wall_s"][-1] < 1100
    require_equal(tmp_path / "whole", tmp_path / "killed")


@each_suite
def test_what_was_found_before_a_kill_is_drawn_after_it(suite, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        suite.module("plots"), "draw_run", lambda _, found: drawn.append(copy.deepcopy(found.state_dict()))
    )
    run = suite.run("db", tmp_path)
    (run / "DONE").unlink()  # as a kill after the last checkpoint leaves it
    suite.run("db", tmp_path, if_exists="resume")
    assert (run / "DONE").exists()
    assert_same(*(state | ({"top": list(map(tuple, state["top"]))} if suite is MOLS else {}) for state in drawn))


@each_suite
def test_kill_minus_nine(suite, tmp_path):
    options = {"num_iterations": 40, "checkpoint_every": 10, "validate_every": 1, "corr_every": 0, "exact_every": 0}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = suite.process(suite.argv("db", tmp_path / "killed", **options), **quiet)
    try:
        while not list(tmp_path.rglob("checkpoint.pt")) or rows_in(tmp_path) < 13:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(tmp_path.rglob("DONE"))
    suite.run("db", tmp_path / "killed", **options, if_exists="resume")
    suite.run("db", tmp_path / "whole", **options)
    require_equal(tmp_path / "whole", tmp_path / "killed")


@each("objective", [0, -1])
@each_suite
def test_evaluation_does_not_touch_training(suite, objective, tmp_path):
    """With every metric after every step, every second one, or none but at the end: the same but for its stream."""
    states = []
    for every, dear in ((1, 1), (2, 2), (6, 0)):
        options = {"validate_every": every, "corr_every": dear, "exact_every": dear, "num_iterations": 6}
        run = suite.run(suite.objectives[objective], tmp_path / str(every), **options)
        assert len(read_metrics(run)["step"]) == 6 / every
        states.append(checkpoint(run))
    moved = [state["agent"]["streams"].pop("evaluation") for state in states]
    if suite.name != "hypergrid":  # whose metrics draw nothing
        assert moved[0] != moved[1] != moved[2] != moved[0]
    if suite is MOLS:
        for state in states:
            assert not any(state["agent"]["molecules"].pop("recent").values())  # since the last row
    assert_same(states[0], states[1])
    assert_same(states[0], states[2])
