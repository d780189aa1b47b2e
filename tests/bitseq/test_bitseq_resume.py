"""A run that was killed ends with the same metrics and the same weights as one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from each import each_approach, each_objective
from same import assert_same

import bitseq
from bitseq import plots, settings
from bitseq.agents.base import LearningAgent
from bitseq.common import provenance
from bitseq.run import main

SUITE = Path(bitseq.__file__).parent
SMALL = ["--n=8", "--k=2", "--M_size=5", "--mode_threshold=1", "--width=16", "--n_layers=1", "--n_heads=2"]
SMALL += ["--ff_width=16", "--device=cpu", "--batch_size=8", "--corr_num_rounds=1"]  # dropout stays on
# A buffer that wraps, and targets that are not the online networks when the checkpoint is written.
SMALL_REPLAY = ["--start_learning=2", "--replay_batch_size=8", "--replay_capacity=200", "--update_target_every=3"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Neither pictures nor the list of libraries: most of what such a short run takes."""
    monkeypatch.setattr(plots, "draw_run", lambda *_: None)
    monkeypatch.setattr(provenance, "_library_versions", dict)


def command(objective, approach, folder, *extra):
    argv = [f"--objective={objective}", f"--backward_approach={approach}", f"--output_dir={folder}", *SMALL, *extra]
    return argv + (SMALL_REPLAY if objective in settings.DQN else [])


def metrics_without_time(folder):
    (path,) = Path(folder).rglob("metrics.csv")
    rows = [line.split(",") for line in path.read_text().splitlines()]
    column = rows[0].index("wall_s")
    return [row[:column] + row[column + 1 :] for row in rows]


def checkpoint(folder):
    (path,) = Path(folder).rglob("checkpoint.pt")
    state = torch.load(path, weights_only=True)
    del state["wall_s"]
    return state


@each_objective
@each_approach
def test_a_kill_leaves_no_trace(objective, approach, tmp_path, monkeypatch):
    """Ten steps are five, a checkpoint, two more that are lost with the kill, and five again."""
    length = ["--num_iterations=10", "--checkpoint_every=5", "--validate_every=2", "--corr_every=2", "--exact_every=2"]
    assert main(command(objective, approach, tmp_path / "whole", *length)) == 0
    sample, calls = LearningAgent.sample, []

    def killed(agent):
        calls.append(1)
        if len(calls) == 8:
            raise SystemExit("killed")
        return sample(agent)

    with monkeypatch.context() as patch:
        patch.setattr(LearningAgent, "sample", killed)
        with pytest.raises(SystemExit):
            main(command(objective, approach, tmp_path / "killed", *length))
    assert [row[0] for row in metrics_without_time(tmp_path / "killed")] == ["step", "2", "4", "6"]
    assert checkpoint(tmp_path / "killed")["step"] == 5
    assert main(command(objective, approach, tmp_path / "killed", *length, "--if_exists=resume")) == 0
    assert metrics_without_time(tmp_path / "killed") == metrics_without_time(tmp_path / "whole")
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "killed"))


def test_what_was_found_before_a_kill_is_drawn_after_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "draw_run", lambda _, agent: drawn.append(agent.modes.state_dict()))
    argv = command("db", "tlm", tmp_path, "--num_iterations=10", "--checkpoint_every=10", "--if_exists=resume")
    assert main(argv) == 0
    (done,) = tmp_path.rglob("DONE")
    done.unlink()  # as a kill after the last checkpoint leaves it
    assert main(argv) == 0
    assert done.exists()
    assert_same(*drawn)


def test_kill_minus_nine(tmp_path):
    length = ["--num_iterations=100", "--checkpoint_every=20", "--validate_every=1", "--corr_every=0"]
    arguments = [sys.executable, str(SUITE / "run.py"), *command("db", "tlm", tmp_path / "killed", *length)]
    env = os.environ | {"PYTHONPATH": str(SUITE.parent)}
    process = subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(tmp_path.rglob("checkpoint.pt")) or len(metrics_without_time(tmp_path / "killed")) < 22:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(tmp_path.rglob("DONE"))
    assert main(command("db", "tlm", tmp_path / "killed", *length, "--if_exists=resume")) == 0
    assert main(command("db", "tlm", tmp_path / "whole", *length)) == 0
    assert metrics_without_time(tmp_path / "killed") == metrics_without_time(tmp_path / "whole")
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "killed"))


@pytest.mark.parametrize("objective", ["tb", "munchausen_dqn"])
def test_evaluation_does_not_touch_training(objective, tmp_path):
    """With every metric after every step, or none but at the end: only the evaluation stream has moved on."""
    length = ["--num_iterations=10", "--dropout=0.3"]
    often = ["--validate_every=1", "--corr_every=1", "--exact_every=1"]
    seldom = ["--validate_every=10", "--corr_every=0", "--exact_every=0"]
    states = []
    for folder, extra in (("often", often), ("seldom", seldom)):
        assert main(command(objective, "tlm", tmp_path / folder, *length, *extra)) == 0
        states.append(checkpoint(tmp_path / folder))
    moved = [state["agent"]["streams"].pop("evaluation") for state in states]
    assert moved[0] != moved[1]
    assert_same(*states)
