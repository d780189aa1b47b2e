"""What a reward's code does to the process: a run finds it as it was, and has the numbers of one that does nothing."""

import importlib
import json
import os
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from each import each
from small_runs import command, quicken, without_pictures
from suites import metrics_without_time, only_run

from mols.rewards.own_state import SETTINGS, OwnState
from mols.tasks import seh_frag

DISTURBANCES = {
    "folder": "os.chdir('/')",
    "stdout": "sys.stdout = io.StringIO()",
    "stderr": "sys.stderr = io.StringIO()",
    "warnings": "warnings.simplefilter('error')",
    "random": "random.seed(3)",
    "numpy's generator": "np.random.seed(3)",
    "numpy's errors": "np.seterr(all='raise')",
    "torch's generator": "torch.manual_seed(3)",
    "gradients": "torch.set_grad_enabled(False)",
    "dtype": "torch.set_default_dtype(torch.float64)",
    "device": "torch.set_default_device('meta')",
    "threads": "torch.set_num_threads(torch.get_num_threads() + 1)",
    "precision": "torch.set_float32_matmul_precision('medium')",
    "precision of a part": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "precision of all": "torch.backends.fp32_precision = 'tf32'",
    "algorithms": "torch.use_deterministic_algorithms(True)",
}
IMPORTS = "import io, os, random, sys, warnings\nimport numpy as np, torch\n"


def settings():
    return [get() for get, _ in SETTINGS]


@each("what", DISTURBANCES)
@each("fails", [False, True])
def test_a_setting_holds_while_the_code_runs_and_only_then(what, fails):
    state, before, inside = OwnState(), settings(), []
    try:
        with state.applied():
            exec(IMPORTS + DISTURBANCES[what])
            inside.append(settings())
            if fails:
                sys.exit()
    except SystemExit:
        assert fails
    assert settings() == before and inside[0] != before
    with state.applied():
        inside.append(settings())
    assert settings() == before
    assert inside[1] == inside[0]


def test_every_setting_is_disturbed():
    state, before, changed = OwnState(), settings(), set()
    with state.applied():
        exec(IMPORTS + "\n".join(DISTURBANCES.values()))
        changed = [one != other for one, other in zip(settings(), before, strict=True)]
    assert all(changed) and settings() == before


def test_what_the_code_leaves_alone_is_the_runs():
    state, threads = OwnState(), torch.get_num_threads()
    with state.applied():
        torch.set_default_dtype(torch.float64)
    try:
        torch.set_num_threads(threads + 1)
        with state.applied(), torch.no_grad():
            assert torch.get_num_threads() == threads + 1 and torch.get_default_dtype() == torch.float64
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)


def test_a_folder_that_the_code_deletes(tmp_path):
    state, before = OwnState(), Path.cwd()
    with state.applied():
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
    assert Path.cwd() == before
    with state.applied():
        pass
    assert Path.cwd() == before


# Runs


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run(text)`` -> (status, metrics) of a run in ``tmp_path`` with the reward of a module of this text."""
    quicken(monkeypatch)
    without_pictures(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(text):
        (tmp_path / "mine.py").write_text(text)
        sys.modules.pop("mine", None)
        importlib.invalidate_caches()
        status = seh_frag.main(command("tb", "runs", "--proxy=auto", "--reward=mine:score", "--if_exists=overwrite"))
        return status, metrics_without_time(tmp_path / "runs")

    yield run
    sys.modules.pop("mine", None)


LINES = "\n".join(line for what, line in DISTURBANCES.items() if what not in ("stdout", "stderr"))
SCORE = "def score(smiles):\n    return [len(text) / 50 for text in smiles]\n"


def test_a_run_with_a_reward_that_disturbs_the_process(run, tmp_path, capsys):
    good = run(SCORE)
    capsys.readouterr()
    before = random.getstate(), np.random.get_state()[1].tolist(), list(warnings.filters)
    disturbing = SCORE.replace("    return", "    " + LINES.replace("\n", "\n    ") + "\n    return")
    for text in (f"{IMPORTS}{LINES}\n{SCORE}", IMPORTS + disturbing):
        assert run(text) == good
        out = capsys.readouterr().out
        assert (tmp_path / out.splitlines()[-1] / "DONE").exists()
    assert (random.getstate(), np.random.get_state()[1].tolist(), list(warnings.filters)) == before


OF_ITS_OWN = """
import os, torch, warnings
os.chdir("data")
torch.set_default_dtype(torch.float64)
warnings.simplefilter("ignore")

def score(smiles):
    warnings.warn("often")
    assert torch.ones(1).dtype == torch.float64
    with open("divisor.txt") as file:
        return torch.tensor([float(len(text)) for text in smiles]) / int(file.read())
"""


def test_what_a_module_sets_at_its_import_holds_in_its_calls(run, tmp_path, recwarn):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "divisor.txt").write_text("50")
    good = run(SCORE)
    recwarn.clear()
    assert run(OF_ITS_OWN) == good
    assert not [warning for warning in recwarn if "often" in str(warning.message)]


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("sys.exit()", 2, "error: --reward mine:score raises SystemExit, for "),
        ("sys.exit(0)", 2, "error: --reward mine:score raises SystemExit: 0, for "),
        ("raise KeyboardInterrupt", 130, "interrupted: go on with --if_exists resume"),
    ],
)
def test_a_reward_that_ends_the_run_is_said(line, status, message, run, tmp_path, capsys):
    assert run(f"import sys\ndef score(smiles):\n    {line}\n")[0] == status
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(message)
    meta = json.loads((only_run(tmp_path) / "meta.json").read_text())
    assert meta["status"].split(":")[0] == ("interrupted" if status == 130 else "failed")
