"""Figures 2 and 3 and the claims of the bit strings, from a CSV with known answers."""

import pandas as pd
import pytest

from bitseq import settings, suite
from bitseq.analysis import claims, figures, tables
from bitseq.analysis.configs import identity, require_comparable
from bitseq.analysis.figures import select_rows
from bitseq.common.terminal import ExperimentError

# Modes after 0, 100 and 200 steps by approach; the correlation falls with the modes, so that it would choose otherwise.
MODES = {"tlm": {0.001: 40, 0.002: 10}, "uniform": {0.001: 5, 0.002: 20}}


@pytest.fixture
def path(tmp_path):
    rows = [
        {
            "suite": "bitseq",
            "environment": "n=120-k=8",
            "objective": objective,
            "approach": approach,
            "learning_rate": rate,
            "seed": seed,
            "step": step,
            "trajectories": 16 * step,
            "wall_s": 1.0,
            "modes_found": modes * step // 100 + seed,
            "modes_current": seed,
            "mean_log_reward": -80.0,
            "reward_correlation": 1 - modes / 100 + seed / 1000 if step == 200 else None,
            "reward_correlation_uniform": 0.5,
            "results_version": 1,
            "git_hash": "0123456789ab",
        }
        for objective in ("db", "munchausen_dqn")
        for approach, rates in MODES.items()
        for rate, modes in rates.items()
        for seed in range(1, 6)
        for step in (0, 100, 200)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "figure2.csv", index=False)
    return tmp_path / "figure2.csv"


def test_the_figures_of_this_suite(path, capsys):
    assert figures.main([str(path)]) == 0
    names = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    own = ["figure2.png", "figure2_current.png", "figure2_log_reward.png"]
    assert names[::2] == [*own, "figure3.png", "appendix_learning_rates.png"]


def test_figure_2_has_the_learning_rates_of_the_most_modes_and_figure_3_all(path):
    table = tables.read_results([path])
    rows = {figure.name: select_rows(figure, table, 1).query("objective == 'db'") for figure in suite.FIGURES}
    figure2, figure3 = rows["figure2"], rows["figure3"]
    rates = figure2.groupby("approach")["learning_rate"].unique().map(list).to_dict()
    assert rates == {"tlm": [0.001], "uniform": [0.002]} and set(figure2["seed"]) == {2, 3, 4, 5}
    assert set(figure3["learning_rate"]) == {0.001, 0.002} and set(figure3["seed"]) == {1, 2, 3, 4, 5}
    (of_rates,) = (figure for figure in suite.FIGURES if figure.name == "figure3")
    uneven = figure3[(figure3["learning_rate"] == 0.001) | (figure3["seed"] == 1)]
    picture = figures.draw_figure(of_rates, uneven, "")
    assert "1 to 5 seeds" in {text.get_text() for axis in picture.axes for text in axis.texts}
    figures.plt.close(picture)
    assert figures.describe_figure(of_rates, figure3, [path], 1).startswith(
        "Dots: every seed. Lines: interquartile mean."
    )


def test_the_claims_of_this_suite(path):
    found = {
        (r.expectation.claim, r.objective, r.baseline): r
        for r in claims.compare_all(tables.read_results([path]), 1)
        if r.comparison
    }
    assert set(found) == {("C2", "db", "uniform"), ("C5", "db", "uniform"), ("C5", "munchausen_dqn", "uniform")}
    gain = found["C2", "db", "uniform"]
    assert gain.learning_rates == "0.001 / 0.002" and gain.comparison.seeds == (4, 4)
    assert gain.comparison.means == pytest.approx((40 + 3.5, 20 + 3.5)) and gain.comparison.verdict == "supported"
    even = found["C5", "db", "uniform"]  # at the learning rates of the most modes
    assert even.learning_rates == "0.001 / 0.002" and even.comparison.difference == pytest.approx(-0.2)
    assert even.comparison.verdict == "contradicted"
    assert found["C5", "munchausen_dqn", "uniform"].comparison.verdict == "contradicted"


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ({}, "n=120-k=8"),
        ({"mode_threshold": 2}, "n=120-k=8 mode_threshold=2"),  # of no claim: modes are something else there
        ({"environment": "n=32-k=4"}, "n=32-k=4"),
        ({"environment": "n=32-k=4", "mode_threshold": 2}, *suite.SMALL),
    ],
)
def test_what_counts_as_a_mode_is_part_of_the_environment(options, environment):
    config = {"environment": "n=120-k=8", "M_size": 60, "mode_threshold": 30, "reward_exponent": 2.0}
    assert identity(config | options)["environment"] == environment


def test_tlm_that_leaves_the_trunk_alone_is_compared_with_the_others_but_not_mixed_with_tlm_that_does_not():
    def config(approach, *more):
        return settings.parse(["--objective", "db", "--backward_approach", approach, *more]).to_dict()

    head_only = config("tlm", "--backward_head_only")
    require_comparable([config("uniform"), config("naive"), head_only], [])
    with pytest.raises(ExperimentError, match="the runs differ in backward_head_only"):
        require_comparable([config("tlm"), head_only], [])
