"""A run of every suite by its command line: what is refused, gone on with, started again, shown and recorded."""

import json
import re
import shutil
import sys
import types

import pytest
import torch
from each import each
from same import assert_same
from suites import HYPERGRID, MOLS, checkpoint, contents, each_suite, metrics_without_time, only_run, quicken, refused

from hypergrid.common.run_folder import read_metrics


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quicken(monkeypatch)
    yield
    torch.set_num_threads(1)  # a run sets its own


@each_suite
def test_an_output_folder_that_is_a_file_is_refused(suite, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    refused(suite.main, suite.argv("tb", tmp_path / "file"), "choose another", tmp_path, capsys)


@each_suite
def test_the_same_seed_gives_the_same_run_and_another_seed_another(suite, tmp_path):
    objective = suite.objectives[3]
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        suite.run(objective, tmp_path / folder, seed=seed)
    one, again, other = (metrics_without_time(tmp_path / folder) for folder in "abc")
    assert one == again
    assert_same(checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b"))
    for name in ("loss", "pb_loss", *(() if suite is HYPERGRID else ("mean_reward", "mean_log_reward"))):
        assert one[name] != other[name]


@each_suite
def test_an_existing_run_is_refused_and_a_finished_one_not_repeated(suite, tmp_path, capsys):
    suite.run("tb", tmp_path)
    refused(suite.main, suite.argv("tb", tmp_path), f"{suite.flag}=resume", tmp_path, capsys)
    before = contents(tmp_path)
    free = {"checkpoint_every": 7} | ({"workers": 1, "data_dir": "elsewhere"} if suite is MOLS else {})
    suite.run("tb", tmp_path, if_exists="resume", **free)  # need not be the same, nor exist
    assert "is done" in capsys.readouterr().out
    assert contents(tmp_path) == before


@each_suite
def test_a_run_is_resumed_with_its_own_configuration_alone(suite, tmp_path, capsys):
    path = suite.run("tb", tmp_path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"leaf_coeff": 2.0}))
    argv = suite.argv("tb", tmp_path, if_exists="resume")
    refused(suite.main, argv, "was run with leaf_coeff = 2.0, not None", tmp_path, capsys)


def machine(config: dict) -> dict:
    """The part of a configuration that says where a run is computed."""
    return config.get("general", config)


@each_suite
def test_a_run_goes_on_on_another_device_with_other_threads_and_kernels(suite, tmp_path):
    """It began, as far as its folder and its checkpoint know, on a GPU, which here may not be."""
    objective = suite.objectives[-1]
    run = suite.run(objective, tmp_path)
    before = metrics_without_time(tmp_path)
    (run / "DONE").unlink()
    config, meta = (json.loads((run / name).read_text()) for name in ("config.json", "meta.json"))
    machine(config)["device"] = "cuda"
    (run / "config.json").write_text(json.dumps(config))
    (run / "meta.json").write_text(json.dumps(meta | {"device": "cuda"}))
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    state["agent"]["streams"]["cuda"] = [torch.zeros(16, dtype=torch.uint8)] * (torch.cuda.device_count() == 0)
    torch.save(state, run / "checkpoint.pt")
    assert suite.run(objective, tmp_path, if_exists="resume", threads=2, kernels="torch") == run
    assert metrics_without_time(tmp_path) == before and (run / "DONE").exists()
    found = machine(json.loads((run / "config.json").read_text()))
    assert (found["device"], found["threads"], found["kernels"]) == ("cpu", 2, "torch")
    meta = json.loads((run / "meta.json").read_text())
    stretches = [(stretch["device"], stretch["threads"]) for stretch in (meta, *meta["resumed"])]
    assert stretches == [("cuda", 1), ("cpu", 2)]


@each_suite
def test_overwrite_starts_again(suite, tmp_path):
    run = suite.run("tb", tmp_path)
    before = metrics_without_time(tmp_path)
    (run / "metrics.csv").write_text("old")
    suite.run("tb", tmp_path, if_exists="overwrite")
    assert metrics_without_time(tmp_path) == before


