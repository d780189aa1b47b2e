"""The command line: the promised command, every combination, and what a run that cannot go on says."""

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from each import each_algo, each_approach
from matplotlib.figure import Figure
from same import assert_same
from shared_data import SHARED
from small_runs import (
    SUITE,
    checkpoint,
    command,
    contents,
    metrics_without_time,
    needs_weights,
    only_run,
    quicken,
    refused,
    without_pictures,
)

from mols import plots, settings
from mols.agents import base as learning
from mols.common.run_folder import COMMON_COLUMNS, read_metrics
from mols.policies.layers import Layer
from mols.rewards import downloads as files
from mols.rewards.seh.proxy import WEIGHTS_FILE
from mols.tasks import seh_frag
from mols.tasks.seh_frag import main


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quicken(monkeypatch)


@pytest.fixture
def no_pictures(monkeypatch):
    without_pictures(monkeypatch)


def test_an_output_folder_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    refused(command("tb", tmp_path / "file"), "choose another", tmp_path, capsys)


ALWAYS = ["modes_found_0.875", "modes_found_0.9375", "modes_found_1", "mean_reward", "mean_log_reward"]
ALWAYS += ["invalid_share", "top_100_reward", "top_100_diversity", "rewards_evaluated"]
CORRELATIONS = ["reward_correlation", "reward_correlation_generated"]
SORTED = ["modes_sorted_0.875", "modes_sorted_0.9375", "modes_sorted_1"]
EXACT = ["mean_log_reward_perfect", "log_z_error"]  # empty: trees of two fragments are too many
OWN = [*ALWAYS, *CORRELATIONS, *EXACT, *SORTED]


@each_algo
@each_approach
def test_every_combination_runs_to_a_complete_folder(algo, approach, tmp_path, monkeypatch, capsys):
    if (algo, approach) != ("dqn", "tlm"):  # rendering takes a second a run
        monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
        monkeypatch.setattr(plots.Draw, "MolsToGridImage", lambda *_, **__: [[0.0]])
    argv = command(algo, tmp_path, "--backward_approach", approach)
    assert main(argv) == 0
    run = only_run(tmp_path)
    config = settings.parse(argv, seh_frag.Settings)
    assert run == settings.run_directory(config, seh_frag.Settings)
    assert capsys.readouterr().out.splitlines()[-1] == str(run)
    wanted = {"config.json", "meta.json", "metrics.csv", "checkpoint.pt", "DONE"}
    wanted |= {"curves.png", "top_molecules.png", "modes.csv"}
    assert {path.name for path in run.iterdir()} == wanted | {".lock"}
    assert json.loads((run / "config.json").read_text()) == config.to_dict()
    assert json.loads((run / "meta.json").read_text())["status"] == "done"
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == 4
    metrics = read_metrics(run)
    assert list(metrics) == [*COMMON_COLUMNS, *OWN]
    assert metrics["step"] == [2, 4] and metrics["trajectories"] == [8, 16]
    filled = {name: [not math.isnan(value) for value in values] for name, values in metrics.items()}
    has_loss = approach in ("maxent", "tlm", "pessimistic")
    assert filled["pb_loss"] == [has_loss, has_loss]
    for name in ("loss", "pb_deviation", *ALWAYS):
        assert filled[name] == [True, True]
    for name in (*CORRELATIONS, *SORTED):  # due at the last step alone
        assert filled[name] == [False, True]
    for name in EXACT:
        assert filled[name] == [False, False]
    assert metrics["rewards_evaluated"][0] <= 8 and metrics["rewards_evaluated"][1] <= 16
    if approach == "uniform":
        assert metrics["pb_deviation"] == [0, 0]
    else:
        assert metrics["pb_deviation"][1] > 0


