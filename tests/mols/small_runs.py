"""Runs of the command line that take a fraction of a second."""

import shlex
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import suites
import torch
from shared_data import SHARED, needs

import mols
from mols import plots
from mols.agents import base as learning
from mols.common import provenance
from mols.rewards.seh import reward
from mols.rewards.seh.proxy import WEIGHTS_FILE, SehProxy, load_proxy
from mols.rewards.seh.reward import SehReward
from mols.tasks import seh_frag

SUITE = Path(mols.__file__).parent
HAS_WEIGHTS = (SHARED / WEIGHTS_FILE).is_file()
needs_weights = needs(WEIGHTS_FILE)  # of tests with a process of their own, where nothing can stand in
# What the command lacks to be quick. Its test set is generated, so that no file is needed; of the network, ``quicken``
# decides.
SMALL = shlex.split("--width 16 --n_layers 1 --n_heads 1 --batch_size 4 --n 4 --validate_every 2 --max_fragments 2")
SMALL += shlex.split("--test_set generated --corr_molecules 3 --corr_rounds 1 --proxy original")
SMALL += shlex.split("--device cpu --threads 1")
load_once = cache(load_proxy)


def command(algo: str, folder: Path | str, *extra: str) -> list[str]:
    """The arguments of a small run; of an option that comes twice, the last counts."""
    return ["--algo", algo, *SMALL, "--output_dir", str(folder), *extra]


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few generated molecules, no look at every installed package; the published weights if they are at hand."""
    monkeypatch.setattr(reward, "load_proxy", load_once)
    monkeypatch.setattr(learning, "N_GENERATED", 6)
    monkeypatch.setattr(seh_frag, "N_GENERATED", 6)
    monkeypatch.setattr(provenance, "_library_versions", dict)
    if HAS_WEIGHTS:
        monkeypatch.setenv("GFLOWNET_TLM_DATA", str(SHARED))
    else:
        stand_in(monkeypatch)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward from fixed random weights instead of the published ones; r is near 0.9, so that there are modes."""

    def load(data_dir=None, *, exponent=10.0, workers=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            proxy = SehProxy()
        proxy.out.bias.fill_(7.2)
        return SehReward(proxy, exponent=exponent, workers=workers)

    monkeypatch.setattr(SehReward, "load", load)


def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering takes a second a run."""
    monkeypatch.setattr(plots, "draw_run", lambda *_: None)


def refused(
    argv: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture, task: ModuleType = seh_frag
) -> None:
    """That the task says what is wrong in one sentence, with exit status 2, and leaves the folder as it is."""
    suites.refused(task.main, argv, message, folder, capsys)
