"""The sweeps print the runs that they promise, refuse what they do not know, and leave out what is measured."""

import csv
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from each import each

import hypergrid
from hypergrid import settings
from hypergrid.analysis import collect
from hypergrid.common.run_folder import flatten

ROOT = Path(hypergrid.__file__).resolve().parents[1]
VARIABLES = ("SEEDS", "ENVIRONMENTS", "OBJECTIVES", "APPROACHES", "TECHNIQUES", "SCALE", "OUTPUT_DIR")
OBJECTIVES = ("munchausen_dqn", "db", "tb", "subtb")
APPROACHES = ("uniform", "naive", "maxent", "tlm", "pessimistic")


unmeasured = []  # the root of a copy without results


@pytest.fixture(scope="module", autouse=True)
def copy_without_results(tmp_path_factory):
    """The committed results would be left out of every sweep: by default, the tests run a copy that has none."""
    root = tmp_path_factory.mktemp("unmeasured")
    shutil.copytree(ROOT / "hypergrid", root / "hypergrid", ignore=shutil.ignore_patterns("__pycache__", "results"))
    unmeasured[:] = [root]


def sweep(name: str, *, root: Path | None = None, **variables: str) -> subprocess.CompletedProcess:
    env = {key: value for key, value in os.environ.items() if key not in VARIABLES} | variables
    command = ["bash", str((root or unmeasured[0]) / "hypergrid" / "sweeps" / name)]
    return subprocess.run(command, cwd="/", env=env, capture_output=True, text=True)