def test_what_is_due_follows_the_options(tmp_path, no_pictures):
    assert main(command("db", tmp_path, "--n", "9", "--corr_every", "4")) == 0
    metrics = read_metrics(only_run(tmp_path))
    due = {name: [step for step, v in zip(metrics["step"], metrics[name], strict=True) if v == v] for name in OWN}
    assert metrics["step"] == [2, 4, 6, 8, 9]
    assert due["mean_reward"] == metrics["step"]
    assert [due[name] for name in CORRELATIONS] == [[4, 8, 9]] * 2
    assert [due[name] for name in SORTED] == [[9]] * 3


def test_a_correlation_that_falls_between_two_rows_is_in_the_next_one(tmp_path, no_pictures):
    assert main(command("db", tmp_path, "--n", "9", "--corr_every", "3")) == 0
    metrics = read_metrics(only_run(tmp_path))
    known = [step for step, value in zip(metrics["step"], metrics["reward_correlation"], strict=True) if value == value]
    assert known == [4, 6, 9]


def test_zero_turns_correlations_off_and_needs_no_test_set(tmp_path, monkeypatch, no_pictures):
    monkeypatch.setattr(files, "FILES", {WEIGHTS_FILE: files.FILES[WEIGHTS_FILE]})
    assert main(command("db", tmp_path, "--corr_every", "0", "--test_set", "original")) == 0
    metrics = read_metrics(only_run(tmp_path))
    assert all(math.isnan(value) for name in CORRELATIONS for value in metrics[name])
    assert not any(math.isnan(metrics[name][-1]) for name in SORTED)


def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(tmp_path, no_pictures):
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(command("dqn", tmp_path / folder, "--seed", seed)) == 0
    one, again, other = (metrics_without_time(tmp_path / folder) for folder in "abc")
    assert one == again
    assert_same(checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b"))
    for name in ("loss", "pb_loss", "mean_reward", "top_100_diversity", "reward_correlation_generated"):
        assert one[name] != other[name]


def test_the_test_set_does_not_depend_on_the_seed(tmp_path, no_pictures, monkeypatch):
    seen = []
    monkeypatch.setattr("mols.common.algorithm.train", lambda agent, *_, **__: seen.append(agent.task.test_states))
    for seed in ("1", "2"):
        assert main(command("tb", tmp_path, "--seed", seed)) == 0
    assert_same(tuple(seen[0]), tuple(seen[1]))
    assert len(seen[0].fragment) == 3


@pytest.mark.slow
def test_worker_processes_change_no_metric(tmp_path, no_pictures):
    for workers in "02":
        assert main(command("tb", tmp_path / workers, "--workers", workers, "--n", "2")) == 0
    assert metrics_without_time(tmp_path / "0") == metrics_without_time(tmp_path / "2")
    assert_same(checkpoint(tmp_path / "0"), checkpoint(tmp_path / "2"))


def test_an_existing_run_is_refused_and_a_finished_one_not_repeated(tmp_path, no_pictures, capsys):
    argv = command("tb", tmp_path)
    assert main(argv) == 0
    capsys.readouterr()
    refused(argv, "--if_exists=resume", tmp_path, capsys)
    before = contents(tmp_path)
    free = ["--checkpoint_every", "7", "--workers", "1", "--data_dir", "elsewhere"]  # need not be the same, nor exist
    assert main([*argv, "--if_exists", "resume", *free]) == 0
    assert "is done" in capsys.readouterr().out
    assert contents(tmp_path) == before


def test_a_run_is_resumed_with_its_own_configuration_alone(tmp_path, no_pictures, capsys):
    argv = [*command("tb", tmp_path), "--if_exists", "resume"]
    assert main(argv) == 0
    capsys.readouterr()
    path = only_run(tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"leaf_coeff": 2.0}))
    refused(argv, "was run with leaf_coeff = 2.0, not None", tmp_path, capsys)


def test_a_run_goes_on_on_another_device_with_other_threads(tmp_path, no_pictures):
    """It began, as far as its folder and its checkpoint know, on a GPU, which here may not be."""
    argv = command("tb", tmp_path)
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


