"""The sweeps print the runs that they promise."""

import sys

from each import each
from sweeps import config_of, configs, lines, run_tiny

from bitseq.suite import IDENTITY

FIGURE, APPENDIX = "bitseq/sweeps/figure2.sh", "bitseq/sweeps/appendix.sh"
OBJECTIVES = ("munchausen_dqn", "db", "tb", "subtb")
ONE = {"SEEDS": "2", "LEARNING_RATES": "5e-4", "APPROACHES": "tlm"}
TINY = "--n 8 --k 2 --M_size 5 --mode_threshold 1 --corr_num_rounds 1 --width 8 --n_layers 1 --n_heads 1 --ff_width 8"


def cell(config) -> tuple:
    return tuple(config[IDENTITY[name]] for name in ("seed", "learning_rate", "objective", "approach"))


def test_figures_2_and_3_are_every_cell_once_tuning_seed_first_at_the_papers_settings():
    figure = configs(FIGURE)
    assert [cell(config) for config in figure] == [
        (seed, rate, objective, approach)
        for seed in (1, 2, 3, 4, 5)
        for rate in (0.0005, 0.001, 0.002)
        for objective in OBJECTIVES
        for approach in ("uniform", "naive", "maxent", "tlm", "pessimistic")
    ]
    assert lines("bitseq/sweeps/figure3.sh") == lines(FIGURE)
    for config in figure:
        seed, rate, objective, approach = cell(config)
        options = f"--seed {seed} --lr {rate} --objective {objective} --backward_approach {approach}"
        assert config == config_of(f"python bitseq/run.py {options}") | {"if_exists": "resume"}


@each("scale,iterations,every,start", [("0.1", 5000, 100, 50), ("0.001", 50, 1, 25), ("1e-9", 1, 1, 0)])
def test_every_scale_is_a_run(scale, iterations, every, start):
    figure = configs(FIGURE, SCALE=scale, OBJECTIVES="tb munchausen_dqn soft_dqn", OUTPUT_DIR="/some/where", **ONE)
    assert [(c["num_iterations"], c["validate_every"], c["learning_rate"]) for c in figure] == [
        (iterations, every, 0.0005)
    ] * 3
    assert [c.get("start_learning") for c in figure] == [None, start, start]
    assert {c["output_dir"] for c in figure} == {"/some/where"}


def test_the_appendix_has_one_technique_off_at_a_time():
    figure = {cell(config): config for config in configs(FIGURE, LEARNING_RATES="0.001")}
    n_off = {objective: [] for objective in OBJECTIVES}
    for config in configs(APPENDIX):
        own = figure[cell(config)]
        off = {name: value for name, value in config.items() if value != own[name]}
        assert off in ({}, {"gamma": 1.0}, {"target_decay": 0.0}, {"uniform_initialisation": False})
        n_off[config["objective"]] += [*off]
    assert n_off.pop("munchausen_dqn") == 4 * ["gamma", "uniform_initialisation"]
    assert all(off == 4 * ["gamma", "target_decay", "uniform_initialisation"] for off in n_off.values())


def test_the_published_cells_have_their_own_length():
    published = configs("bitseq/sweeps/published.sh", SEEDS="1")
    assert [config["num_iterations"] for config in published] == [600, 300, 975, 325]


def test_a_line_runs(tmp_path):
    (line,) = lines(FIGURE, SCALE="1e-9", OBJECTIVES="db", OUTPUT_DIR=str(tmp_path), **ONE)
    (run,) = run_tiny(line, tmp_path, f"{TINY} --device cpu --kernels torch", sys.executable)
    assert (run / "metrics.csv").read_text().splitlines()[-1].startswith("1,16,")
