"""A run folder of the least that can be saved, opened, trained and killed: what its tests have in common."""

import json
from pathlib import Path

import pytest
import torch

from hypergrid.common.run_folder import Run
from hypergrid.common.terminal import ExperimentError

CONFIG = {"general": {"seed": 3, "output_dir": "runs"}, "algo": {"name": "tb", "learning_rate": 1e-3}}
COLUMNS = ("l1_dist", "log_z_error")
FLAG = "--general.if_exists"
FREE = ("output_dir", "checkpoint_interval", "device", "threads")


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


def meta_of(run: Run) -> dict:
    """What meta.json says now."""
    return json.loads((run.directory / "meta.json").read_text())