@each_suite
def test_a_damaged_checkpoint_is_refused_and_left_alone(suite, tmp_path, capsys):
    run = suite.run("tb", tmp_path)
    (run / "DONE").unlink()
    damaged = (run / "checkpoint.pt").read_bytes()[:-1000]
    (run / "checkpoint.pt").write_bytes(damaged)
    capsys.readouterr()
    assert suite.main(suite.argv("tb", tmp_path, if_exists="resume")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "checkpoint.pt is damaged" in error
    assert (run / "checkpoint.pt").read_bytes() == damaged and not (run / "DONE").exists()


@each_suite
def test_a_loss_that_is_not_finite_names_step_and_checkpoint(suite, tmp_path, monkeypatch, capsys):
    agent_class, steps = suite.module("agents.balance").BalanceAgent, []
    forward_loss = agent_class.forward_loss

    def poisoned(agent, batch):
        steps.append(1)
        loss = forward_loss(agent, batch)
        return loss * float("nan") if len(steps) == 7 else loss

    monkeypatch.setattr(agent_class, "forward_loss", poisoned)
    assert suite.main(suite.argv("db", tmp_path, num_iterations=10, checkpoint_every=4)) == 2
    error = capsys.readouterr().err
    assert "step 7: loss is nan" in error and "checkpoint.pt of step 4" in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert read_metrics(only_run(tmp_path))["step"] == [2, 4, 6]
    assert not (only_run(tmp_path) / "DONE").exists()


@each_suite
def test_ctrl_c_says_how_to_go_on(suite, tmp_path, monkeypatch, capsys):
    def interrupt(agent):
        raise KeyboardInterrupt

    monkeypatch.setattr(suite.module("agents.base").LearningAgent, "sample", interrupt)
    assert suite.main(suite.argv("tb", tmp_path)) == 130
    assert re.search(f"{suite.flag}[ =]resume", capsys.readouterr().err)
    assert json.loads((only_run(tmp_path) / "meta.json").read_text())["status"] == "interrupted"


@each_suite
def test_a_disk_that_gets_full_ends_a_run_and_room_lets_it_go_on(suite, tmp_path, small_disk, capsys):
    size = (suite.run("tb", tmp_path / "whole") / "checkpoint.pt").stat().st_size
    capsys.readouterr()
    argv = suite.argv("tb", tmp_path / "full")
    with small_disk(size - 1000):
        assert suite.main(argv) == 2
    error, run = capsys.readouterr().err, only_run(tmp_path / "full")
    sentence = f"cannot write {run}/checkpoint.pt (File too large): make room, or choose another place"
    assert error == f"error: {sentence}\n"
    assert json.loads((run / "meta.json").read_text())["status"] == f"failed: {sentence}"
    assert {entry.name for entry in run.iterdir()} == {".lock", "config.json", "meta.json", "metrics.csv"}
    suite.run("tb", tmp_path / "full", if_exists="resume")
    assert metrics_without_time(tmp_path / "full") == metrics_without_time(tmp_path / "whole")


@each_suite
def test_a_run_does_not_remember_its_working_directory(suite, tmp_path, monkeypatch):
    """Moved elsewhere with its folder, a run can be gone on with, and is the same."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    run = tmp_path / "one" / suite.run("db", "mine")
    assert run.is_relative_to(tmp_path / "one" / "mine")
    assert str(tmp_path) not in (run / "config.json").read_text()
    before = metrics_without_time(tmp_path / "one")
    (run / "DONE").unlink()
    shutil.move(tmp_path / "one" / "mine", tmp_path / "two" / "mine")
    monkeypatch.chdir(tmp_path / "two")
    suite.run("db", "mine", if_exists="resume")
    assert metrics_without_time(tmp_path / "two") == before
    assert list((tmp_path / "one").iterdir()) == []


@each_suite
def test_tensorboard_writes_events(suite, tmp_path):
    assert list((suite.run("tb", tmp_path, tensorboard=True) / "tensorboard").glob("events*"))


@each_suite
def test_wandb_gets_the_configuration_and_every_row(suite, tmp_path, monkeypatch):
    started, logged, finished = [], [], []
    run = types.SimpleNamespace(
        log=lambda row, step: logged.append((step, row)), finish=lambda exit_code: finished.append(exit_code)
    )
    fake = types.SimpleNamespace(init=lambda **options: started.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    folder = suite.run("tb", tmp_path, wandb="a-project")
    (options,), metrics = started, read_metrics(folder)
    assert (options["project"], options["dir"]) == ("a-project", str(folder))
    assert options["config"] == json.loads((folder / "config.json").read_text())
    assert [step for step, _ in logged] == [2, 4] and finished == [0]
    assert {"loss", "pb_deviation", "mean_log_reward"} <= logged[1][1].keys()
    assert all(metrics[name][1] == value for name, value in logged[1][1].items())


@each("suite", [HYPERGRID])
def test_wandb_works_offline(suite, tmp_path, monkeypatch):
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    process = suite.process(suite.argv("tb", tmp_path, wandb="test"))
    assert process.wait(timeout=300) == 0
    assert list((only_run(tmp_path) / "wandb").glob("offline-run-*"))
