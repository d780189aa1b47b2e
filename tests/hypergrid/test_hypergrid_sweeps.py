"""The sweeps print the runs that they promise."""

import sys

from each import each
from sweeps import config_of, configs, lines, run_tiny

from hypergrid.suite import IDENTITY

FIGURE, APPENDIX = "hypergrid/sweeps/figure1.sh", "hypergrid/sweeps/appendix.sh"
CONFIG = "hypergrid/experiments/config"
OBJECTIVES = ("munchausen_dqn", "db", "tb", "subtb")
ONE = {"SEEDS": "7", "ENVIRONMENTS": "hard", "OBJECTIVES": "tb", "APPROACHES": "tlm"}
DECAY, TARGET, UNIFORM = "algo.backward_learning_rate_decay", "algo.target_decay", "algo.zero_initialisation"


def cell(config) -> tuple:
    return tuple(config[IDENTITY[name]] for name in ("seed", "environment", "objective", "approach"))


def test_figure_1_is_every_cell_once_in_the_promised_order_at_the_papers_settings():
    figure = configs(FIGURE)
    assert [cell(config) for config in figure] == [
        (seed, environment, objective, approach)
        for seed in (1, 2, 3, 4)
        for environment in ("standard", "hard")
        for objective in OBJECTIVES
        for approach in ("uniform", "naive", "maxent", "tlm", "pessimistic")
    ]
    for config in figure:
        seed, environment, objective, approach = cell(config)
        sections = f"--general {CONFIG}/general.py:{seed} --env {CONFIG}/hypergrid.py:{environment}"
        sections += f" --algo {CONFIG}/algo.py:{objective} --algo.backward_approach {approach}"
        shipped = config_of(f"python hypergrid/run_hypergrid_exp.py {sections}")
        assert config == shipped | {"general.if_exists": "resume"}


@each(
    "scale,trajectories,every",
    [("1", 1_000_000, 100), ("0.1", 100_000, 100), ("1e-2", 10_000, 13), (".001", 1_008, 2), ("0.000001", 16, 1)],
)
def test_scale_rounds_iterations_up_and_keeps_the_points(scale, trajectories, every):
    (config,) = configs(FIGURE, SCALE=scale, OUTPUT_DIR="/some/where", **ONE)
    assert cell(config) == (7, "hard", "tb", "tlm") and config["general.output_dir"] == "/some/where"
    assert (config["general.n_trajectories"], config["general.validation_interval"]) == (trajectories, every)


def test_the_appendix_has_one_technique_off_at_a_time():
    figure = {cell(config): config for config in configs(FIGURE)}
    n_off = {objective: [] for objective in OBJECTIVES}
    for config in configs(APPENDIX):
        own = figure[cell(config)]
        off = {name: value for name, value in config.items() if value != own[name]}
        assert off in ({}, {DECAY: 1.0}, {TARGET: 0.0}, {UNIFORM: False})
        n_off[config["algo.name"]] += [*off]
    assert n_off.pop("munchausen_dqn") == 8 * [DECAY, UNIFORM]
    assert all(off == 8 * [DECAY, TARGET, UNIFORM] for off in n_off.values())
    assert len(lines(APPENDIX, SEEDS="1", ENVIRONMENTS="hard", TECHNIQUES="target")) == 7


def test_the_published_cells_are_ten_at_their_own_length():
    published = configs("hypergrid/sweeps/published.sh", SEEDS="1")
    assert len(published) == 10 and {c["env.height"] for c in published if c["algo.name"] == "tb"} == {8}
    assert {config["general.n_trajectories"] for config in published} == {24_000, 32_000, 35_200, 80_000}


def test_a_line_runs(tmp_path):
    (line,) = lines(FIGURE, SCALE="1e-6", OUTPUT_DIR=str(tmp_path), **ONE)
    (run,) = run_tiny(line, tmp_path, "--env.ndim=2 --env.height=8", sys.executable)
    assert (run / "metrics.csv").read_text().splitlines()[-1].startswith("1,16,")
