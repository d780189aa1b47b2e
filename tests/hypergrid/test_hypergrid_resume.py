"""A run that was killed ends with the same metrics and the same weights as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from each import each
from same import assert_same

import hypergrid
from hypergrid import plots
from hypergrid.agents.base import SamplingAgent
from hypergrid.run_hypergrid_exp import main

SUITE = Path(hypergrid.__file__).parent
CONFIGS = SUITE / "experiments" / "config"


def command(algorithm, approach, folder, *extra):
    argv = ["run", "--general", f"{CONFIGS}/general.py:3", "--env", f"{CONFIGS}/hypergrid.py:standard"]
    argv += ["--algo", f"{CONFIGS}/algo.py:{algorithm}", "--env.ndim=2", "--env.height=4", "--algo.hidden_width=16"]
    argv += [f"--algo.backward_approach={approach}", f"--general.output_dir={folder}", "--general.n_envs=8"]
    argv += ["--general.validation_interval=1", "--general.device=cpu", "--general.validation_samples=50", *extra]
    if "dqn" in algorithm:
        argv += ["--algo.start_learning=2", "--algo.replay_batch_size=8", "--algo.replay_capacity=64"]
    return argv


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


@each("approach", ["uniform", "naive", "maxent", "tlm", "pessimistic"])
@each("algorithm", ["tb", "db", "subtb", "soft_dqn", "munchausen_dqn"])
def test_a_kill_leaves_no_trace(algorithm, approach, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "draw_run", lambda *_: None)  # it takes longer than the runs
    length = ["--general.n_trajectories=80", "--general.checkpoint_interval=5"]
    assert main(command(algorithm, approach, tmp_path / "whole", *length)) == 0
    sample, calls = SamplingAgent.sample, []

    def killed(agent):
        calls.append(1)
        if len(calls) == 8:  # two steps after the checkpoint
            raise SystemExit("killed")
        return sample(agent)

    with monkeypatch.context() as patch:
        patch.setattr(SamplingAgent, "sample", killed)
        with pytest.raises(SystemExit):
            main(command(algorithm, approach, tmp_path / "killed", *length))
    assert len(metrics_without_time(tmp_path / "killed")) == 1 + 7
    assert main(command(algorithm, approach, tmp_path / "killed", *length, "--general.if_exists=resume")) == 0
    assert metrics_without_time(tmp_path / "killed") == metrics_without_time(tmp_path / "whole")
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "killed"))


def test_kill_minus_nine(tmp_path):
    length = ["--general.n_trajectories=8000", "--general.checkpoint_interval=100", "--general.exact_interval=0"]
    arguments = [
        sys.executable,
        str(SUITE / "run_hypergrid_exp.py"),
        *command("db", "tlm", tmp_path / "killed", *length)[1:],
    ]
    env = os.environ | {"PYTHONPATH": str(SUITE.parent)}
    process = subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(tmp_path.rglob("checkpoint.pt")) or len(metrics_without_time(tmp_path / "killed")) < 150:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(tmp_path.rglob("DONE"))
    assert main(command("db", "tlm", tmp_path / "killed", *length, "--general.if_exists=resume")) == 0
    assert main(command("db", "tlm", tmp_path / "whole", *length)) == 0
    assert metrics_without_time(tmp_path / "killed") == metrics_without_time(tmp_path / "whole")
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "killed"))


def test_a_run_goes_on_on_another_device_with_other_threads(tmp_path):
    """It began, as far as its folder and its checkpoint know, on a GPU, which here may not be."""
    length = ["--general.n_trajectories=80", "--general.checkpoint_interval=5"]
    argv = command("munchausen_dqn", "tlm", tmp_path, *length)
    assert main(argv) == 0
    (done,) = tmp_path.rglob("DONE")
    before, path = metrics_without_time(tmp_path), done.with_name("checkpoint.pt")
    done.unlink()
    config = json.loads(done.with_name("config.json").read_text())
    config["general"]["device"] = "cuda"
    done.with_name("config.json").write_text(json.dumps(config))
    meta = json.loads(done.with_name("meta.json").read_text()) | {"device": "cuda"}
    done.with_name("meta.json").write_text(json.dumps(meta))
    state = torch.load(path, weights_only=True)
    state["agent"]["streams"]["cuda"] = [torch.zeros(16, dtype=torch.uint8)] * (torch.cuda.device_count() == 0)
    torch.save(state, path)
    assert main([*argv, "--general.if_exists=resume", "--general.threads=2"]) == 0
    assert metrics_without_time(tmp_path) == before and done.exists()
    assert json.loads(done.with_name("config.json").read_text())["general"]["device"] == "cpu"
    meta = json.loads(done.with_name("meta.json").read_text())
    assert [(stretch["device"], stretch["threads"]) for stretch in (meta, *meta["resumed"])] == [
        ("cuda", 1),
        ("cpu", 2),
    ]


def test_a_disk_that_gets_full_ends_a_run_and_room_lets_it_go_on(tmp_path, small_disk, capsys):
    length = ["--general.n_trajectories=80", "--general.checkpoint_interval=5"]
    assert main(command("tb", "tlm", tmp_path / "whole", *length)) == 0
    capsys.readouterr()
    argv = command("tb", "tlm", tmp_path / "full", *length)
    with small_disk(5000):  # which the checkpoint does not fit on
        assert main(argv) == 2
    error = capsys.readouterr().err
    (meta,) = (tmp_path / "full").rglob("meta.json")
    path = meta.with_name("checkpoint.pt")
    assert error == f"error: cannot write {path} (File too large): make room, or choose another place\n"
    assert json.loads(meta.read_text())["status"] == f"failed: {error.removeprefix('error: ').strip()}"
    assert {entry.name for entry in meta.parent.iterdir()} == {".lock", "config.json", "meta.json", "metrics.csv"}
    assert main([*argv, "--general.if_exists=resume"]) == 0
    assert metrics_without_time(tmp_path / "full") == metrics_without_time(tmp_path / "whole")
    path.with_name("DONE").unlink()
    path.with_name("curves.png").write_text("old")
    with small_disk(20_000):  # which the pictures do not fit on
        assert main([*argv, "--general.if_exists=resume"]) == 2
    assert "curves.png (File too large)" in capsys.readouterr().err
    assert path.with_name("curves.png").read_text() == "old"
    assert not list(meta.parent.glob("*.partial")) and not path.with_name("DONE").exists()


def test_evaluation_does_not_touch_training(tmp_path):
    for interval in (1, 10):
        extra = [
            "--general.n_trajectories=80",
            f"--general.validation_interval={interval}",
            "--general.exact_interval=2",
        ]
        assert main(command("munchausen_dqn", "tlm", tmp_path / str(interval), *extra)) == 0
    one, ten = checkpoint(tmp_path / "1"), checkpoint(tmp_path / "10")
    assert_same(one, ten)
