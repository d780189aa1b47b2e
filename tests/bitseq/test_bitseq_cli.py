"""The command line: what is due when, and the promised commands."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from suites import BITSEQ, only_run, quicken

import bitseq
from bitseq.common.run_folder import read_metrics

SUITE = Path(bitseq.__file__).parent


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quicken(monkeypatch)


def test_what_is_due_follows_the_options(tmp_path):
    metrics = read_metrics(BITSEQ.run("db", tmp_path, num_iterations=9, corr_every=4, exact_every=3))
    due = {name: [step for step, v in zip(metrics["step"], metrics[name], strict=True) if v == v] for name in metrics}
    assert metrics["step"] == [2, 4, 6, 8, 9]
    assert due["reward_correlation"] == [4, 8, 9]
    assert due["reward_correlation_uniform"] == [9]
    assert due["exact_total_variation"] == due["exact_kl"] == [4, 6, 9]  # a step of 3 falls between two rows


def test_zero_turns_correlations_and_exact_distances_off(tmp_path):
    metrics = read_metrics(BITSEQ.run("db", tmp_path, corr_every=0, exact_every=0))
    assert all(
        math.isnan(value)
        for name in ("reward_correlation", "reward_correlation_uniform", "exact_total_variation", "exact_kl")
        for value in metrics[name]
    )


PROMISED = [  # both places and every approach; the slow ones are the rest of the product
    ("python bitseq/run.py --objective db --learning_rate 0.002 --backward_approach tlm", False),
    ("python bitseq/run.py --objective db --learning_rate 0.002 --backward_approach naive", False),
    ("python run.py --objective db --learning_rate 0.002 --backward_approach uniform", False),
    ("python bitseq/run.py --objective db --learning_rate 0.002 --backward_approach uniform", True),
    ("python run.py --objective db --learning_rate 0.002 --backward_approach tlm", True),
    ("python run.py --objective db --learning_rate 0.002 --backward_approach naive", True),
]


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=[pytest.mark.slow] if slow else [], id=line) for line, slow in PROMISED]
)
def test_the_promised_commands_work_letter_for_letter(line, tmp_path):
    folder = SUITE if "python run.py" in line else SUITE.parent
    short = ["--num_iterations", "2", "--corr_every", "0", "--output_dir", str(tmp_path)]
    words, env = [sys.executable, *shlex.split(line)[1:], *short], os.environ | {"PYTHONPATH": str(SUITE.parent)}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    assert Path(done.stdout.splitlines()[-1]) == run
    config = json.loads((run / "config.json").read_text())
    assert (config["objective"], config["learning_rate"], config["n"], config["width"]) == ("db", 0.002, 120, 64)
    assert re.fullmatch(r"db-(tlm|uniform|naive)-num_iterations=2-learning_rate=0.002-corr_every=0", run.parent.name)
    assert (run / "DONE").exists() and len(read_metrics(run)["step"]) == 1