def test_other_kernels_give_the_same_up_to_rounding_and_may_go_on_with_a_run(tmp_path, no_pictures, monkeypatch):
    argv, losses, calls = command("tb", tmp_path), [], []
    forward = Layer.forward
    monkeypatch.setattr(Layer, "forward", lambda *args, **more: calls.append(len(losses)) or forward(*args, **more))
    for kernels in ("auto", "torch"):
        assert main([*argv, "--kernels", kernels, "--if_exists", "overwrite"]) == 0
        losses.append(list(read_metrics(only_run(tmp_path))["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert set(calls) == {1}  # of the second run alone
    (only_run(tmp_path) / "DONE").unlink()
    assert main([*argv, "--kernels", "compiled", "--if_exists", "resume"]) == 0


def test_overwrite_starts_again(tmp_path, no_pictures):
    argv = command("tb", tmp_path)
    assert main(argv) == 0
    before = metrics_without_time(tmp_path)
    (only_run(tmp_path) / "metrics.csv").write_text("old")
    assert main([*argv, "--if_exists", "overwrite"]) == 0
    assert metrics_without_time(tmp_path) == before


def test_a_damaged_checkpoint_is_refused_and_left_alone(tmp_path, no_pictures, capsys):
    argv = [*command("tb", tmp_path), "--if_exists", "resume"]
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
    from mols.agents.balance import BalanceAgent

    forward_loss, steps = BalanceAgent.forward_loss, []

    def poisoned(agent, batch):
        steps.append(1)
        loss = forward_loss(agent, batch)
        return loss * float("nan") if len(steps) == 7 else loss

    monkeypatch.setattr(BalanceAgent, "forward_loss", poisoned)
    assert main(command("db", tmp_path, "--n", "10", "--checkpoint_every", "4")) == 2
    error = capsys.readouterr().err
    assert "step 7: loss is nan" in error and "checkpoint.pt of step 4" in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert read_metrics(only_run(tmp_path))["step"] == [2, 4, 6]
    assert not (only_run(tmp_path) / "DONE").exists()


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupt(agent):
        raise KeyboardInterrupt

    monkeypatch.setattr(learning.LearningAgent, "sample", interrupt)
    assert main(command("tb", tmp_path)) == 130
    assert "--if_exists resume" in capsys.readouterr().err
    assert json.loads((only_run(tmp_path) / "meta.json").read_text())["status"] == "interrupted"


def test_a_run_does_not_remember_its_working_directory(tmp_path, monkeypatch, no_pictures):
    """Moved elsewhere with its folder, a run can be gone on with, and is the same."""
    argv = command("db", "mine", "--if_exists", "resume")
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
    assert main(command("tb", tmp_path, "--tensorboard")) == 0
    assert list((only_run(tmp_path) / "tensorboard").glob("events*"))


def test_wandb_gets_the_configuration_and_every_row(tmp_path, monkeypatch, no_pictures):
    started, logged, finished = [], [], []
    run = types.SimpleNamespace(
        log=lambda row, step: logged.append((step, row)), finish=lambda exit_code: finished.append(exit_code)
    )
    fake = types.SimpleNamespace(init=lambda **options: started.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert main(command("tb", tmp_path, "--wandb", "molecules")) == 0
    (options,) = started
    assert (options["project"], options["dir"]) == ("molecules", str(only_run(tmp_path)))
    assert options["config"]["backward_approach"] == "tlm"
    assert [step for step, _ in logged] == [2, 4] and finished == [0]
    assert logged[1][1]["mean_reward"] == read_metrics(only_run(tmp_path))["mean_reward"][1]


def launch(words, folder, **environment):
    env = os.environ | {"PYTHONPATH": str(SUITE.parent), "GFLOWNET_TLM_DATA": str(SHARED)} | environment
    return subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@needs_weights
@pytest.mark.slow
def test_wandb_works_offline(tmp_path):
    words = ["-m", "mols.tasks.seh_frag", *command("tb", tmp_path, "--wandb", "test")]
    done = launch(words, tmp_path, WANDB_MODE="offline", WANDB_SILENT="true", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert list((only_run(tmp_path) / "wandb").glob("offline-run-*"))


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
