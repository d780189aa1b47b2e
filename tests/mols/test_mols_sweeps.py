"""The sweeps print the runs that they promise."""

import sys

import pytest
from each import each
from sweeps import config_of, configs, lines, run_tiny

from mols.analysis import collect
from mols.common.terminal import ExperimentError
from mols.suite import IDENTITY

APPENDIX, TASKS = "mols/sweeps/appendix.sh", {"seh": "seh_frag", "qm9": "qm9"}
FIGURES = {task: f"mols/sweeps/{name}_figure2.sh" for name, task in TASKS.items()}
OBJECTIVES = ("dqn", "db", "tb", "subtb")
ONE = {"SEEDS": "3", "LEARNING_RATES": "1e-4", "OBJECTIVES": "dqn", "APPROACHES": "tlm"}
PUBLISHED = {"seh_frag": "--proxy original --test_set original", "qm9": ""}
AS_THE_AUTHORS = "--no_sampling_model --rand_pb_init"  # of pessimistic
TINY = "--reward qed --batch_size 2 --max_atoms 3 --corr_every 0 --width 8 --n_layers 1 --n_heads 1 --device cpu"


def cell(config) -> tuple:
    return tuple(config[IDENTITY[name]] for name in ("seed", "environment", "learning_rate", "objective", "approach"))


@each("task", FIGURES)
def test_figures_2_and_3_are_every_cell_once_tuning_seed_first_at_the_papers_settings(task):
    figure = configs(FIGURES[task])
    assert [cell(config) for config in figure] == [
        (seed, task, rate, objective, approach)
        for seed in (1, 2, 3, 4, 5)
        for rate in (0.00025, 0.0005, 0.001)
        for objective in OBJECTIVES
        for approach in ("uniform", "naive", "maxent", "tlm", "pessimistic")
    ]
    assert lines(FIGURES[task].replace("figure2", "figure3")) == lines(FIGURES[task])
    for config in figure[:: len(figure) // 27]:
        seed, _, rate, objective, approach = cell(config)
        options = (
            f"--threads 1 --seed {seed} --lr {rate} --algo {objective} --backward_approach {approach} {PUBLISHED[task]}"
        )
        options += f" {AS_THE_AUTHORS}" if approach == "pessimistic" else ""
        assert config == config_of(f"python -m mols.tasks.{task} {options}") | {"if_exists": "resume"}


@each("task", FIGURES)
def test_the_runs_of_a_figure_go_into_one_file_though_pessimistic_has_settings_of_its_own(task):
    runs = configs(FIGURES[task], SEEDS="1")
    collect.require_comparable(runs, [])
    for field in ("no_sampling_model", "rand_pb_init"):
        other = next(config for config in runs if config["backward_approach"] == "pessimistic") | {field: False}
        with pytest.raises(ExperimentError, match=f"the runs differ in {field} "):
            collect.require_comparable([*runs, other], [])


@each("task", FIGURES)
@each("scale,iterations,every", [("0.1", 2000, 40), ("0.01", 200, 4), ("1e-6", 1, 1)])
def test_every_scale_is_a_run(task, scale, iterations, every):
    (config,) = configs(FIGURES[task], SCALE=scale, **ONE)
    assert (config["n"], config["validate_every"]) == (iterations, every)
    assert cell(config) == (3, task, 0.0001, "dqn", "tlm")


def test_the_appendix_has_one_technique_off_at_a_time():
    figure = {cell(config): config for path in FIGURES.values() for config in configs(path, APPROACHES="tlm")}
    found = []
    for config in configs(APPENDIX, TECHNIQUES="decay target initialisation"):
        own = figure[cell(config)]
        found.append({name: value for name, value in config.items() if value != own[name]})
    assert found == 32 * [{}, {"blrd": 1e9}, {"target_decay": 0.0}, {"rand_pb_init": True}]
    assert len(lines(APPENDIX)) == 32 * 3, "target only when asked for"


def test_a_line_runs(tmp_path):
    (line,) = lines(FIGURES["qm9"], SCALE="1e-9", OUTPUT_DIR=str(tmp_path), **ONE)
    (run,) = run_tiny(line, tmp_path, TINY, sys.executable)
    assert (run / "metrics.csv").read_text().splitlines()[-1].startswith("1,2,")


@each("name,task", TASKS.items())
def test_the_small_runs_are_every_approach_on_one_thread(name, task):
    runs = configs(f"mols/sweeps/{name}_small.sh", SEEDS="1 2")
    assert [cell(config) for config in runs] == [
        (seed, task, 0.001, objective, approach)
        for seed in (1, 2)
        for objective in OBJECTIVES
        for approach in ("uniform", "naive", "maxent", "tlm", "pessimistic")
    ]
    assert {(run["n"], run["width"], run["n_layers"], run["threads"]) for run in runs} == {(1000, 64, 2, 1)}
