"""A run that was killed ends with the same metrics and the same weights as one that was not."""

import os
import signal
import subprocess
import sys
import time

import pytest
from each import each_algo, each_approach
from same import assert_same
from shared_data import SHARED
from small_runs import SUITE, checkpoint, command, metrics_without_time, needs_weights, quicken, without_pictures

from mols import plots
from mols.agents.base import LearningAgent
from mols.tasks.seh_frag import main


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quicken(monkeypatch)
    without_pictures(monkeypatch)


def require_equal(folder, other):
    assert metrics_without_time(folder) == metrics_without_time(other)
    assert_same(checkpoint(folder), checkpoint(other))


@each_algo
@each_approach
def test_a_kill_leaves_no_trace(algo, approach, tmp_path, monkeypatch):
    """Four steps are two, a checkpoint, one more that is lost with the kill, and two again."""
    length = ["--backward_approach", approach, "--n=4", "--checkpoint_every=2", "--validate_every=3", "--corr_every=3"]
    length += ["--rp=0.5"]
    assert main(command(algo, tmp_path / "whole", *length)) == 0
    sample, calls = LearningAgent.sample, []

    def killed(agent):
        calls.append(1)
        if len(calls) == 4:
            raise SystemExit("killed")
        return sample(agent)

    with monkeypatch.context() as patch:
        patch.setattr(LearningAgent, "sample", killed)
        with pytest.raises(SystemExit):
            main(command(algo, tmp_path / "killed", *length))
    assert metrics_without_time(tmp_path / "killed")["step"] == "[3.0]"
    assert checkpoint(tmp_path / "killed")["step"] == 2
    assert main(command(algo, tmp_path / "killed", *length, "--if_exists=resume")) == 0
    require_equal(tmp_path / "whole", tmp_path / "killed")
    correlations = metrics_without_time(tmp_path / "whole")["reward_correlation"]
    assert correlations.count(",") == 1 and "nan" not in correlations


def test_the_recent_batches_survive_a_kill(tmp_path, monkeypatch):
    """After more batches than P_B's buffer of the last 20 holds, and after a correlation."""
    length = ["--backward_approach=pessimistic", "--n=26", "--checkpoint_every=22", "--corr_every=20"]
    assert main(command("tb", tmp_path / "whole", *length)) == 0
    sample, steps = LearningAgent.sample, iter(range(24))

    def killed(agent):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return sample(agent)

    with monkeypatch.context() as patch:
        patch.setattr(LearningAgent, "sample", killed)
        assert main(command("tb", tmp_path / "killed", *length)) == 130
    assert len(checkpoint(tmp_path / "killed")["agent"]["recent"]) == 20
    assert main(command("tb", tmp_path / "killed", *length, "--if_exists=resume")) == 0
    require_equal(tmp_path / "whole", tmp_path / "killed")


def test_what_was_found_before_a_kill_is_drawn_after_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "draw_run", lambda _, molecules: drawn.append(molecules.state_dict()))
    argv = command("db", tmp_path, "--n=6", "--checkpoint_every=6", "--if_exists=resume")
    assert main(argv) == 0
    (done,) = tmp_path.rglob("DONE")
    done.unlink()  # as a kill after the last checkpoint leaves it
    assert main(argv) == 0
    assert done.exists()
    assert len(drawn) == 2 and drawn[0]["top"]
    assert_same(drawn[0] | {"top": list(map(tuple, drawn[0]["top"]))}, drawn[1])


@needs_weights
def test_kill_minus_nine(tmp_path):
    length = ["--n=24", "--checkpoint_every=8", "--validate_every=1", "--corr_every=0"]
    arguments = [sys.executable, "-m", "mols.tasks.seh_frag", *command("db", tmp_path / "killed", *length)]
    env = os.environ | {"PYTHONPATH": str(SUITE.parent), "GFLOWNET_TLM_DATA": str(SHARED)}
    process = subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(tmp_path.rglob("checkpoint.pt")) or rows_in(tmp_path) < 10:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(tmp_path.rglob("DONE"))
    assert main(command("db", tmp_path / "killed", *length, "--if_exists=resume")) == 0
    assert main(command("db", tmp_path / "whole", *length)) == 0
    require_equal(tmp_path / "whole", tmp_path / "killed")


def rows_in(folder):
    """Complete rows of a metrics.csv that is being written."""
    (path,) = folder.rglob("metrics.csv")
    return path.read_text().count("\n") - 1


@pytest.mark.parametrize("algo", ["tb", "dqn"])
def test_evaluation_does_not_touch_training(algo, tmp_path):
    """With every metric after every step, every second one, or none but at the end: the same but for its stream."""
    states = []
    for every, correlations in ((1, 1), (2, 2), (4, 0)):
        extra = ["--n=4", "--rp=0.5", f"--validate_every={every}", f"--corr_every={correlations}"]
        assert main(command(algo, tmp_path / str(every), *extra)) == 0
        states.append(checkpoint(tmp_path / str(every)))
    moved = [state["agent"]["streams"].pop("evaluation") for state in states]
    assert moved[0] != moved[1] != moved[2] != moved[0]
    for state in states:
        recent = state["agent"]["molecules"].pop("recent")  # since the last row
        assert not any(recent.values())
    assert_same(states[0], states[1])
    assert_same(states[0], states[2])
