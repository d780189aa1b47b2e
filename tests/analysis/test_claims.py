"""Verdicts on numbers by hand, what the claims compare, and the files that the command writes."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from collected_csv import grid_run, write_csv
from each import each

import bitseq.suite
import hypergrid.suite
import mols.suite
from bitseq.suite import CORRELATION, MODES
from hypergrid.analysis import claims, statistics, tables
from hypergrid.analysis.claims import Result, compare_all, judge_claim
from hypergrid.analysis.statistics import CONTRADICTED, SUPPORTED, UNDECIDED, compare
from hypergrid.common.reporting import ALL, BASELINES
from hypergrid.suite import CONVERGENCE

NARROW = np.array([1.0, 1.01, 1.02, 1.03])


@each(
    "expected,metric,ours,theirs,verdict",
    [
        ("better", MODES, NARROW + 1, NARROW, SUPPORTED),
        ("better", MODES, NARROW, NARROW + 1, CONTRADICTED),
        ("better", MODES, NARROW, NARROW, UNDECIDED),
        ("better", CONVERGENCE, NARROW, NARROW + 1, SUPPORTED),  # less is better
        ("better", CONVERGENCE, NARROW + 1, NARROW, CONTRADICTED),
        ("similar", CORRELATION, NARROW, NARROW + 0.01, SUPPORTED),
        ("similar", CORRELATION, NARROW, NARROW + 0.1, CONTRADICTED),
        ("similar", CORRELATION, NARROW + 0.1, NARROW, CONTRADICTED),
        ("similar", CORRELATION, NARROW, NARROW + 0.045, UNDECIDED),
        ("similar", MODES, 50 * NARROW, 50 * NARROW + 2, SUPPORTED),  # 10% of 50 is 5
        ("similar", MODES, 50 * NARROW, 50 * NARROW + 8, CONTRADICTED),
        ("not better", MODES, 50 * NARROW, 50 * NARROW + 8, SUPPORTED),
        ("not better", MODES, 50 * NARROW, 50 * NARROW, SUPPORTED),
        ("not better", MODES, 50 * NARROW + 9, 50 * NARROW, CONTRADICTED),
        ("not better", MODES, 0 * NARROW + 99.5, 0 * NARROW + 90, CONTRADICTED),  # 10% is of theirs: 9, not 9.95
        ("not better", CONVERGENCE, NARROW - 0.2, NARROW, CONTRADICTED),
        ("not better", CONVERGENCE, NARROW + 0.2, NARROW, SUPPORTED),
        ("better", MODES, NARROW[:3] + 1, NARROW, UNDECIDED),  # three seeds
        ("not better", MODES, 0 * NARROW, 0 * NARROW, UNDECIDED),  # nobody has found a mode
        ("better", MODES, 0 * NARROW, 0 * NARROW, UNDECIDED),
        ("better", MODES, NARROW, 0 * NARROW, SUPPORTED),  # only the others have found none
    ],
)
def test_the_verdict_by_hand(expected, metric, ours, theirs, verdict):
    assert compare(ours, theirs, expected, metric).verdict == verdict


def test_the_numbers_of_a_comparison_by_hand():
    """Losses of 1, 2, 3, 10 against 2, 4, 6, 8: of the 16 pairs ours is smaller in 10 and equal in one."""
    found = compare([1.0, 2.0, 3.0, 10.0], [2.0, 4.0, 6.0, 8.0], "better", CONVERGENCE)
    assert found.means == (2.5, 5.0) and found.seeds == (4, 4)
    assert found.improvement == pytest.approx((10 + 0.5) / 16)
    assert found.difference == 2.5  # in our favour
    assert found.improvement_interval[0] < 0.5 < found.improvement_interval[1] and found.verdict == UNDECIDED


def test_seeds_that_chose_the_learning_rate_decide_nothing():
    found = compare(NARROW + 1, NARROW, "better", MODES, fresh=False)
    assert (found.verdict, found.more) == (UNDECIDED, 4)


def test_a_learning_rate_was_chosen_on_the_tuning_seeds_alone(tmp_path, capsys):
    rows = cells({"tlm": 2.0, "uniform": 4.0}) + cells({"tlm": 3.0, "uniform": 5.0}, learning_rate=0.002)
    path = write_csv(tmp_path / "a.csv", rows)
    found = comparisons(path, n_tuning=4)["C1", "standard", "db", "uniform"]
    assert (found.verdict, found.more) == (UNDECIDED, 4)
    assert claims.main([str(path), "--tuning_seeds", "3"]) == 0
    assert "| 0.001 / 0.001 | 1 / 1 |" in capsys.readouterr().out


@each("suite", [bitseq.suite, mols.suite])
def test_what_counts_as_similar(suite):
    """10% of the baseline's modes, 0.05 of a correlation."""
    assert (suite.MODES.margin, suite.MODES.relative, suite.MODES.sign) == (0.1, True, 1)
    assert (suite.CORRELATION.margin, suite.CORRELATION.relative, suite.CORRELATION.sign) == (0.05, False, 1)


