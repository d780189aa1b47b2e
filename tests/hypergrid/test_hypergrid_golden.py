"""Golden runs of every objective and approach: what is computed changes only with its results version."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from each import each_approach
from golden import require_unchanged
from hypergrid_golden_run import golden_run

ROOT = Path(__file__).resolve().parents[2]


@each_approach
def test_what_is_computed_is_unchanged(objective, approach):
    require_unchanged("hypergrid", objective, approach, golden_run(objective, approach))


PROGRAM = """
from golden import require_unchanged
from hypergrid_golden_run import OBJECTIVES, golden_run
for objective in OBJECTIVES:
    try:
        require_unchanged("hypergrid", objective, "uniform", golden_run(objective, "uniform"))
    except AssertionError as error:
        print(error)
"""


@pytest.fixture
def copy(tmp_path):
    """``copy(changes)``: a copy of the suite in which texts of files are replaced."""
    # With __pycache__: the compiled rollout is not compiled again.
    shutil.copytree(ROOT / "hypergrid", tmp_path / "hypergrid", ignore=shutil.ignore_patterns("*.png", "*.pdf"))
    (tmp_path / "tests" / "hypergrid").mkdir(parents=True)
    for name in ("golden.py", "hypergrid/golden.json", "hypergrid/hypergrid_golden_run.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)

    def change(changes):
        for file, old, new in changes:
            path = tmp_path / "hypergrid" / file
            text = path.read_text(encoding="utf-8")
            assert old in text
            path.write_text(text.replace(old, new), encoding="utf-8")
        return tmp_path

    return change


def answer(root, *command):
    """What a command prints in a copy."""
    path = os.pathsep.join(map(str, (root, root / "tests", root / "tests" / "hypergrid")))
    environment = os.environ | {"PYTHONPATH": path, "SEEDS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


PENDING = (
    f"bash hypergrid/sweeps/figure1.sh | {sys.executable} -m hypergrid.analysis.pending hypergrid/results/figure1.csv"
)


def test_an_edit_that_changes_no_number_orphans_nothing(copy):
    before = answer(copy([]), "bash", "-c", PENDING)
    root = copy(
        [
            ("agents/dqn.py", "SoftDQN and MunchausenDQN: Q-learning", "Q-learning"),
            ("agents/dqn.py", "_priorities", "_first_priorities"),
            ("policies.py", "uniform_grid_log_pb", "uniform_on_the_grid"),
        ]
    )
    assert answer(root, sys.executable, "-c", PROGRAM) == ""
    assert answer(root, "bash", "-c", PENDING) == before


def test_another_replay_rule_names_the_objectives_that_it_changes(copy):
    root = copy([("agents/dqn.py", "batch.actions.cpu().numpy(), priorities)", "batch.actions.cpu().numpy(), 1.0)")])
    said = answer(root, sys.executable, "-c", PROGRAM)
    assert [line.split(",")[1].strip() for line in said.splitlines()] == ["soft_dqn", "munchausen_dqn"]
    assert "raise the results version of soft_dqn in hypergrid/suite.py, or correct the change" in said
