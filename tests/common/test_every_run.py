"""Every objective and approach of every suite: a complete run folder, and a kill that leaves no trace in it."""

import json
import math
from functools import cache
from pathlib import Path

import pytest
from each import APPROACHES, each
from suites import RUNS, SUITES, Suite, checkpoint, each_suite, metrics_without_time, only_run, quicken, require_equal

from hypergrid.common.run_folder import COMMON_COLUMNS, read_metrics

# Eight steps are four, a checkpoint, two more that are lost with the kill, and four again.
OPTIONS = {"num_iterations": 8, "checkpoint_every": 4, "validate_every": 3, "corr_every": 6, "exact_every": 6}
STEPS = [3, 6, 8]
LEARNS_LATER = ("hypergrid", "bitseq")  # with the DQN objectives
OWN_LOSS = {"mols": ("maxent", "tlm", "pessimistic")}  # elsewhere tlm and pessimistic
DUE = {
    "hypergrid": ("exact_l1_dist", "exact_total_variation"),
    "bitseq": ("reward_correlation", "exact_total_variation", "exact_kl"),
    "mols": ("reward_correlation", "reward_correlation_generated"),
}
AT_THE_END = {
    "hypergrid": (),
    "bitseq": ("reward_correlation_uniform",),
    "mols": ("modes_sorted_0.875", "modes_sorted_0.9375", "modes_sorted_1"),
}
NEVER = ("mean_log_reward_perfect", "log_z_error")  # of molecules: trees of two fragments are too many
PICTURES = {
    "hypergrid": {"curves.png", "distribution.png"},
    "bitseq": {"curves.png", "modes.png"},
    "mols": {"curves.png", "top_molecules.png", "modes.csv"},
}
FILES = {"config.json", "meta.json", "metrics.csv", "checkpoint.pt", "DONE", ".lock"}
each_run = each("suite, objective, approach", [(*run, approach) for run in RUNS for approach in APPROACHES])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """``whole(suite, objective, approach)``: the folder of a run that nothing ended before its end, made once."""

    @cache
    def run(suite: Suite, objective: str, approach: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            quicken(patch)
            return suite.run(objective, tmp_path_factory.mktemp("whole"), backward_approach=approach, **OPTIONS)

    return run


@each_run
def test_every_combination_runs_to_a_complete_folder(suite, objective, approach, whole):
    run, name = whole(suite, objective, approach), suite.name
    assert {path.name for path in run.iterdir()} == FILES
    argv = suite.argv(objective, run.parents[3], backward_approach=approach, **OPTIONS)
    config = json.loads((run / "config.json").read_text())
    assert config == suite.module("suite").configuration(["python", *suite.words(argv)])
    assert json.loads((run / "meta.json").read_text())["status"] == "done"
    assert checkpoint(run)["step"] == 8
    metrics = read_metrics(run)
    assert metrics["step"] == STEPS
    assert metrics["trajectories"] == [step * metrics["trajectories"][0] / 3 for step in STEPS]
    filled = {column: [not math.isnan(value) for value in values] for column, values in metrics.items()}
    has_loss = approach in OWN_LOSS.get(name, ("tlm", "pessimistic"))
    learned = [not (name in LEARNS_LATER and "dqn" in objective), True, True]
    assert list(filled)[: len(COMMON_COLUMNS)] == list(COMMON_COLUMNS)
    own = {column: [False, True, True] for column in DUE[name]} | {"loss": learned}
    own |= {column: [False, False, True] for column in AT_THE_END[name]} | {
        "pb_loss": [has_loss and at for at in learned]
    }
    own |= {column: [False] * 3 for column in NEVER if name == "mols"}
    assert filled == {column: own.get(column, [True] * 3) for column in filled} and own.keys() <= filled.keys()
    is_uniform = approach == "uniform" or (name == "bitseq" and approach == "maxent")
    if is_uniform:
        assert metrics["pb_deviation"] == [0, 0, 0]
    else:
        assert metrics["pb_deviation"][-1] > 0
    if is_uniform and name == "bitseq":
        assert metrics["reward_correlation"][-1] == metrics["reward_correlation_uniform"][-1]
    if name == "mols":
        assert all(n <= m for n, m in zip(metrics["rewards_evaluated"], metrics["trajectories"], strict=True))


@each_run
def test_a_kill_leaves_no_trace(suite, objective, approach, whole, tmp_path, monkeypatch):
    quicken(monkeypatch)
    agent_class, calls = suite.module("agents.base").LearningAgent, []
    sample, argv = agent_class.sample, suite.argv(objective, tmp_path, backward_approach=approach, **OPTIONS)

    def killed(agent):
        calls.append(1)
        if len(calls) == 7:
            raise SystemExit("killed")
        return sample(agent)

    with monkeypatch.context() as patch:
        patch.setattr(agent_class, "sample", killed)
        with pytest.raises(SystemExit):
            suite.main(argv)
    assert metrics_without_time(tmp_path)["step"] == "[3.0, 6.0]"
    assert checkpoint(tmp_path)["step"] == 4
    assert suite.main([*argv, f"{suite.flag}=resume"]) == 0
    require_equal(tmp_path, whole(suite, objective, approach))


@each_suite
def test_a_run_has_its_pictures_and_says_where(suite, tmp_path, monkeypatch, capsys):
    draw_run = suite.module("plots").draw_run
    quicken(monkeypatch)
    monkeypatch.setattr(suite.module("plots"), "draw_run", draw_run)
    run = suite.run(suite.objectives[-1], tmp_path)
    assert {path.name for path in run.iterdir()} == FILES | PICTURES[suite.name]
    assert capsys.readouterr().out.splitlines()[-1] == str(run)


@each("name", ["perfect", "uniform"])
def test_a_reference_of_the_grid_runs_to_a_complete_folder(name, tmp_path, monkeypatch):
    quicken(monkeypatch)
    hypergrid = SUITES[0]
    argv = [word for word in hypergrid.argv(name, tmp_path) if "hidden_width" not in word and "approach" not in word]
    assert hypergrid.main(argv) == 0
    run = only_run(tmp_path)
    assert {path.name for path in run.iterdir()} == FILES
    assert name == "uniform" or read_metrics(run)["exact_total_variation"][-1] == 0
