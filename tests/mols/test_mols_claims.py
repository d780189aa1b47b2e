"""Figures 2 and 3 and the claims of the molecules, from a CSV with known answers."""

import pandas as pd
import pytest

from mols import suite
from mols.analysis import claims, figures, tables
from mols.analysis.figures import select_rows

FIRST = {"seh_frag": ("modes_found_0.875", "modes_found_1"), "qm9": ("modes_found_1.125", "modes_found_1.25")}
MODES = {"tlm": 30, "naive": 20}


@pytest.fixture
def path(tmp_path):
    rows = [
        {
            "suite": "mols",
            "environment": task,
            "objective": "dqn",
            "approach": approach,
            "learning_rate": 0.0005,
            "seed": seed,
            "step": step,
            "trajectories": 64 * step,
            "wall_s": 1.0,
            low: modes * step // 10 + seed,
            high: 0,
            "reward_correlation": modes / 100 + seed / 1000,
            "results_version": 1,
            "git_hash": "0123456789ab",
        }
        for task, (low, high) in FIRST.items()
        for approach, modes in MODES.items()
        for seed in range(1, 6)
        for step in (0, 10, 20)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "figure2.csv", index=False)
    return tmp_path / "figure2.csv"


def test_the_figures_of_this_suite(path, capsys):
    assert figures.main([str(path)]) == 0
    names = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    assert names[::2] == ["figure2.png", "figure3.png"]


def test_each_task_has_its_own_modes_and_dqn_is_munchausen_dqn(path):
    rows = select_rows(suite.FIGURES[0], tables.read_results([path]), 1)
    assert set(rows["objective"]) == {"munchausen_dqn"}
    for title, column in (("QM9", "modes_found_1.125"), ("sEH", "modes_found_0.875")):
        panel = rows[rows["panels"] == title]
        assert len(panel) and (panel["value"] == panel[column]).all()


def test_the_claims_of_this_suite(path):
    found = {
        (r.expectation.claim, r.environment): r.comparison
        for r in claims.compare_all(tables.read_results([path]), 1)
        if r.comparison
    }
    assert {key: comparison.verdict for key, comparison in found.items()} == {
        ("C3", "qm9"): "supported",
        ("C4", "seh_frag"): "contradicted",  # it is clearly better
        ("C5", "qm9"): "supported",
        ("C5", "seh_frag"): "supported",
    }
    assert found["C3", "qm9"].means == pytest.approx((33.0, 23.0))
    assert found["C5", "qm9"].means == pytest.approx((0.303, 0.203))
