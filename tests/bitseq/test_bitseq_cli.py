"""The command line: the promised commands, every combination, and what a run that cannot go on says."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from each import each
from matplotlib.figure import Figure

import bitseq
from bitseq import plots, settings
from bitseq.agents import base as learning
from bitseq.common.run_folder import COMMON_COLUMNS, read_metrics
from bitseq.run import main

SUITE = Path(bitseq.__file__).parent
SMALL = shlex.split("--n 8 --k 2 --M_size 5 --mode_threshold 1 --width 16 --n_layers 1 --n_heads 2 --ff_width 16")
SMALL += shlex.split("--num_iterations 4 --validate_every 2 --corr_num_rounds 2 --device cpu")
SMALL_REPLAY = shlex.split("--start_learning 2 --replay_batch_size 8")


def small_command(objective, folder, *extra):
    argv = ["--objective", objective, *SMALL, "--output_dir", str(folder)]
    return [*argv, *(SMALL_REPLAY if objective in settings.DQN else []), *extra]


def only_run(folder):
    (config,) = Path(folder).rglob("config.json")
    return config.parent


def contents(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def metrics_without_time(folder):
    return {name: str(values) for name, values in read_metrics(only_run(folder)).items() if name != "wall_s"}


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(plots, "draw_run", lambda *_: None)


def refused(argv, message, folder, capsys):
    before = contents(folder)
    assert main(argv) == 2
    out, error = capsys.readouterr()
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert out == ""
    assert contents(folder) == before


def test_an_output_folder_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    refused(small_command("tb", tmp_path / "file"), "choose another", tmp_path, capsys)


CELLS = [(objective, approach) for objective in settings.OBJECTIVES for approach in learning.APPROACHES]
ALWAYS = ["modes_found", "modes_current", "mean_reward", "mean_log_reward", "mean_log_reward_perfect", "log_z"]
ALWAYS += ["log_z_error"]
DUE = ["reward_correlation", "reward_correlation_uniform", "exact_total_variation", "exact_kl"]
OWN = ALWAYS + DUE


@each("objective,approach", CELLS)
def test_every_combination_runs_to_a_complete_folder(objective, approach, tmp_path, monkeypatch):
    if approach != "tlm":  # rendering takes a second a run: once an objective is enough
        monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: file.write(b"picture"))
    argv = small_command(objective, tmp_path, "--backward_approach", approach)
    assert main(argv) == 0
    run = only_run(tmp_path)
    assert run == settings.run_directory(settings.parse(argv))
    wanted = {"config.json", "meta.json", "metrics.csv", "checkpoint.pt", "DONE", "curves.png", "modes.png"}
    assert {path.name for path in run.iterdir()} == wanted | {".lock"}
    assert json.loads((run / "config.json").read_text()) == settings.parse(argv).to_dict()
    assert json.loads((run / "meta.json").read_text())["status"] == "done"
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == 4
    metrics = read_metrics(run)
    assert list(metrics) == [*COMMON_COLUMNS, *OWN]
    assert metrics["step"] == [2, 4] and metrics["trajectories"] == [32, 64]
    filled = {name: [not math.isnan(value) for value in values] for name, values in metrics.items()}
    learns_later, has_loss = objective in settings.DQN, approach in ("tlm", "pessimistic")
    assert filled["loss"] == [not learns_later, True]
    assert filled["pb_loss"] == [has_loss and not learns_later, has_loss]
    for name in ("pb_deviation", *ALWAYS):
        assert filled[name] == [True, True]
    for name in DUE:  # due at the last step alone
        assert filled[name] == [False, True]
    if approach in ("uniform", "maxent"):
        assert metrics["pb_deviation"] == [0, 0]
        assert metrics["reward_correlation"][1] == metrics["reward_correlation_uniform"][1]
    else:
        assert metrics["pb_deviation"][1] > 0


def test_what_is_due_follows_the_options(tmp_path, no_pictures):
    extra = ["--num_iterations", "9", "--corr_every", "4", "--exact_every", "3"]
    assert main(small_command("db", tmp_path, *extra)) == 0
    metrics = read_metrics(only_run(tmp_path))
    due = {name: [step for step, v in zip(metrics["step"], metrics[name], strict=True) if v == v] for name in OWN}
    assert metrics["step"] == [2, 4, 6, 8, 9]
    assert due["reward_correlation"] == [4, 8, 9]
    assert due["reward_correlation_uniform"] == [9]
    assert due["exact_total_variation"] == due["exact_kl"] == [4, 6, 9]  # a step of 3 falls between two rows


def test_zero_turns_correlations_and_exact_distances_off(tmp_path, no_pictures):
    assert main(small_command("db", tmp_path, "--corr_every", "0", "--exact_every", "0")) == 0
    metrics = read_metrics(only_run(tmp_path))
    assert all(math.isnan(value) for name in DUE for value in metrics[name])


def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(tmp_path, no_pictures):
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(small_command("munchausen_dqn", tmp_path / folder, "--seed", seed)) == 0
    one, again, other = (metrics_without_time(tmp_path / folder) for folder in "abc")
    assert one == again
    assert all(one[name] != other[name] for name in ("loss", "pb_loss", "mean_reward", "exact_kl"))


def test_an_existing_run_is_refused_and_a_finished_one_not_repeated(tmp_path, no_pictures, capsys):
    argv = small_command("tb", tmp_path)
    assert main(argv) == 0
    capsys.readouterr()
    refused(argv, "--if_exists=resume", tmp_path, capsys)
    before = contents(tmp_path)
    assert main([*argv, "--if_exists", "resume", "--checkpoint_every", "7"]) == 0  # storage is free to differ
    assert "is done" in capsys.readouterr().out
    assert contents(tmp_path) == before


def test_a_run_is_resumed_with_its_own_configuration_alone(tmp_path, no_pictures, capsys):
    argv = [*small_command("tb", tmp_path), "--if_exists", "resume"]
    assert main(argv) == 0
    capsys.readouterr()
    path = only_run(tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"leaf_coeff": 2.0}))
    refused(argv, "was run with leaf_coeff = 2.0, not None", tmp_path, capsys)


def test_a_run_goes_on_on_another_device_with_other_threads(tmp_path, no_pictures):
    """It began, as far as its folder and its checkpoint know, on a GPU, which here may not be."""
    argv = small_command("tb", tmp_path)
    assert main(argv) == 0
    run = only_run(tmp_path)
    (run / "DONE").unlink()
    for name in ("config.json", "meta.json"):
        (run / name).write_text(json.dumps(json.loads((run / name).read_text()) | {"device": "cuda"}))
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    state["agent"]["streams"]["cuda"] = [torch.zeros(16, dtype=torch.uint8)] * (torch.cuda.device_count() == 0)
    torch.save(state, run / "checkpoint.pt")
    assert main([*argv, "--threads", "2", "--if_exists", "resume"]) == 0
    assert json.loads((run / "config.json").read_text())["device"] == "cpu"
    meta = json.loads((run / "meta.json").read_text())
    assert [(stretch["device"], stretch["threads"]) for stretch in (meta, *meta["resumed"])] == [
        ("cuda", 1),
        ("cpu", 2),
    ]
    assert (run / "DONE").exists()


def test_overwrite_starts_again(tmp_path, no_pictures):
    argv = small_command("tb", tmp_path)
    assert main(argv) == 0
    before = metrics_without_time(tmp_path)
    (only_run(tmp_path) / "metrics.csv").write_text("old")
    assert main([*argv, "--if_exists", "overwrite"]) == 0
    assert metrics_without_time(tmp_path) == before


def test_a_damaged_checkpoint_is_refused_and_left_alone(tmp_path, no_pictures, capsys):
    argv = [*small_command("tb", tmp_path), "--if_exists", "resume"]
    assert main(argv) == 0
    run = only_run(tmp_path)
    (run / "DONE").unlink()
    damaged = (run / "checkpoint.pt").read_bytes()[:-1000]
    (run / "checkpoint.pt").write_bytes(damaged)
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "checkpoint.pt is damaged" in error
    assert (run / "checkpoint.pt").read_bytes() == damaged and not (run / "DONE").exists()


def test_a_loss_that_is_not_finite_names_step_and_checkpoint(tmp_path, monkeypatch, capsys):
    from bitseq.agents.balance import BalanceAgent

    forward_loss, steps = BalanceAgent.forward_loss, []

    def poisoned(agent, batch):
        steps.append(1)
        loss = forward_loss(agent, batch)
        return loss * float("nan") if len(steps) == 7 else loss

    monkeypatch.setattr(BalanceAgent, "forward_loss", poisoned)
    assert main(small_command("db", tmp_path, "--num_iterations", "10", "--checkpoint_every", "4")) == 2
    error = capsys.readouterr().err
    assert "step 7: loss is nan" in error and "checkpoint.pt of step 4" in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert read_metrics(only_run(tmp_path))["step"] == [2, 4, 6]
    assert not (only_run(tmp_path) / "DONE").exists()


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupt(agent):
        raise KeyboardInterrupt

    monkeypatch.setattr(learning.LearningAgent, "sample", interrupt)
    assert main(small_command("tb", tmp_path)) == 130
    assert "--if_exists resume" in capsys.readouterr().err
    assert json.loads((only_run(tmp_path) / "meta.json").read_text())["status"] == "interrupted"


def test_a_run_does_not_remember_its_working_directory(tmp_path, monkeypatch, no_pictures):
    """Moved elsewhere with its folder, a run can be gone on with, and is the same."""
    argv = small_command("db", "mine", "--if_exists", "resume")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    assert main(argv) == 0
    run = only_run(tmp_path / "one")
    assert run.is_relative_to(tmp_path / "one" / "mine")
    assert str(tmp_path) not in (run / "config.json").read_text()
    before = metrics_without_time(tmp_path / "one")
    (run / "DONE").unlink()
    shutil.move(tmp_path / "one" / "mine", tmp_path / "two" / "mine")
    monkeypatch.chdir(tmp_path / "two")
    assert main(argv) == 0
    assert metrics_without_time(tmp_path / "two") == before
    assert list((tmp_path / "one").iterdir()) == []


def test_tensorboard_writes_events(tmp_path, no_pictures):
    assert main(small_command("tb", tmp_path, "--tensorboard")) == 0
    assert list((only_run(tmp_path) / "tensorboard").glob("events*"))


def test_wandb_gets_the_configuration_and_every_row(tmp_path, monkeypatch, no_pictures):
    started, logged, finished = [], [], []
    run = types.SimpleNamespace(
        log=lambda row, step: logged.append((step, row)), finish=lambda exit_code: finished.append(exit_code)
    )
    fake = types.SimpleNamespace(init=lambda **options: started.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert main(small_command("tb", tmp_path, "--wandb", "strings")) == 0
    (options,) = started
    assert (options["project"], options["dir"]) == ("strings", str(only_run(tmp_path)))
    assert options["config"]["backward_approach"] == "tlm"
    assert [step for step, _ in logged] == [2, 4] and finished == [0]
    assert logged[1][1]["modes_found"] == read_metrics(only_run(tmp_path))["modes_found"][1]


def launch(words, folder, **environment):
    env = os.environ | {"PYTHONPATH": str(SUITE.parent)} | environment
    return subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_wandb_works_offline(tmp_path):
    words = [str(SUITE / "run.py"), *small_command("tb", tmp_path, "--wandb", "test")]
    done = launch(words, tmp_path, WANDB_MODE="offline", WANDB_SILENT="true", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert list((only_run(tmp_path) / "wandb").glob("offline-run-*"))


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
    done = launch([*shlex.split(line)[1:], *short], folder)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    assert Path(done.stdout.splitlines()[-1]) == run
    config = json.loads((run / "config.json").read_text())
    assert (config["objective"], config["learning_rate"], config["n"], config["width"]) == ("db", 0.002, 120, 64)
    assert re.fullmatch(r"db-(tlm|uniform|naive)-num_iterations=2-learning_rate=0.002-corr_every=0", run.parent.name)
    assert (run / "DONE").exists() and len(read_metrics(run)["step"]) == 1


def test_a_run_goes_on_with_other_kernels_in_its_folder(tmp_path, no_pictures):
    argv = [*small_command("tb", tmp_path), "--kernels"]
    assert main([*argv, "compiled"]) == 0
    run, rows = only_run(tmp_path), metrics_without_time(tmp_path)
    (run / "DONE").unlink()
    assert main([*argv, "torch", "--if_exists", "resume"]) == 0
    assert only_run(tmp_path) == run and metrics_without_time(tmp_path) == rows
    assert json.loads((run / "config.json").read_text())["kernels"] == "torch"
