"""The run folder: what an existing one is taken for, what a kill may leave behind, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from run_folders import (
    COLUMNS,
    CONFIG,
    FLAG,
    Killed,
    Weights,
    begin,
    contents,
    meta_of,
    refusal,
    row,
    snapshot,
    train,
    unfinished,
)

from hypergrid.common.run_folder import COMMON_COLUMNS, read_metrics


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


def test_resume_knows_what_an_older_run_had_in_the_place_of_a_newer_field(open_run):
    newer = {"algo.m_alpha": 0.15, "algo.other": 1}  # the other is of another objective
    unfinished(open_run(), steps=range(1, 3), checkpoint=2)
    other, same = (CONFIG | {"algo": {**CONFIG["algo"], "m_alpha": value}} for value in (0.2, 0.15))
    assert "was run with algo.m_alpha = 0.15, not 0.2" in refusal(lambda: open_run("resume", other, **newer))
    begin(open_run("resume", same, **newer))


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
