"""meta.json: where a run comes from, how it stopped, its stretches, the results version."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import (
    COLUMNS,
    CONFIG,
    FLAG,
    FREE,
    Weights,
    begin,
    meta_of,
    refusal,
    row,
)

from hypergrid.common import provenance
from hypergrid.common.run_folder import Run, read_metrics
from hypergrid.common.terminal import ExperimentError


def test_meta_says_where_a_run_comes_from(open_run, monkeypatch):
    monkeypatch.setattr("sys.argv", ["run_hypergrid_exp.py", "--general", "general.py:3"])
    run = open_run()
    with run.recorded(COLUMNS):
        meta = meta_of(run)
        assert meta["status"] == "running"
        assert meta["stop"] is None
    assert meta["command"].endswith("run_hypergrid_exp.py --general general.py:3")
    assert torch.__version__.startswith(meta["versions"]["torch"])  # +cu130 is not in every wheel's name
    assert meta["versions"]["numpy"] == np.__version__
    assert {"python", "torchgfn"} <= set(meta["versions"])
    assert set(meta["machine"]) >= {"platform", "cpus", "gpu"}
    done = meta_of(run)
    assert done["status"] == "done"
    assert done["stop"] >= done["start"]
    assert done | {"status": "running", "stop": None} == meta


SENTENCE = "cannot read or write f (No space left on device): make room, or take another place"


@pytest.mark.parametrize(
    ("error", "raised", "status"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, "interrupted"),
        (ValueError("the loss is bad"), ValueError, "failed: the loss is bad"),
        (OSError(28, "No space left on device", "f"), ExperimentError, f"failed: {SENTENCE}"),
    ],
)
def test_meta_says_how_a_run_stopped(open_run, error, raised, status):
    run = open_run()
    with pytest.raises(raised), run.recorded(COLUMNS):
        raise error
    assert meta_of(run)["status"] == status
    assert meta_of(run)["stop"] is not None
    assert not (run.directory / "DONE").exists()


def test_meta_says_that_a_run_stopped_on_a_full_disk(open_run, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    run = open_run()
    with pytest.raises(KeyboardInterrupt), run.recorded(COLUMNS):
        monkeypatch.setattr(os, "fsync", full)
        raise KeyboardInterrupt
    assert meta_of(run)["status"] == "stopped"
    assert not list(run.directory.glob("*.partial"))


def test_a_folder_that_cannot_be_written_is_one_sentence(suite, tmp_path):
    """/proc stands for a read-only disk: the tests may run as root, whom the mode of a folder does not stop."""
    options = {"if_exists": "refuse", "flag": FLAG, "suite": suite, "results_version": 1, "free": FREE, "newer": {}}
    run = Run(Path("/proc/runs/seed=3"), CONFIG, **options)
    assert refusal(begin, run).startswith("cannot create the folder /proc/runs/seed=3 (")
    (tmp_path / "file").touch()
    run = Run(tmp_path / "file" / "seed=3", CONFIG, **options)
    assert "(Not a directory): choose another one" in refusal(begin, run)


def test_device_threads_and_machine_of_each_stretch_are_recorded(open_run, monkeypatch):
    def on(device: str, threads: int) -> dict:
        return CONFIG | {"general": CONFIG["general"] | {"device": device, "threads": threads}}

    meta_of_stopped(open_run(config=on("cpu", 1)))
    monkeypatch.setattr(provenance.platform, "platform", lambda: "another")
    meta = meta_of_stopped(open_run("resume", on("cuda", 4)))
    assert (meta["device"], meta["threads"]) == ("cpu", 1)
    (stretch,) = meta["resumed"]
    assert (stretch["device"], stretch["threads"]) == ("cuda", 4)
    assert meta["machine"].keys() == stretch["machine"].keys() and stretch["machine"]["platform"] == "another"


def test_a_run_is_not_lost_when_the_working_directory_changes(tmp_path, suite, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run(
        Path("runs/seed=3"), CONFIG, if_exists="refuse", flag=FLAG, suite=suite, results_version=1, free=FREE, newer={}
    )
    (tmp_path / "elsewhere").mkdir()
    with run.recorded(COLUMNS):
        run.write_row(row(1))
        os.chdir(tmp_path / "elsewhere")
        run.save(Weights(1.0), 1)
        run.write_row(row(2))
    assert read_metrics(tmp_path / "runs/seed=3")["step"] == [1, 2]
    assert list((tmp_path / "elsewhere").iterdir()) == [] and (tmp_path / "runs/seed=3/DONE").exists()


def test_resumptions_are_listed_and_the_first_start_stays(open_run):
    first = meta_of_stopped(open_run())
    again = meta_of_stopped(open_run("resume"))
    assert again["start"] == first["start"] and again["results_version"] == first["results_version"] == 1
    assert len(again["resumed"]) == 1
    assert len(meta_of_stopped(open_run("resume"))["resumed"]) == 2


@pytest.mark.parametrize("done", [False, True])
def test_a_run_of_another_results_version_is_not_resumed(open_run, done):
    run = open_run()
    with run.recorded(COLUMNS):
        pass
    if not done:
        (run.directory / "DONE").unlink()
    with pytest.raises(
        ExperimentError, match=r"has results version 1, this program computes version 2: use .*overwrite"
    ):
        open_run("resume", results_version=2)


def meta_of_stopped(run: Run) -> dict:
    with pytest.raises(KeyboardInterrupt), run.recorded(COLUMNS):
        raise KeyboardInterrupt
    return meta_of(run)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_hash_and_dirty_flag(open_run, suite, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # a hook's variables would lead git elsewhere

    def git(*arguments: str) -> str:
        options = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", f"core.hooksPath={os.devnull}"]
        command = ["git", "-C", str(suite), *options, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def meta() -> dict:
        begin(run := open_run("overwrite"))
        return meta_of(run)

    assert meta()["git_hash"] is None
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    assert meta()["git_hash"] == git("rev-parse", "HEAD")
    assert meta()["git_dirty"] is False
    (suite / "a.py").write_text("A = 2\n")
    assert meta()["git_dirty"] is True
