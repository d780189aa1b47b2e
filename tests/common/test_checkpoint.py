"""Checkpoints: what is damaged or malicious, a full disk, weights that are not finite."""

import math
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from run_folders import COLUMNS, FLAG, Weights, begin, refusal, snapshot, train, unfinished


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