def test_how_many_more_seeds_would_decide():
    assert [compare(NARROW[:n] + 1, NARROW, "better", MODES).more for n in (1, 2, 3, 4)] == [3, 2, 1, None]
    assert compare(NARROW, NARROW, "better", MODES).more is None  # equal: no number of seeds
    ours, theirs = np.array([1.0, 2.0, 4.0, 5.0]), np.array([0.0, 1.5, 2.5, 3.5])
    more = compare(ours, theirs, "better", MODES).more
    of = {n: compare(np.resize(ours, n), np.resize(theirs, n), "better", MODES) for n in statistics.SEEDS_TRIED}
    assert 4 + more == min(n for n, comparison in of.items() if comparison.verdict == SUPPORTED) > 5


def cells(ratios, seeds=(1, 2, 3, 4), **run):
    """Runs of several approaches, whose l1_dist is about the given ratio to the floor."""
    return [
        row
        for approach, ratio in ratios.items()
        for seed in seeds
        for row in grid_run(ratio * 1.01**seed, approach=approach, seed=seed, **run)
    ]


def comparisons(path, n_tuning=1):
    return {
        (r.expectation.claim, r.environment, r.objective, r.baseline): r.comparison
        for r in compare_all(tables.read_results([path]), n_tuning)
    }


def test_every_cell_of_the_claims_is_compared_or_said_to_lack(tmp_path):
    rows = cells({"tlm": 2.0, "uniform": 4.0, "naive": 1.5}) + cells({"tlm": 2.0, "naive": 1.0}, objective="tb")
    found = comparisons(write_csv(tmp_path / "a.csv", rows))
    assert len(found) == 2 * 4 * 4 + 2 * 4  # C1: every environment, objective and baseline; C6 by environment
    verdict = {key[2:]: comparison.verdict for key, comparison in found.items() if comparison}
    assert verdict == {("db", "uniform"): SUPPORTED, ("db", "naive"): CONTRADICTED, ("tb", "naive"): SUPPORTED}
    means = found["C1", "standard", "db", "uniform"].means
    assert means == pytest.approx((np.log10(2 * 1.01**2.5), np.log10(4 * 1.01**2.5)), abs=1e-4)


def test_the_claims_cover_what_the_paper_says():
    """C1 except TB against naive; C2 without MunchausenDQN; C3 and C4 with all objectives; C5 and C6 in all suites."""
    rows = {
        (e.claim, environment, objective, e.expected): e.against
        for suite in (hypergrid.suite, bitseq.suite, mols.suite)
        for e in suite.EXPECTATIONS
        for environment in e.environments
        for objective in e.objectives
    }
    assert rows["C1", "hard", "tb", "not better"] == ("naive",)
    assert rows["C1", "hard", "tb", "better"] == ("uniform", "maxent", "pessimistic")
    assert rows["C1", "hard", "db", "better"] == BASELINES
    assert {key[1:] for key in rows if key[0] == "C2"} == {
        ("n=120-k=8", "db", "better"),
        ("n=120-k=8", "tb", "similar"),
        ("n=120-k=8", "subtb", "similar"),
    }
    assert {key[1:] for key in rows if key[0] == "C3"} == {("qm9", o, "better") for o in ALL}
    assert {key[1:] for key in rows if key[0] == "C4"} == {("seh_frag", o, "not better") for o in ALL}
    expected = {"munchausen_dqn": "better", "subtb": "better", "db": "similar", "tb": "similar"}
    places = ("n=120-k=8", "qm9", "seh_frag")
    assert {key[1:] for key in rows if key[0] == "C5"} == {(p, *item) for p in places for item in expected.items()}
    assert {key[1] for key in rows if key[0] == "C6"} == {*places, "standard", "hard"}


