"""The command line: what is due when, what changes nothing, and the promised command."""

import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from same import assert_same
from shared_data import SHARED
from small_runs import SUITE, command, needs_weights, quicken, without_pictures
from suites import checkpoint, metrics_without_time, only_run

from mols.common.run_folder import read_metrics
from mols.policies.layers import Layer
from mols.rewards import downloads as files
from mols.rewards.seh.proxy import WEIGHTS_FILE
from mols.tasks.seh_frag import main


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quicken(monkeypatch)
    without_pictures(monkeypatch)


CORRELATIONS = ["reward_correlation", "reward_correlation_generated"]
SORTED = ["modes_sorted_0.875", "modes_sorted_0.9375", "modes_sorted_1"]


def test_what_is_due_follows_the_options(tmp_path):
    assert main(command("db", tmp_path, "--n", "9", "--corr_every", "4")) == 0
    metrics = read_metrics(only_run(tmp_path))
    due = {name: [step for step, v in zip(metrics["step"], metrics[name], strict=True) if v == v] for name in metrics}
    assert metrics["step"] == [2, 4, 6, 8, 9]
    assert due["mean_reward"] == metrics["step"]
    assert [due[name] for name in CORRELATIONS] == [[4, 8, 9]] * 2
    assert [due[name] for name in SORTED] == [[9]] * 3


def test_a_correlation_that_falls_between_two_rows_is_in_the_next_one(tmp_path):
    assert main(command("db", tmp_path, "--n", "9", "--corr_every", "3")) == 0
    metrics = read_metrics(only_run(tmp_path))
    known = [step for step, value in zip(metrics["step"], metrics["reward_correlation"], strict=True) if value == value]
    assert known == [4, 6, 9]


def test_zero_turns_correlations_off_and_needs_no_test_set(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FILES", {WEIGHTS_FILE: files.FILES[WEIGHTS_FILE]})
    assert main(command("db", tmp_path, "--corr_every", "0", "--test_set", "original")) == 0
    metrics = read_metrics(only_run(tmp_path))
    assert all(math.isnan(value) for name in CORRELATIONS for value in metrics[name])
    assert not any(math.isnan(metrics[name][-1]) for name in SORTED)


def test_the_test_set_does_not_depend_on_the_seed(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("mols.common.algorithm.train", lambda agent, *_, **__: seen.append(agent.task.test_states))
    for seed in ("1", "2"):
        assert main(command("tb", tmp_path, "--seed", seed)) == 0
    assert_same(tuple(seen[0]), tuple(seen[1]))
    assert len(seen[0].fragment) == 3


@pytest.mark.slow
def test_worker_processes_change_no_metric(tmp_path):
    for workers in "02":
        assert main(command("tb", tmp_path / workers, "--workers", workers, "--n", "2")) == 0
    assert metrics_without_time(tmp_path / "0") == metrics_without_time(tmp_path / "2")
    assert_same(checkpoint(tmp_path / "0"), checkpoint(tmp_path / "2"))


def test_other_kernels_give_the_same_up_to_rounding(tmp_path, monkeypatch):
    argv, losses, calls = command("tb", tmp_path), [], []
    forward = Layer.forward
    monkeypatch.setattr(Layer, "forward", lambda *args, **more: calls.append(len(losses)) or forward(*args, **more))
    for kernels in ("auto", "torch"):
        assert main([*argv, "--kernels", kernels, "--if_exists", "overwrite"]) == 0
        losses.append(list(read_metrics(only_run(tmp_path))["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert set(calls) == {1}  # of the second run alone


def launch(words, folder):
    env = os.environ | {"PYTHONPATH": str(SUITE.parent), "GFLOWNET_TLM_DATA": str(SHARED)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=300)


PROMISED = "python -m mols.tasks.seh_frag --seed 1 --algo dqn --lr 5e-4 --backward_approach tlm"
SHORT = "--n 1 --batch_size 2 --corr_every 0"


@needs_weights
@pytest.mark.parametrize(
    "network",
    ["--width 16 --n_layers 1", pytest.param("", marks=pytest.mark.slow)],
    ids=["a small network", "the default one"],
)
def test_the_promised_command_works_letter_for_letter(network, tmp_path):
    words = shlex.split(f"{PROMISED} {SHORT} {network}")[1:]
    done = launch([*words, "--output_dir", str(tmp_path)], SUITE.parent)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    assert Path(done.stdout.splitlines()[-1]) == run
    config = json.loads((run / "config.json").read_text())
    assert (config["algo"], config["backward_approach"], config["lr"], config["seed"]) == ("dqn", "tlm", 5e-4, 1)
    assert (config["max_fragments"], config["m_alpha"]) == (8, 0.15)
    sizes = "-width=16-n_layers=1" if network else ""
    assert run == tmp_path / "mols" / "seh_frag" / f"dqn-tlm-n=1-batch_size=2{sizes}-corr_every=0" / "seed=1"
    assert (run / "DONE").exists() and len(read_metrics(run)["step"]) == 1
