"""From finished runs of every suite to the tidy CSV and the report."""

import csv
import json

import pytest
from collected_csv import grid_run, write_csv
from each import each
from suites import BITSEQ, HYPERGRID, MOLS, SUITES, Suite, each_suite, quicken

from hypergrid.common.run_folder import read_metrics

ENVIRONMENTS = {
    "hypergrid": "standard height=4 ndim=2",
    "bitseq": "n=8-k=2 M_size=5 mode_threshold=1",
    "mols": "seh_frag width=16 n_layers=1 max_fragments=2 surrogate",
}
IDENTITY = ("suite", "environment", "objective", "approach", "learning_rate", "seed")
TWO_ROWS = {"num_iterations": 2, "validate_every": 1, "corr_every": 1, "exact_every": 1}
RATE = {"hypergrid": "algo.backward_learning_rate", "bitseq": "backward_learning_rate", "mols": "blr"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quicken(monkeypatch)


def collected(suite: Suite, tmp_path, *more: str) -> tuple[int, list[dict]]:
    """Exit status and rows."""
    out = tmp_path / "all.csv"
    status = suite.module("analysis.collect").main([str(tmp_path / "runs"), "--out", str(out), *more])
    if not out.exists():
        return status, []
    with out.open(newline="") as file:
        return status, list(csv.DictReader(file))


@each_suite
def test_collect_keeps_what_identifies_a_run_and_its_columns(suite, tmp_path):
    run = suite.run("tb", tmp_path / "runs" / "a", seed=3, learning_rate=0.002, **TWO_ROWS)
    objective = suite.objectives[-1]
    uniform = {"backward_approach": "uniform", "checkpoint_every": 7, "learning_rate": 0.002}
    suite.run(objective, tmp_path / "runs" / "b", **uniform, **TWO_ROWS)
    status, rows = collected(suite, tmp_path)
    assert status == 0
    usual_seed = "3" if suite is HYPERGRID else "1"  # its command line names one
    assert {tuple(row[name] for name in IDENTITY) for row in rows} == {
        (suite.name, ENVIRONMENTS[suite.name], "tb", "tlm", "0.002", "3"),
        (suite.name, ENVIRONMENTS[suite.name], objective, "uniform", "0.002", usual_seed),
    }
    assert list(rows[0]) == [*IDENTITY, *read_metrics(run), "results_version", "git_hash"]
    assert [row["step"] for row in rows] == ["1", "2"] * 2
    versions = suite.module("suite").RESULTS_VERSIONS
    assert all(row["results_version"] == str(versions[row["objective"]]) for row in rows)


@each(
    "suite, field, value",
    [
        (HYPERGRID, "algo.target_decay", 0.5),
        (BITSEQ, "dropout", 0.5),
        (MOLS, "temp", 9),
        *((suite, RATE[suite.name], 0.01) for suite in SUITES),
    ],
)
def test_collect_refuses_runs_that_differ_in_more_unless_told(suite, field, value, tmp_path, capsys):
    suite.run("tb", tmp_path / "runs" / "a", **TWO_ROWS)
    suite.run("tb", tmp_path / "runs" / "b", **TWO_ROWS, **{field: value})
    assert collected(suite, tmp_path) == (2, [])
    assert f"differ in {field} (" in capsys.readouterr().err
    status, rows = collected(suite, tmp_path, "--varying", field)
    assert status == 0 and len({row[field] for row in rows}) == 2


@each_suite
def test_collect_takes_objectives_and_learning_rates_together(suite, tmp_path):
    """m_alpha follows from the objective, and where it follows from P_F's, P_B's learning rate."""
    for objective in suite.objectives:
        suite.run(objective, tmp_path / "runs" / objective, **TWO_ROWS)
    for rate in (0.0005, 0.002):
        suite.run("db", tmp_path / "runs" / str(rate), learning_rate=rate, **TWO_ROWS)
    suite.run("db", tmp_path / "runs" / "given", **({"lrd": 20_000} if suite is MOLS else {"seed": 5}), **TWO_ROWS)
    assert collected(suite, tmp_path)[0] == 0


@each_suite
def test_collect_does_not_mind_where_and_how_a_run_was_stored(suite, tmp_path):
    suite.run("db", tmp_path / "runs" / "a", **TWO_ROWS)
    options = {"backward_approach": "uniform", "tensorboard": True, "checkpoint_every": 1, "kernels": "torch"}
    path = suite.run("db", tmp_path / "runs" / "b", **options, **TWO_ROWS) / "config.json"
    config = json.loads(path.read_text())
    stored = config.get("general", config)
    stored |= {"wandb_project" if suite is HYPERGRID else "wandb": "on"}
    stored |= {"data_dir": "elsewhere", "workers": 2} if suite is MOLS else {}
    path.write_text(json.dumps(config))
    assert collected(suite, tmp_path)[0] == 0


@each_suite
def test_the_report_goes_between_this_suites_markers(suite, tmp_path, monkeypatch, capsys):
    report, folder = suite.module("analysis.report"), tmp_path / suite.name
    monkeypatch.setattr(report, "SUITE", folder)
    monkeypatch.setattr(report, "RESULTS", folder / "results")
    assert report.main([]) == 2
    assert "error: there is no " in capsys.readouterr().err
    run = suite.run("db", tmp_path / "runs", **TWO_ROWS)
    evidence = str(report.RESULTS / "evidence.csv")
    assert suite.module("analysis.collect").main([str(run), "--out", evidence]) == 0
    pages = [folder / "README.md", tmp_path / "README.md"]
    for page in pages:
        page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    assert report.main(["--check"]) == 2
    stale = f"stale results in {suite}/README.md, README.md: run python -m {suite}.analysis.report"
    assert stale in capsys.readouterr().err
    assert report.main([]) == 0
    assert report.main(["--check"]) == 0
    pages[1].write_text("a first page without tables\n")
    assert report.main([]) == report.main(["--check"]) == 0
    assert pages[1].read_text() == "a first page without tables\n"
    metrics, lines = read_metrics(run), pages[0].read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines
    heads, _, values = (line.strip("| ").split(" | ") for line in lines[3:6])
    shown = dict(zip(heads, values, strict=True))
    assert (shown["environment"], shown["P_B"]) == (ENVIRONMENTS[suite.name], "tlm")
    assert shown["trajectories"] == f"{metrics['trajectories'][-1]:.0f}"
    columns = {name: shape for name, shape in suite.module("suite").SHOWN.items() if name != "wall_s"}
    for name in columns.keys() & metrics.keys():
        head, shape = columns[name]
        value = metrics[name][-1]
        assert shown.get(head, "") in ((shape.format(value),) if value == value else ("", "-")), head
    assert len(columns.keys() & metrics.keys()) > 5


def test_the_seeds_of_a_cell_are_shown_together(tmp_path):
    runs = [grid_run(10**0.2, seed=1), grid_run(10**0.4, seed=2), grid_run(10.0, objective="tb", approach="uniform")]
    path = write_csv(tmp_path / "figure1.csv", [row | {"exact_total_variation": 0.5} for run in runs for row in run])
    lines = HYPERGRID.module("analysis.report").describe_cells([path]).splitlines()
    heads = "| environment | objective | uniform [malkin2022trajectory] | tlm [gritsaev2025optimizing] |"
    assert lines[0].startswith("**Decades above a perfect sampler") and lines[2] == heads
    rows = ["| standard | DB | not run | 0.300, 0.200 to 0.400 (2) |", "| standard | TB | 1.000 (1) | not run |"]
    assert lines[4:6] == rows
    assert lines[-1] == "| standard | TB | 0.500 (1) | not run |"
    early = lines.index("**Exact total variation after 80,000 trajectories**")  # these runs end before
    assert lines[early + 4 : early + 6] == [
        "| standard | DB | not run | not measured |",
        "| standard | TB | not measured | not run |",
    ]


@each_suite
def test_the_page_has_this_suites_markers_once(suite):
    report = suite.module("analysis.report")
    page = (report.SUITE / "README.md").read_text(encoding="utf-8")
    assert page.count(report.BEGIN) == 1
    assert f"{report.BEGIN}\n\nnew\n\n{report.END}" in report.replace_section(page, "new")
    with pytest.raises(suite.module("common.terminal").ExperimentError, match="markers"):
        report.replace_section("no markers", "new")
