"""The sweeps print the runs that they promise, refuse what they do not know, and leave out what is measured."""

import csv
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import bitseq
from bitseq import settings
from bitseq.analysis import collect
from bitseq.common.run_folder import flatten
from bitseq.suite import IDENTITY, RESULTS_VERSIONS

ROOT = Path(bitseq.__file__).resolve().parents[1]
VARIABLES = ("SEEDS", "LEARNING_RATES", "OBJECTIVES", "APPROACHES", "TECHNIQUES", "SCALE", "OUTPUT_DIR")
OBJECTIVES = ("munchausen_dqn", "db", "tb", "subtb")
APPROACHES = ("uniform", "naive", "maxent", "tlm", "pessimistic")
ONE = {"SEEDS": "2", "LEARNING_RATES": "0.001", "OBJECTIVES": "tb", "APPROACHES": "tlm"}


def sweep(name: str, *, root: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    env = {key: value for key, value in os.environ.items() if key not in VARIABLES} | variables
    command = ["bash", str(root / "bitseq" / "sweeps" / name)]
    return subprocess.run(command, cwd="/", env=env, capture_output=True, text=True)


def configs(name: str, **variables) -> list:
    """The configurations of the printed lines, parsed as a run does."""
    done = sweep(name, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    words = [shlex.split(line) for line in done.stdout.splitlines()]
    assert all(line[:2] == ["python", "bitseq/run.py"] for line in words)
    return [settings.parse(line[2:]) for line in words]


def cell(config) -> tuple:
    return config.seed, config.learning_rate, config.objective, config.backward_approach


def test_figures_2_and_3_are_every_cell_once_tuning_seed_first():
    figure = configs("figure2.sh")
    assert [cell(config) for config in figure] == [
        (seed, rate, objective, approach)
        for seed in (1, 2, 3, 4, 5)
        for rate in (0.0005, 0.001, 0.002)
        for objective in OBJECTIVES
        for approach in APPROACHES
    ]
    assert sweep("figure3.sh").stdout == sweep("figure2.sh").stdout
    for config in figure:
        given = ["--objective", config.objective, "--backward_approach", config.backward_approach]
        shipped = settings.parse([*given, "--seed", str(config.seed), "--lr", str(config.learning_rate)])
        assert config.to_dict() == shipped.to_dict() | {"if_exists": "resume"}, "the paper's own settings"


@pytest.mark.parametrize(
    ("scale", "iterations", "every", "start"), [("0.1", 5000, 100, 50), ("0.001", 50, 1, 25), ("1e-9", 1, 1, 0)]
)
def test_every_scale_is_a_run(scale, iterations, every, start):
    figure = configs("figure2.sh", **ONE | {"SCALE": scale, "OBJECTIVES": "tb munchausen_dqn soft_dqn"})
    assert [(c.num_iterations, c.validate_every) for c in figure] == [(iterations, every)] * 3
    assert [c.get("start_learning") for c in figure] == [None, start, start]


def test_learning_rates_are_numbers():
    rates = "5e-4 .001 2 0.0005"
    assert [c.learning_rate for c in configs("figure2.sh", **ONE | {"LEARNING_RATES": rates})] == [0.0005, 0.001, 2]


def techniques(config) -> tuple:
    return config.gamma, config.get("target_decay"), config.uniform_initialisation


def test_the_appendix_has_one_technique_off_at_a_time():
    appendix = configs("appendix.sh")
    assert {cell(config)[::3] for config in appendix} == {(seed, "tlm") for seed in (2, 3, 4, 5)}
    runs = {name: [techniques(c) for c in appendix if (c.objective, c.seed) == (name, 2)] for name in OBJECTIVES}
    assert runs.pop("munchausen_dqn") == [(0.9999, None, True), (1.0, None, True), (0.9999, None, False)]
    off = [(0.9999, 0.9, True), (1.0, 0.9, True), (0.9999, 0.0, True), (0.9999, 0.9, False)]
    assert list(runs.values()) == [off] * 3
    figure = {settings.run_directory(config) for config in configs("figure2.sh", APPROACHES="tlm")}
    assert len(figure.intersection(settings.run_directory(config) for config in appendix)) == 16


def test_runs_that_are_measured_are_left_out(tmp_path):
    shutil.copytree(ROOT / "bitseq", tmp_path / "bitseq", ignore=shutil.ignore_patterns("__pycache__", "results"))
    (tmp_path / "bitseq" / "results").mkdir()
    for name, fields in (("figure2", ()), ("appendix", ("gamma", "target_decay", "uniform_initialisation"))):
        measured = configs(f"{name}.sh", SEEDS="2", SCALE="0.1")[1:]
        with (tmp_path / "bitseq" / "results" / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*IDENTITY, *fields, "step", "trajectories", "results_version"])
            for config in measured:
                flat = flatten(config.to_dict())
                run = [*collect.identity(flat).values(), *(flat.get(field, "") for field in fields)]
                version = RESULTS_VERSIONS[config.objective]
                writer.writerows([[*run, step, 16 * step, version] for step in (100, config.num_iterations)])
        (left,) = sweep(f"{name}.sh", root=tmp_path, SEEDS="2", SCALE="0.1").stdout.splitlines()
        assert left == sweep(f"{name}.sh", SEEDS="2", SCALE="0.1").stdout.splitlines()[0]
        assert len(sweep(f"{name}.sh", root=tmp_path, SEEDS="2").stdout.splitlines()) == len(measured) + 1