def test_a_smaller_setting_has_claims_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "SMALL", {"6x6": "standard"})
    rows = cells({"tlm": 2.0, "uniform": 4.0}, environment="6x6") + cells({"tlm": 4.0, "uniform": 2.0})
    path = write_csv(tmp_path / "a.csv", rows)
    found = {key: comparison.verdict for key, comparison in comparisons(path).items() if comparison}
    small, of_paper = ("C1, small setting", "6x6", "db", "uniform"), ("C1", "standard", "db", "uniform")
    assert found == {small: SUPPORTED, of_paper: CONTRADICTED}
    table = tables.read_results([path])
    lines = claims.describe_claims(claims.compare_all(table, 1), table, [path], 1).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| C1", "| C1, small setting"]


def test_decay_is_compared_on_against_off(tmp_path):
    field = "algo.backward_learning_rate_decay"
    rows = cells({"tlm": 2.0}, **{field: 0.999}) + cells({"tlm": 2.0 * 10**0.02}, **{field: 1.0})
    rows += cells({"tlm": 2.0}, objective="tb", **{field: 0.999})
    rows += cells({"tlm": 9.0}, objective="tb", **{field: 1.0})
    found = comparisons(write_csv(tmp_path / "a.csv", rows, varied=[field]))
    shown = {key[2]: c for key, c in found.items() if c}
    assert shown.keys() == {"db", "tb"} and {key[0] for key, c in found.items() if c} == {"C6"}
    assert shown["db"].difference == pytest.approx(0.02, abs=1e-3)  # with decay it is nearer to the floor
    assert (shown["db"].verdict, shown["tb"].verdict) == (SUPPORTED, CONTRADICTED)


def test_decay_is_compared_at_the_smallest_learning_rate_that_has_both(tmp_path):
    field, rows = "algo.backward_learning_rate_decay", []
    for rate, ratios in ((0.001, {0.999: 2.0}), (0.002, {0.999: 2.0, 1.0: 3.0}), (0.004, {0.999: 2.0, 1.0: 9.0})):
        for decay, ratio in ratios.items():
            rows += cells({"tlm": ratio}, learning_rate=rate, **{field: decay})
    path = write_csv(tmp_path / "a.csv", rows, varied=[field])
    (found,) = [result for result in compare_all(tables.read_results([path]), 1) if result.comparison]
    assert found.learning_rates == "0.002 / 0.002"


@each("name,field,on,off", [("bitseq", "gamma", 0.9999, 1.0), ("mols", "blrd", 2e4, 1e9)])
def test_decay_is_compared_in_every_suite(name, field, on, off, tmp_path):
    suite, theirs = (import_module(f"{name}.{module}") for module in ("suite", "analysis.claims"))
    run = {"environment": next(iter(suite.ENVIRONMENTS)), "results_version": suite.RESULTS_VERSIONS["db"]}
    rows = [
        {**run, "seed": seed, field: decay, "trajectories": x, suite.MODES.column: modes + seed}
        for decay, modes in ((on, 50), (off, 30))
        for seed in (1, 2, 3, 4)
        for x in (1600, 3200)
    ]
    path = write_csv(tmp_path / "a.csv", rows, suite=name, varied=[field])
    results = theirs.compare_all(import_module(f"{name}.analysis.tables").read_results([path]), 1)
    (found,) = [result for result in results if result.comparison]
    assert (found.expectation.claim, found.comparison.difference) == ("C6", 20)
    assert found.verdict == CONTRADICTED


def test_an_approach_beyond_the_papers_is_compared_but_does_not_count(tmp_path):
    ratios = {"tlm": 2.0, "mine": 1.0, "uniform": 4.0}
    path = write_csv(tmp_path / "a.csv", cells(ratios) + cells(ratios, objective="tb"))
    found = comparisons(path)
    assert found["C1", "standard", "db", "mine"].verdict == CONTRADICTED
    assert len([key for key in found if key[3] == "mine"]) == 2 * 4
    page = markdown_of(path)
    summary = next(line for line in page.splitlines() if line.startswith("| C1 | in the hypergrid"))
    assert summary.endswith("| undecided | 2 | 0 | 0 | 30 |")


def markdown_of(path):
    table = tables.read_results([path])
    return claims.describe_claims(compare_all(table, 1), table, [path], 1)


def result(verdict, more=None):
    comparison = replace(compare(NARROW, NARROW, "better", MODES), verdict=verdict, more=more)
    return Result(hypergrid.suite.EXPECTATIONS[0], "standard", "db", "naive", comparison)


