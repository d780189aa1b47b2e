"""The sweeps print the runs that they promise, refuse what they do not know, and leave out what is measured."""

import csv
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from each import each

import mols
from mols import settings
from mols.analysis import collect
from mols.common.run_folder import ExperimentError, flatten
from mols.suite import IDENTITY, RESULTS_VERSIONS
from mols.tasks import qm9, seh_frag

ROOT = Path(mols.__file__).resolve().parents[1]
VARIABLES = ("SEEDS", "ENVIRONMENTS", "LEARNING_RATES", "OBJECTIVES", "APPROACHES", "TECHNIQUES", "SCALE", "OUTPUT_DIR")
OBJECTIVES = ("dqn", "db", "tb", "subtb")
APPROACHES = ("uniform", "naive", "maxent", "tlm", "pessimistic")
TASKS = {"seh": seh_frag, "qm9": qm9}
OPTIONS = {task.NAME: task.OPTIONS for task in TASKS.values()}


def sweep(name: str, *, root: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    env = {key: value for key, value in os.environ.items() if key not in VARIABLES} | variables
    command = ["bash", str(root / "mols" / "sweeps" / name)]
    return subprocess.run(command, cwd="/", env=env, capture_output=True, text=True)


def configs(name: str, **variables) -> list:
    """The configurations of the printed lines, parsed as a run does."""
    done = sweep(name, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    found = []
    for line in done.stdout.splitlines():
        program, flag, module, *argv = shlex.split(line)
        assert (program, flag) == ("python", "-m")
        task = module.removeprefix("mols.tasks.")
        found.append(settings.parse(argv, task, OPTIONS[task]))
    return found


def directory(config) -> Path:
    return settings.run_directory(config, OPTIONS[config.environment])


def cell(config) -> tuple:
    return config.seed, config.lr, config.algo, config.backward_approach


@pytest.mark.parametrize("name", TASKS)
def test_figures_2_and_3_are_every_cell_once_tuning_seed_first(name):
    figure = configs(f"{name}_figure2.sh")
    assert [cell(config) for config in figure] == [
        (seed, rate, objective, approach)
        for seed in (1, 2, 3, 4, 5)
        for rate in (0.00025, 0.0005, 0.001)
        for objective in OBJECTIVES
        for approach in APPROACHES
    ]
    assert sweep(f"{name}_figure3.sh").stdout == sweep(f"{name}_figure2.sh").stdout
    task = TASKS[name]
    for config in figure[:: len(figure) // 27]:
        given = ["--algo", config.algo, "--backward_approach", config.backward_approach]
        given += ["--seed", str(config.seed), "--lr", str(config.lr)]
        shipped = settings.parse(given, task.NAME, task.OPTIONS)
        own = {"proxy": "original", "test_set": "original"} if name == "seh" else {}
        if config.backward_approach == "pessimistic":  # as the authors ran it
            own |= {"no_sampling_model": True, "rand_pb_init": True}
        assert config.to_dict() == shipped.to_dict() | own | {"if_exists": "resume"}, "the paper's own settings"


@pytest.mark.parametrize("name", TASKS)
def test_the_runs_of_a_figure_go_into_one_file_though_pessimistic_has_settings_of_its_own(name):
    runs = configs(f"{name}_figure2.sh", SEEDS="1")
    assert {config.no_sampling_model for config in runs} == {config.rand_pb_init for config in runs} == {False, True}
    flat = [flatten(config.to_dict()) for config in runs]
    collect.require_comparable(flat, [])
    for field in ("no_sampling_model", "rand_pb_init"):
        other = next(config for config in flat if config["backward_approach"] == "pessimistic") | {field: False}
        with pytest.raises(ExperimentError, match=f"the runs differ in {field} "):
            collect.require_comparable([*flat, other], [])


@each("name", TASKS)
@each("scale,iterations,every", [("0.1", 2000, 40), ("0.01", 200, 4), ("1e-6", 1, 1)])
def test_every_scale_is_a_run(name, scale, iterations, every):
    choice = {"SEEDS": "3", "LEARNING_RATES": "1e-4", "OBJECTIVES": "dqn", "APPROACHES": "tlm"}
    (config,) = configs(f"{name}_figure2.sh", SCALE=scale, **choice)
    assert (config.n, config.validate_every, cell(config)) == (iterations, every, (3, 0.0001, "dqn", "tlm"))


@pytest.mark.parametrize("name", TASKS)
def test_the_small_runs_are_every_approach_on_one_thread(name):
    runs = configs(f"{name}_small.sh", SEEDS="1 2")
    assert [(config.seed, config.algo, config.backward_approach) for config in runs] == [
        (seed, algo, approach) for seed in (1, 2) for algo in ("tb", "dqn") for approach in APPROACHES
    ]
    assert {(config.n, config.width, config.n_layers, config.threads) for config in runs} == {(1000, 64, 2, 1)}
    assert len(set(map(directory, runs))) == len(runs)


def techniques(config) -> tuple:
    return config.blrd, config.target_decay, config.rand_pb_init


def test_the_appendix_has_one_technique_off_at_a_time():
    appendix = configs("appendix.sh")
    assert {(config.seed, config.environment, config.lr, config.backward_approach) for config in appendix} == {
        (seed, task, 0.0005, "tlm") for seed in (2, 3, 4, 5) for task in OPTIONS
    }
    everything, no_decay, no_init = (20_000.0, 0.95, False), (1e9, 0.95, False), (20_000.0, 0.95, True)
    for task in OPTIONS:
        runs = [
            [techniques(c) for c in appendix if (c.environment, c.algo, c.seed) == (task, name, 2)]
            for name in OBJECTIVES
        ]
        assert runs == [[everything, no_decay, no_init]] * 4
    figure = {directory(c) for name in TASKS for c in configs(f"{name}_figure2.sh", APPROACHES="tlm")}
    assert len(figure.intersection(map(directory, appendix))) == 32
    target = configs("appendix.sh", TECHNIQUES="target", SEEDS="2", ENVIRONMENTS="qm9", OBJECTIVES="tb")
    assert [techniques(config) for config in target] == [everything, (20_000.0, 0.0, False)]


def test_runs_that_are_measured_are_left_out(tmp_path):
    """Those of both tasks, which are as many iterations but not as many trajectories, are in one file."""
    shutil.copytree(ROOT / "mols", tmp_path / "mols", ignore=shutil.ignore_patterns("__pycache__", "results"))
    (tmp_path / "mols" / "results").mkdir()
    choice = {"SEEDS": "2", "SCALE": "0.01", "OBJECTIVES": "dqn tb"}
    for names, fields in (
        (["seh_figure2", "qm9_figure2"], ()),
        (["appendix"], ("blrd", "target_decay", "rand_pb_init")),
    ):
        measured = [config for name in names for config in configs(f"{name}.sh", **choice)[1:]]
        with (tmp_path / "mols" / "results" / f"{names[0].split('_')[-1]}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*IDENTITY, *fields, "step", "trajectories", "results_version"])
            for config in measured:
                run = [*collect.identity(flatten(config.to_dict())).values(), *(config[field] for field in fields)]
                version = RESULTS_VERSIONS[config.algo]
                writer.writerows([[*run, n, n * config.batch_size, version] for n in (100, config.n)])
        for name in names:
            (left,) = sweep(f"{name}.sh", root=tmp_path, **choice).stdout.splitlines()
            assert left == sweep(f"{name}.sh", **choice).stdout.splitlines()[0]
