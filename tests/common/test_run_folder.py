"""The run folder: what an existing one is taken for, what a kill may leave behind, and what is refused."""

import json
import math
import os
import pickle
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hypergrid.common import provenance
from hypergrid.common.randomness import Streams
from hypergrid.common.run_folder import COMMON_COLUMNS, Run, read_metrics
from hypergrid.common.terminal import ExperimentError

CONFIG = {"general": {"seed": 3, "output_dir": "runs"}, "algo": {"name": "tb", "learning_rate": 1e-3}}
COLUMNS = ("l1_dist", "log_z_error")
FLAG = "--general.if_exists"


class Weights:
    """The least that a run can save and restore."""

    def __init__(self, value: float = 0.0) -> None:
        self.weight = torch.full((3,), value)

    def state_dict(self):
        return {"weight": self.weight.clone(), "optimizers": [{"moment": (self.weight.clone(), 1)}]}

    def load_state_dict(self, state):
        self.weight = state["weight"]


class Killed(BaseException):
    """Stands for a kill: nothing in the package may catch it to go on."""


@pytest.fixture
def suite(tmp_path) -> Path:
    folder = tmp_path / "suite"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.py").write_text("A = 1\n")
    (folder / "inner" / "b.py").write_text("B = 1\n")
    (folder / "README.md").write_text("words\n")
    return folder


@pytest.fixture
def open_run(tmp_path, suite):
    """``open_run(if_exists, ...)``: the run folder of this test, looked at."""

    def new(if_exists: str = "refuse", config: dict = CONFIG, results_version: int = 1) -> Run:
        return Run(
            tmp_path / "tb-tlm" / "seed=3",
            config,
            if_exists=if_exists,
            flag=FLAG,
            suite=suite,
            results_version=results_version,
            free=FREE,
        )

    return new


FREE = ("output_dir", "checkpoint_interval", "device", "threads")


def row(step: int, **values: float | None) -> dict[str, float | None]:
    return {"step": step, "trajectories": 16 * step, "wall_s": 0.5, "loss": 1.25, **values}


def train(run: Run, *, steps: range, checkpoint: int | None = None) -> Path:
    """Write a row per step, and a checkpoint whose weights are its step; returns the folder."""
    with run.recorded(COLUMNS):
        run.restore(Weights())
        for step in steps:
            run.write_row(row(step, l1_dist=1 / step))
            if step == checkpoint:
                run.save(Weights(float(step)), step)
    return run.directory


def unfinished(run: Run, *, steps: range, checkpoint: int | None = None) -> Path:
    """What a kill leaves of ``train``."""
    directory = train(run, steps=steps, checkpoint=checkpoint)
    (directory / "DONE").unlink()
    return directory


def snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Time of change and bytes of every file."""
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(directory.rglob("*")) if p.is_file()}


def contents(directory: Path) -> dict[str, bytes]:
    return {path: content for path, (_, content) in snapshot(directory).items()}


def refusal(run_or_function, *arguments) -> str:
    """The message of the ExperimentError, checked to be one line of one sentence."""
    with pytest.raises(ExperimentError) as caught:
        run_or_function(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def begin(run: Run) -> None:
    with run.recorded(COLUMNS):
        run.restore(Weights())


# What an existing folder is taken for


def test_a_fresh_folder_becomes_a_complete_run(open_run):
    directory = train(open_run(), steps=range(1, 4), checkpoint=3)
    names = {entry.name for entry in directory.iterdir()} - {".lock"}
    assert names == {"config.json", "meta.json", "metrics.csv", "checkpoint.pt", "DONE"}
    assert json.loads((directory / "config.json").read_text()) == CONFIG
    assert (directory / "metrics.csv").read_text().splitlines()[0] == ",".join((*COMMON_COLUMNS, *COLUMNS))


def test_looking_creates_nothing(open_run, tmp_path):
    for if_exists in ("refuse", "resume", "overwrite"):
        run = open_run(if_exists)
        assert not run.done
        assert not run.directory.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["suite"]


@pytest.mark.parametrize("done", [True, False])
def test_refuse_names_both_ways_on(open_run, done):
    directory = (train if done else unfinished)(open_run(), steps=range(1, 3), checkpoint=2)
    before = snapshot(directory)
    message = refusal(open_run, "refuse")
    assert str(directory) in message
    assert f"{FLAG}=resume" in message
    assert f"{FLAG}=overwrite" in message
    assert snapshot(directory) == before


def test_resume_of_a_done_run_touches_nothing(open_run):
    directory = train(open_run(), steps=range(1, 3), checkpoint=2)
    before = snapshot(directory)
    assert open_run("resume").done
    assert snapshot(directory) == before


def test_resume_goes_on_from_the_checkpoint(open_run):
    unfinished(open_run(), steps=range(1, 6), checkpoint=3)
    run, weights = open_run("resume"), Weights()
    assert not run.done
    with run.recorded(COLUMNS):
        assert run.restore(weights) == 3
        assert torch.equal(weights.weight, torch.full((3,), 3.0))
        assert read_metrics(run.directory)["step"] == [1, 2, 3]


def test_resume_of_nothing_starts(open_run):
    run = open_run("resume")
    with run.recorded(COLUMNS):
        assert run.restore(Weights()) == 0


def test_a_kill_before_the_first_checkpoint_starts_again(open_run):
    unfinished(open_run(), steps=range(1, 4))
    run = open_run("resume")
    with run.recorded(COLUMNS):
        assert run.restore(Weights()) == 0
        assert (run.directory / "metrics.csv").read_text() == ",".join(run.columns) + "\n"


def test_overwrite_starts_again_from_nothing(open_run):
    directory = train(open_run(), steps=range(1, 4), checkpoint=3)
    (directory / "tensorboard").mkdir()
    (directory / "tensorboard" / "events").write_text("old")
    run = open_run("overwrite")
    assert not run.done
    with run.recorded(COLUMNS):
        assert run.restore(Weights()) == 0
        assert not (directory / "tensorboard").exists()
        assert not (directory / "DONE").exists()
        assert not (directory / "checkpoint.pt").exists()
        assert read_metrics(directory) == {}
        assert json.loads((directory / "meta.json").read_text())["resumed"] == []


def test_resume_with_another_config_names_the_difference(open_run):
    directory = unfinished(open_run(), steps=range(1, 3), checkpoint=2)
    before = snapshot(directory)
    other = CONFIG | {"algo": {"name": "tb", "learning_rate": 0.01}}
    message = refusal(open_run, "resume", other)
    assert "algo.learning_rate = 0.001, not 0.01" in message
    assert f"{FLAG}=overwrite" in message
    assert snapshot(directory) == before


@pytest.mark.parametrize("change", ["added", "removed"])
def test_resume_refuses_a_field_more_or_less(open_run, change):
    larger = CONFIG | {"algo": {**CONFIG["algo"], "m_alpha": 0.15}}
    old, new = (CONFIG, larger) if change == "added" else (larger, CONFIG)
    unfinished(open_run(config=old), steps=range(1, 3), checkpoint=2)
    assert "algo.m_alpha" in refusal(open_run, "resume", new)


def test_a_done_run_of_another_config_is_refused_too(open_run):
    train(open_run(), steps=range(1, 3), checkpoint=2)
    assert "algo.name" in refusal(open_run, "resume", CONFIG | {"algo": {**CONFIG["algo"], "name": "db"}})


def test_free_fields_may_differ(open_run):
    unfinished(open_run(), steps=range(1, 3), checkpoint=2)
    config = CONFIG | {"general": {"seed": 3, "output_dir": "elsewhere", "checkpoint_interval": 7}}
    run = open_run("resume", config)
    with run.recorded(COLUMNS):
        assert run.restore(Weights()) == 2
    assert json.loads((run.directory / "config.json").read_text()) == config


@pytest.mark.parametrize("if_exists", ["refuse", "resume", "overwrite"])
def test_a_folder_that_is_no_run_is_never_touched(open_run, if_exists):
    directory = open_run().directory
    directory.mkdir(parents=True)
    (directory / "thesis.tex").write_text("years of work")
    before = snapshot(directory)
    message = refusal(open_run, if_exists)
    if if_exists != "refuse":
        assert "not a run folder" in message
    assert snapshot(directory) == before


@pytest.mark.parametrize("if_exists", ["refuse", "resume", "overwrite"])
def test_a_file_in_the_folders_place_is_never_touched(open_run, if_exists):
    directory = open_run().directory
    directory.parent.mkdir(parents=True)
    directory.write_text("mine")
    refusal(open_run, if_exists)
    assert directory.read_text() == "mine"


@pytest.mark.parametrize("if_exists", ["refuse", "resume", "overwrite"])
def test_what_a_kill_before_config_json_leaves_counts_as_fresh(open_run, if_exists):
    directory = open_run().directory
    directory.mkdir(parents=True)
    (directory / ".lock").touch()
    (directory / "config.json.partial").write_text('{"gen')
    train(open_run(if_exists), steps=range(1, 3), checkpoint=2)
    assert read_metrics(directory)["step"] == [1, 2]
    assert json.loads((directory / "config.json").read_text()) == CONFIG


@pytest.mark.parametrize("survives", ["config.json", "config.json meta.json", "config.json meta.json metrics.csv"])
def test_a_kill_while_the_folder_is_made_can_be_resumed(open_run, survives):
    directory = unfinished(open_run(), steps=range(0))
    for entry in directory.iterdir():
        if entry.name not in survives.split():
            entry.unlink()
    train(open_run("resume"), steps=range(1, 3), checkpoint=2)
    assert read_metrics(directory)["step"] == [1, 2]


def test_a_kill_while_overwriting_never_leaves_half_a_run_called_done(open_run, monkeypatch):
    directory = train(open_run(), steps=range(1, 4), checkpoint=3)
    whole, unlink = contents(directory), Path.unlink
    for survivors in range(len(whole), 1, -1):  # the lock stays
        shutil.rmtree(directory)
        directory.mkdir()
        for path, content in whole.items():
            Path(path).write_bytes(content)
        left = [len(whole) - survivors]

        def kill(path, missing_ok=False, left=left):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            unlink(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", kill)
            with pytest.raises(Killed):
                begin(open_run("overwrite"))
        if contents(directory).keys() == whole.keys():
            continue
        open_run("overwrite")  # raises where the leftover is not known for a run any more
        assert not open_run("resume").done


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00"])
@pytest.mark.parametrize("done", [True, False])
def test_a_damaged_config_is_refused(open_run, damage, done):
    directory = (train if done else unfinished)(open_run(), steps=range(1, 3), checkpoint=2)
    (directory / "config.json").write_bytes(damage)
    before = snapshot(directory)
    message = refusal(open_run, "resume")
    assert "config.json is damaged" in message
    assert f"{FLAG}=overwrite" in message
    assert snapshot(directory) == before


@pytest.mark.parametrize("damage", ["", "{", "[]"])
def test_a_damaged_meta_json_ends_in_one_sentence(open_run, damage):
    directory = unfinished(open_run(), steps=range(1, 3), checkpoint=2)
    (directory / "meta.json").write_text(damage)
    assert "meta.json is damaged" in refusal(open_run, "resume")


# Checkpoints


def damaged(content: bytes, kind: str) -> bytes:
    if kind == "truncated":
        return content[: len(content) // 2]
    if kind == "empty":
        return b""
    if kind == "text":
        return b"not a checkpoint at all\n"
    middle = len(content) // 2
    return content[:middle] + bytes(b ^ 0xFF for b in content[middle : middle + 64]) + content[middle + 64 :]


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "flipped"])
def test_a_damaged_checkpoint_is_refused_and_left_alone(open_run, kind):
    directory = unfinished(open_run(), steps=range(1, 4), checkpoint=3)
    path = directory / "checkpoint.pt"
    path.write_bytes(damaged(path.read_bytes(), kind))
    kept = {name: (directory / name).read_bytes() for name in ("checkpoint.pt", "metrics.csv")}
    message = refusal(begin, open_run("resume"))
    assert str(path) in message
    assert "damaged" in message
    assert f"{FLAG}=overwrite" in message
    assert {name: (directory / name).read_bytes() for name in kept} == kept


@pytest.mark.parametrize("state", [{}, {"step": 3, "wall_s": 0.0}, {"step": 3, "wall_s": 0.0, "agent": {}}, [1, 2]])
def test_a_checkpoint_of_another_program_is_refused(open_run, state):
    directory = unfinished(open_run(), steps=range(1, 4), checkpoint=3)
    torch.save(state, directory / "checkpoint.pt")
    assert "of another program" in refusal(begin, open_run("resume"))


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("plain", [True, False])
def test_a_checkpoint_cannot_run_code(open_run, tmp_path, plain):
    directory = unfinished(open_run(), steps=range(1, 4), checkpoint=3)
    path, marker = directory / "checkpoint.pt", tmp_path / "executed"
    state = {"step": 3, "wall_s": 0.0, "agent": Malicious(marker)}
    path.write_bytes(pickle.dumps(state)) if plain else torch.save(state, path)
    before = path.read_bytes()
    assert "damaged or of another program" in refusal(begin, open_run("resume"))
    assert not marker.exists()
    assert path.read_bytes() == before
    torch.load(path, weights_only=False) if not plain else pickle.loads(before)
    assert marker.exists()  # the file was dangerous indeed


def test_a_failure_while_saving_keeps_the_old_checkpoint(open_run, small_disk):
    run = open_run()
    with run.recorded(COLUMNS):
        run.save(Weights(1.0), 1)
        before = (run.directory / "checkpoint.pt").read_bytes()
        with small_disk(len(before) // 2):
            assert "checkpoint.pt (File too large)" in refusal(run.save, Weights(2.0), 2)
        assert (run.directory / "checkpoint.pt").read_bytes() == before
        assert not list(run.directory.glob("*.partial"))
        run.save(Weights(3.0), 3)
    weights = Weights()
    (run.directory / "DONE").unlink()
    again = open_run("resume")
    with again.recorded(COLUMNS):
        assert again.restore(weights) == 3
    assert torch.equal(weights.weight, torch.full((3,), 3.0))


def test_a_row_that_does_not_fit_leaves_nothing_of_itself(open_run, small_disk):
    run = open_run()
    with run.recorded(COLUMNS):
        run.write_row(row(1))
        before = (run.directory / "metrics.csv").read_bytes()
        with small_disk(len(before) + 5):
            assert "metrics.csv (No space left on device)" in refusal(run.write_row, row(2))
        assert (run.directory / "metrics.csv").read_bytes() == before
        run.write_row(row(2))
    assert read_metrics(run.directory)["step"] == [1, 2]


def test_a_checkpoint_loads_as_weights_only(open_run):
    directory = train(open_run(), steps=range(1, 4), checkpoint=3)
    assert zipfile.is_zipfile(directory / "checkpoint.pt")
    state = torch.load(directory / "checkpoint.pt", weights_only=True)
    assert state["step"] == 3
    assert not list(directory.glob("*.partial"))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_not_saved(open_run, bad):
    run = open_run()
    with run.recorded(COLUMNS):
        run.save(Weights(1.0), 1)
        before = snapshot(run.directory)
        message = refusal(run.save, Weights(bad), 2)
        assert "step 2" in message
        assert str(run.directory / "checkpoint.pt") in message
        assert "of step 1" in message
        assert snapshot(run.directory) == before


def test_a_weight_that_is_not_finite_is_found_in_the_optimiser_too(open_run):
    class Diverging(Weights):
        def state_dict(self):
            return {"learners": [{"state": {0: {"exp_avg": (torch.tensor([1.0, math.nan]),)}}}]}

    run = open_run()
    with run.recorded(COLUMNS):
        assert "not finite" in refusal(run.save, Diverging(), 1)
    assert not (run.directory / "checkpoint.pt").exists()


# metrics.csv


def test_metrics_are_cut_back_and_a_torn_line_is_dropped(open_run):
    directory = unfinished(open_run(), steps=range(1, 8), checkpoint=5)
    path = directory / "metrics.csv"
    whole = path.read_text().splitlines()
    path.write_text("\n".join(whole[:-1]) + "\n" + whole[-1][:9])
    begin(open_run("resume"))
    assert path.read_text() == "\n".join(whole[:6]) + "\n"


def test_the_first_row_after_a_torn_line_is_whole(open_run):
    directory = unfinished(open_run(), steps=range(1, 4), checkpoint=3)
    with (directory / "metrics.csv").open("a") as file:
        file.write("4,64")
    train(open_run("resume"), steps=range(4, 6), checkpoint=5)
    assert read_metrics(directory)["step"] == [1, 2, 3, 4, 5]
    assert read_metrics(directory)["l1_dist"] == [1 / step for step in range(1, 6)]


def test_a_run_goes_on_with_a_column_that_it_did_not_have(open_run):
    directory = unfinished(open_run(), steps=range(1, 4), checkpoint=3)
    path = directory / "metrics.csv"
    *known, newer = path.read_text().splitlines()[0].split(",")
    path.write_text("".join(line.rpartition(",")[0] + "\n" for line in path.read_text().splitlines()))
    train(open_run("resume"), steps=range(4, 6), checkpoint=5)
    metrics = read_metrics(directory)
    assert tuple(metrics) == (*known, newer) and metrics["step"] == [1, 2, 3, 4, 5]
    assert [cell == "" for cell in (line.split(",")[-1] for line in path.read_text().splitlines()[1:4])] == [True] * 3


DAMAGED = [  # what it is replaced by, where, and what is said
    ("step", "epoch", "other columns"),
    ("step,", "", "line 2 has 8 cells, not 7"),
    ("step", "loss", "has the column loss more than once"),
    ("\n2,", "\nx,", "line 3 has text in the column step: 'x' is not a number"),
    ("\n2,", '\n"2,', "line 3 has a stray quote"),
    (None, "", "is empty"),
]


def test_damaged_metrics_are_refused_and_left_alone(open_run):
    directory = unfinished(open_run(), steps=range(1, 4), checkpoint=3)
    path = directory / "metrics.csv"
    whole = path.read_text()
    for old, new, said in DAMAGED:
        path.write_text(whole.replace(old, new, 1) if old else new)
        before = path.read_bytes()
        message = refusal(begin, open_run("resume"))
        assert said in message and f"{FLAG}=overwrite" in message
        assert path.read_bytes() == before


def test_a_missing_value_is_an_empty_cell(open_run):
    run = open_run()
    with run.recorded(COLUMNS):
        run.write_row(row(7, pb_loss=None, log_z_error=0.1))
        run.write_row(row(8, l1_dist=0.0))
    _, first, second = (run.directory / "metrics.csv").read_text().splitlines()
    assert first == "7,112,0.5,1.25,,,,0.1"
    assert second == "8,128,0.5,1.25,,,0.0,"
    metrics = read_metrics(run.directory)
    assert tuple(metrics) == run.columns
    assert math.isnan(metrics["l1_dist"][0])
    assert metrics["l1_dist"][1] == 0.0


def test_a_row_is_on_disk_at_once_and_exact(open_run):
    run, value = open_run(), 0.1 + 0.2
    with run.recorded(COLUMNS):
        run.write_row(row(1, l1_dist=value))
        assert read_metrics(run.directory)["l1_dist"] == [value]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", ["loss", "l1_dist"])
def test_a_metric_that_is_not_finite_is_an_error(open_run, bad, column):
    run = open_run()
    with run.recorded(COLUMNS):
        run.write_row(row(1))
        assert "no checkpoint was written yet" in refusal(run.write_row, row(2) | {column: bad})
        run.save(Weights(1.0), 1)
        message = refusal(run.write_row, row(2) | {column: bad})
        assert f"step 2: {column} is {bad}" in message
        assert f"the last good checkpoint is {run.directory / 'checkpoint.pt'} of step 1" in message
    assert read_metrics(run.directory)["step"] == [1]


def test_an_unknown_column_is_an_error(open_run):
    run = open_run()
    with run.recorded(COLUMNS), pytest.raises(ValueError, match="l2_dist"):
        run.write_row(row(1, l2_dist=0.5))
    assert read_metrics(run.directory) == {}


# meta.json


def meta_of(run: Run) -> dict:
    return json.loads((run.directory / "meta.json").read_text())


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
    options = {"if_exists": "refuse", "flag": FLAG, "suite": suite, "results_version": 1, "free": FREE}
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
    run = Run(Path("runs/seed=3"), CONFIG, if_exists="refuse", flag=FLAG, suite=suite, results_version=1, free=FREE)
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


# Two processes on one folder


@pytest.mark.parametrize("if_exists", ["resume", "overwrite"])
def test_a_folder_in_use_is_refused(open_run, if_exists):
    first = open_run()
    with first.recorded(COLUMNS):
        first.write_row(row(1))
        first.save(Weights(1.0), 1)
        before = snapshot(first.directory)
        message = refusal(begin, open_run(if_exists))
        assert "in use by another process" in message
        assert snapshot(first.directory) == before
        first.write_row(row(2))
    assert read_metrics(first.directory)["step"] == [1, 2]
    assert meta_of(first)["status"] == "done"


def test_a_folder_is_free_once_its_run_has_ended(open_run):
    first = open_run()
    begin(first)
    (first.directory / "DONE").unlink()
    second = open_run("resume")
    begin(second)
    assert len(meta_of(first)["resumed"]) == 1


def test_a_folder_is_free_once_its_run_has_failed(open_run):
    first = open_run()
    with pytest.raises(ValueError, match="bad"), first.recorded(COLUMNS):
        raise ValueError("bad")
    begin(open_run("resume"))
    assert meta_of(first)["status"] == "done"


def test_a_run_that_appeared_after_the_look_is_not_taken_over(open_run):
    late = open_run("refuse")
    directory = train(open_run("refuse"), steps=range(1, 3), checkpoint=2)
    before = contents(directory)
    refusal(begin, late)
    assert contents(directory) == before


# Random streams


def test_streams_are_independent():
    """What one stream has drawn, or that another was drawn from, changes no other."""
    untouched, used = Streams.from_seed(3), Streams.from_seed(3)
    used.sampling.random(1000)
    torch.rand(1000)
    for name in ("replay", "evaluation"):
        assert np.array_equal(getattr(untouched, name).random(8), getattr(used, name).random(8))
    streams = Streams.from_seed(3)
    draws = [getattr(streams, name).random(1000) for name in ("sampling", "replay", "evaluation")]
    correlation = np.corrcoef([*draws, torch.rand(1000).numpy()])
    assert np.abs(correlation[np.triu_indices(4, 1)]).max() < 0.15


def test_streams_follow_the_seed():
    def first_draws(seed: int) -> tuple:
        streams = Streams.from_seed(seed)
        generators = (streams.sampling, streams.replay, streams.evaluation)
        return streams.initialisation, *(float(g.random()) for g in generators), torch.rand(1).item()

    assert first_draws(3) == first_draws(3)
    assert all(a != b for a, b in zip(first_draws(3), first_draws(4), strict=True))


def test_streams_of_a_gpu_come_back_where_there_is_none():
    state = Streams.from_seed(3).state_dict() | {"cuda": [torch.zeros(16, dtype=torch.uint8)]}
    streams = Streams.from_seed(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        streams.load_state_dict(state)
    assert streams.sampling.random() == Streams.from_seed(3).sampling.random()


def test_streams_come_back_from_a_checkpoint(tmp_path):
    def draws(streams: Streams) -> list:
        generators = (streams.sampling, streams.replay, streams.evaluation)
        return [*(g.standard_normal(5).tolist() for g in generators), torch.rand(5).tolist()]

    streams = Streams.from_seed(3)
    draws(streams)
    torch.save(streams.state_dict(), tmp_path / "state.pt")
    expected = draws(streams)
    other = Streams.from_seed(4)
    draws(other)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draws(other) == expected
