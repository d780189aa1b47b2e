"""Golden runs of every objective and approach: what is computed changes only with its results version."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from each import OBJECTIVES, each_approach
from golden import require_unchanged
from hypergrid_golden_run import golden_run
from sweeps import lines

from hypergrid.analysis.pending import pending
from hypergrid.common.replay import PrioritisedReplay

ROOT = Path(__file__).resolve().parents[2]


@each_approach
def test_what_is_computed_is_unchanged(objective, approach):
    require_unchanged("hypergrid", objective, approach, golden_run(objective, approach))


PROGRAM = """
import sys
from pathlib import Path
from golden import require_unchanged
from hypergrid.analysis.pending import pending
from hypergrid_golden_run import OBJECTIVES, golden_run
for objective in OBJECTIVES:
    require_unchanged("hypergrid", objective, "uniform", golden_run(objective, "uniform"))
print(*pending(sys.stdin.read().splitlines(), [Path("hypergrid/results/figure1.csv")]), sep="\\n")
"""
EDITS = [  # file, what is replaced everywhere, by what
    ("agents/dqn.py", "SoftDQN and MunchausenDQN: Q-learning", "Q-learning"),
    ("agents/dqn.py", "_priorities", "_first_priorities"),
    ("policies.py", "uniform_grid_log_pb", "uniform_on_the_grid"),
]


def test_an_edit_that_changes_no_number_orphans_nothing(tmp_path):
    """In a copy, with what is compiled: the golden runs are the same, and so are the runs that the results lack."""
    shutil.copytree(ROOT / "hypergrid", tmp_path / "hypergrid", ignore=shutil.ignore_patterns("*.png", "*.pdf"))
    (tmp_path / "tests" / "hypergrid").mkdir(parents=True)
    for name in ("golden.py", "hypergrid/golden.json", "hypergrid/hypergrid_golden_run.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)
    for file, old, new in EDITS:
        path = tmp_path / "hypergrid" / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
    asked = lines("hypergrid/sweeps/figure1.sh", SEEDS="1 99")  # of seed 99 there are no results
    path = os.pathsep.join(map(str, (tmp_path, tmp_path / "tests", tmp_path / "tests" / "hypergrid")))
    command, how = [sys.executable, "-c", PROGRAM], {"capture_output": True, "text": True, "encoding": "utf-8"}
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=env, input="\n".join(asked), **how)
    assert done.returncode == 0, done.stderr
    before = pending(asked, [ROOT / "hypergrid" / "results" / "figure1.csv"])
    assert done.stdout.splitlines() == before and 0 < len(before) < len(asked)


def test_another_replay_rule_names_the_objectives_that_it_changes(monkeypatch):
    push, said = PrioritisedReplay.push, []
    monkeypatch.setattr(PrioritisedReplay, "push", lambda replay, *given: push(replay, *given[:-1], 1.0))
    for objective in OBJECTIVES:
        try:
            require_unchanged("hypergrid", objective, "uniform", golden_run(objective, "uniform"))
        except AssertionError as error:
            said.append(str(error))
    assert [line.split(",")[1].strip() for line in said] == ["soft_dqn", "munchausen_dqn"]
    assert "raise the results version of soft_dqn in hypergrid/suite.py, or correct the change" in said[0]