def lines(name: str, **variables) -> list[str]:
    done = sweep(name, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture
def config_of(monkeypatch):
    """The configuration of a line, parsed at the repository's root as a run does."""
    monkeypatch.chdir(ROOT)

    def config_of(line: str):
        program, script, *argv = shlex.split(line)
        assert (program, script) == ("python", "hypergrid/run_hypergrid_exp.py")
        return settings.parse([script, *argv])

    return config_of


def cell(config) -> tuple:
    return config.general.seed, config.env.name, config.algo.name, config.algo.backward_approach


def test_figure_1_is_every_cell_once_in_the_promised_order(config_of):
    configs = [config_of(line) for line in lines("figure1.sh")]
    assert [cell(config) for config in configs] == [
        (seed, environment, objective, approach)
        for seed in (1, 2, 3)
        for environment in ("standard", "hard")
        for objective in OBJECTIVES
        for approach in APPROACHES
    ]
    shipped = config_of(
        "python hypergrid/run_hypergrid_exp.py --general hypergrid/experiments/config/general.py:1 "
        "--env hypergrid/experiments/config/hypergrid.py:standard --algo hypergrid/experiments/config/algo.py:db"
    )
    for config in configs:
        assert config.general.if_exists == "resume"
        assert config.general.to_dict() | {"seed": 1, "if_exists": "refuse"} == shipped.general.to_dict()
        assert "=" not in settings.run_directory(config).parent.name, "the paper's own settings"


@each(
    "scale,trajectories,every",
    [("1", 1_000_000, 100), ("0.1", 100_000, 100), ("1e-2", 10_000, 13), (".001", 1_008, 2), ("0.000001", 16, 1)],
)
def test_scale_rounds_iterations_up_and_keeps_the_points(config_of, scale, trajectories, every):
    (line,) = lines("figure1.sh", SCALE=scale, SEEDS="7", ENVIRONMENTS="hard", OBJECTIVES="tb", APPROACHES="tlm")
    general = config_of(line).general
    assert (general.n_trajectories, general.validation_interval, general.seed) == (trajectories, every, 7)


def test_words_of_the_environment_choose_and_repetitions_do_not_count(config_of):
    choice = {"SEEDS": "4 2 4", "ENVIRONMENTS": "hard", "OBJECTIVES": "soft_dqn tb", "APPROACHES": " naive  naive "}
    cells = [cell(config_of(line)) for line in lines("figure1.sh", OUTPUT_DIR="/some/where", **choice)]
    assert cells == [(seed, "hard", name, "naive") for seed in (4, 2) for name in ("soft_dqn", "tb")]
    assert "--general.output_dir /some/where " in lines("figure1.sh", OUTPUT_DIR="/some/where")[0]


def test_a_new_row_of_the_table_of_approaches_can_be_swept(tmp_path):
    shutil.copytree(ROOT / "hypergrid" / "sweeps", tmp_path / "hypergrid" / "sweeps")
    place = Path("hypergrid", "common", "backward_loss.py")
    (tmp_path / place).parent.mkdir()
    table = (ROOT / place).read_text()
    row = 'BackwardApproach(\n            "robust", "learned", None, None, "online", False, "key"\n        ),\n        '
    before = 'BackwardApproach("naive"'
    assert table.count(before) == 1
    (tmp_path / place).write_text(table.replace(before, row + before))
    done = sweep("figure1.sh", root=tmp_path, APPROACHES="robust tlm", SEEDS="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("--algo.backward_approach robust") == done.stdout.count(" tlm ") == 8


def test_the_appendix_has_one_technique_off_at_a_time(config_of):
    def techniques(config) -> tuple:
        algo = config.algo
        return algo.backward_learning_rate_decay, algo.target_decay, algo.zero_initialisation

    configs = [config_of(line) for line in lines("appendix.sh", SEEDS="1", ENVIRONMENTS="hard")]
    assert {cell(config)[3] for config in configs} == {"tlm"}
    found = {name: [techniques(config) for config in configs if config.algo.name == name] for name in OBJECTIVES}
    everything, no_decay = (0.999, 0.75, True), (1.0, 0.75, True)
    no_target, not_uniform = (0.999, 0.0, True), (0.999, 0.75, False)
    assert found.pop("munchausen_dqn") == [everything, no_decay, not_uniform]
    assert all(runs == [everything, no_decay, no_target, not_uniform] for runs in found.values())
    figure = {settings.run_directory(config_of(line)) for line in lines("figure1.sh", SEEDS="1", APPROACHES="tlm")}
    shared = {settings.run_directory(config) for config in configs if techniques(config) == everything}
    assert len(shared) == 4 and shared < figure, "with everything on they are runs of the figure"
    assert sweep("appendix.sh", APPROACHES="naive").returncode == 2
    assert sweep("appendix.sh", TECHNIQUES="luck").returncode == 2
    assert len(lines("appendix.sh", SEEDS="1", ENVIRONMENTS="hard", TECHNIQUES="target")) == 7


@pytest.fixture
def results(tmp_path):
    """``results(name, rows, extra)``: a copy of the repository with a results file; returns its root."""
    ignored = shutil.ignore_patterns("__pycache__", "runs", "results")
    shutil.copytree(ROOT / "hypergrid", tmp_path / "hypergrid", ignore=ignored)
    (tmp_path / "hypergrid" / "results").mkdir()

    def results(name: str, rows: list[dict]) -> Path:
        with (tmp_path / "hypergrid" / "results" / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path

    return results


def rows(approach: str, trajectories: list[int], **changes) -> list[dict]:
    run = {"suite": "hypergrid", "environment": "hard", "objective": "tb", "approach": approach}
    run |= {"learning_rate": "0.001", "seed": "1"}
    version = changes.pop("results_version", 1)
    run |= changes
    return [run | {"step": n // 16, "trajectories": n, "results_version": version} for n in trajectories]


def test_runs_that_are_measured_are_left_out(results, config_of):
    root = results(
        "figure1.csv",
        [
            *rows("uniform", [160, 1008]),
            *rows("naive", [160, 1008], results_version=0),
            *rows("maxent", [16, 1008, 16000]),  # another length
            *rows("tlm", [16, 160]),
            *rows("tlm", [16, 1008]),  # two lengths, one after the other
            *rows("pessimistic", [16, 1008], environment="standard"),
            *rows("pessimistic", [1008], seed="2"),
            *rows("pessimistic", [1008], objective="db"),
            *rows("pessimistic", [1008], learning_rate="0.01"),
        ],
    )
    choice = {"SCALE": "0.001", "SEEDS": "1", "ENVIRONMENTS": "hard", "OBJECTIVES": "tb"}
    left = [cell(config_of(line))[3] for line in lines("figure1.sh", root=root, **choice)]
    assert left == ["naive", "maxent", "pessimistic"]
    assert len(lines("figure1.sh", root=root, **choice | {"SCALE": "1"})) == 5
    suite = root / "hypergrid" / "suite.py"
    suite.write_text(suite.read_text().replace('"db": 1', '"db": 5'))
    assert len(lines("figure1.sh", root=root, **choice)) == 3, "another objective's version"
    suite.write_text(suite.read_text().replace('"tb": 1', '"tb": 5'))
    assert len(lines("figure1.sh", root=root, **choice)) == 5, "what is computed has changed since"


def test_runs_of_the_appendix_that_are_measured_are_left_out(results, config_of):
    fields = ("algo.backward_learning_rate_decay", "algo.target_decay", "algo.zero_initialisation")
    measured = [("0.999", "0.75", "True"), ("1.0", "0.75", "True"), ("0.999", "0.75", "False")]
    table = [row for values in measured for row in rows("tlm", [16, 1008], **dict(zip(fields, values, strict=True)))]
    root = results("appendix.csv", table)
    choice = {"SCALE": "0.001", "SEEDS": "1", "ENVIRONMENTS": "hard", "OBJECTIVES": "tb"}
    (line,) = lines("appendix.sh", root=root, **choice)
    assert config_of(line).algo.target_decay == 0


def test_a_python_that_fails_is_told(results, tmp_path):
    root = results("figure1.csv", rows("tlm", [16]))
    (root / "hypergrid" / "suite.py").write_text("raise SystemExit('broken')")
    done = sweep("figure1.sh", root=root)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].endswith("does not tell the results versions: see above")


def test_the_csv_names_a_run_as_the_sweep_looks_for_it(config_of):
    (line,) = lines("figure1.sh", SEEDS="1", ENVIRONMENTS="hard", OBJECTIVES="tb", APPROACHES="tlm")
    names = collect.identity(flatten(config_of(line).to_dict()))
    assert {name: str(value) for name, value in names.items()}.items() <= rows("tlm", [16])[0].items()