MISSING = Result(hypergrid.suite.EXPECTATIONS[0], "standard", "db", "naive")


@each(
    "results,expected",
    [
        ([result(SUPPORTED), result(SUPPORTED)], (SUPPORTED, 0)),
        ([result(SUPPORTED), MISSING], (UNDECIDED, 0)),
        ([result(SUPPORTED), result(CONTRADICTED), result(UNDECIDED, 3)], (CONTRADICTED, 0)),
        ([result(SUPPORTED), result(UNDECIDED, 3), result(UNDECIDED, 8), MISSING], (UNDECIDED, 8)),
        ([result(UNDECIDED, 3), result(UNDECIDED, None)], (UNDECIDED, None)),
    ],
)
def test_the_verdict_on_a_claim(results, expected):
    assert judge_claim(results) == expected


def test_the_command_writes_the_table_and_exactly_the_entries_that_it_cites(tmp_path, capsys):
    path = write_csv(tmp_path / "in" / "a.csv", cells({"tlm": 2.0, "uniform": 4.0, "maxent": 3.0}, seeds=(1, 2)))
    out = tmp_path / "new" / "folder"
    assert claims.main([str(path), "--out", str(out)]) == 0
    page = (out / "claims.md").read_text()
    assert capsys.readouterr().out == page
    line = next(line for line in page.splitlines() if "uniform [malkin2022trajectory]" in line)
    assert line.endswith("| 2 / 2 | 0.308 | 0.609 | +0.301 | 1.00 | undecided: at least 2 more seeds a side |")
    assert "| C1 | standard | DB | uniform" in line and "3,200 trajectories | 0.001 / 0.001" in line
    entries = (out / "claims.bib").read_text().splitlines()
    keys = [entry.partition("{")[2].partition(",")[0] for entry in entries]
    assert keys == ["malkin2022trajectory", "mohammadpour2024maximum", "gritsaev2025optimizing"]
    assert all(f"[{key}]" in page for key in keys[:2]) and "jang2024" not in page
    assert claims.main([str(path)]) == 0 and (tmp_path / "in" / "claims.md").read_text() == page


def test_a_verdict_says_if_it_is_about_a_difference_within_the_margin(tmp_path, capsys):
    path = write_csv(tmp_path / "a.csv", cells({"tlm": 2.0, "uniform": 2.2, "naive": 1.8, "maxent": 4.0}))
    assert claims.main([str(path)]) == 0
    verdicts = [line.rsplit("| ", 1)[1] for line in capsys.readouterr().out.splitlines() if "[" in line]
    within = ", by less than the margin |"
    assert verdicts == [f"{SUPPORTED}{within}", f"{CONTRADICTED}{within}", f"{SUPPORTED} |"]


@pytest.mark.parametrize("rows", [grid_run(2.0), grid_run(2.0, approach="naive")])
def test_a_file_without_a_comparison_is_refused(rows, tmp_path, capsys):
    assert claims.main([str(write_csv(tmp_path / "a.csv", rows))]) == 2
    assert capsys.readouterr().err.startswith("error: no claim compares what is in these files: collect runs of tlm")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@each(
    "suite,folder,files",
    [
        (hypergrid, "", ["figure1.csv", "decay.csv"]),
        (hypergrid, "decay_scale0.1", ["appendix_scale0.1.csv"]),
        (hypergrid, "scale0.1", ["figure1_scale0.1.csv"]),
        (bitseq, "partial", ["figure2_partial.csv"]),
        (bitseq, "small", ["small/figure2.csv"]),
        (bitseq, "small/head_only", ["small/head_only.csv"]),
        (mols, "small", ["small/figure2.csv"]),
    ],
)
def test_the_committed_verdicts_are_those_of_the_committed_files(suite, folder, files, tmp_path):
    results = Path(suite.__file__).parent / "results"
    judge = import_module(f"{suite.__name__}.analysis.claims")
    assert judge.main([*(str(results / name) for name in files), "--out", str(tmp_path)]) == 0
    for name in ("claims.md", "claims.bib"):
        assert (results / folder / name).read_text() == (tmp_path / name).read_text()


def test_a_folder_that_cannot_be_is_refused(tmp_path, capsys):
    path = write_csv(tmp_path / "a.csv", cells({"tlm": 2.0, "uniform": 4.0}, seeds=(1,)))
    assert claims.main([str(path), "--out", str(path)]) == 2
    assert "error: cannot create the folder" in capsys.readouterr().err
