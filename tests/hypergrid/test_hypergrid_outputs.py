"""What is made of finished runs: torchgfn estimators, the tidy CSV, the report, the pictures."""

import csv
import json
from pathlib import Path

import pytest
import torch
from each import each
from gfn.gym import HyperGrid
from gfn.samplers import Sampler

import hypergrid
from hypergrid import plots
from hypergrid.analysis import collect, report
from hypergrid.common.terminal import ExperimentError
from hypergrid.evaluation import forward_probabilities
from hypergrid.run_hypergrid_exp import main
from hypergrid.torchgfn.estimators import load_agent

CONFIGS = Path(hypergrid.__file__).parent / "experiments" / "config"


def tiny_run(folder, algorithm, approach, *extra, seed=3):
    argv = ["run", "--general", f"{CONFIGS}/general.py:{seed}", "--env", f"{CONFIGS}/hypergrid.py:standard"]
    argv += ["--algo", f"{CONFIGS}/algo.py:{algorithm}", f"--algo.backward_approach={approach}", "--env.ndim=2"]
    argv += ["--env.height=4", "--algo.hidden_width=16", "--general.n_trajectories=160", "--general.device=cpu"]
    argv += ["--general.validation_interval=1", f"--general.output_dir={folder}", *extra]
    if "dqn" in algorithm:
        argv += ["--algo.start_learning=1", "--algo.replay_batch_size=8"]
    before = set(Path(folder).rglob("config.json"))
    assert main(argv) == 0
    (config,) = set(Path(folder).rglob("config.json")) - before
    return config.parent


@each(
    "algorithm,approach",
    [("tb", "uniform"), ("db", "tlm"), ("subtb", "maxent"), ("soft_dqn", "naive"), ("munchausen_dqn", "pessimistic")],
)
def test_a_run_loads_as_torchgfn_estimators(algorithm, approach, tmp_path):
    run = tiny_run(tmp_path, algorithm, approach)
    forward, backward, log_flow = hypergrid.load_estimators(run)
    agent = load_agent(run)
    environment = agent.environment
    states = environment.gfn.all_states
    expected = torch.from_numpy(forward_probabilities(agent.policies, environment, agent.coefficient)).float()
    probabilities = forward.to_probability_distribution(states, forward(states)).probs
    torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=1e-4)
    later = states[1:]  # the initial state has no parent
    got = backward.to_probability_distribution(later, backward(later)).probs
    wanted = agent.policies.backward.log_probs(later.tensor).exp()
    torch.testing.assert_close(got, wanted.detach(), atol=1e-5, rtol=1e-4)
    if algorithm == "tb":
        assert log_flow is None
    else:
        initial = log_flow(environment.gfn.reset(batch_shape=(1,))).item()
        assert initial == pytest.approx(agent.estimated_log_z(), abs=1e-5)
    trajectories = Sampler(forward).sample_trajectories(environment.gfn, n=50)
    assert trajectories.terminating_states.tensor.shape == (50, 2)


def test_a_run_from_before_a_free_field_loads(tmp_path):
    path = tiny_run(tmp_path, "tb", "uniform") / "config.json"
    config = json.loads(path.read_text())
    del config["general"]["kernels"]
    path.write_text(json.dumps(config))
    assert load_agent(path.parent).n_steps > 0


def test_the_environment_of_a_run_is_torchgfns_with_the_runs_reward(tmp_path):
    run = tiny_run(tmp_path, "tb", "uniform", "--env.height=11")
    environment = hypergrid.load_environment(run)
    assert isinstance(environment, HyperGrid)
    expected = load_agent(run).environment.log_rewards.exp()
    torch.testing.assert_close(environment.reward(environment.all_states), expected)
    trajectories = Sampler(hypergrid.load_estimators(run).forward).sample_trajectories(environment, n=5)
    assert trajectories.terminating_states.tensor.shape == (5, 2)


def test_what_is_no_run_has_no_estimators(tmp_path):
    for load in (hypergrid.load_estimators, hypergrid.load_environment):
        with pytest.raises(ExperimentError, match=r"config\.json and checkpoint\.pt"):
            load(tmp_path)
    (tmp_path / "config.json").write_text('{"n": 8}')
    with pytest.raises(ExperimentError, match="is no run of the hypergrid"):
        hypergrid.load_environment(tmp_path)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_collect_keeps_what_identifies_a_run_and_its_last_row(tmp_path):
    tiny_run(tmp_path / "runs", "tb", "tlm")
    tiny_run(tmp_path / "runs", "db", "uniform")
    out = tmp_path / "all.csv"
    assert collect.main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    rows = rows_of(out)
    assert {(row["suite"], row["environment"], row["objective"], row["approach"], row["seed"]) for row in rows} == {
        ("hypergrid", "standard", "tb", "tlm", "3"),
        ("hypergrid", "standard", "db", "uniform", "3"),
    }
    assert [row["step"] for row in rows if row["objective"] == "tb"] == [str(step) for step in range(1, 11)]
    assert all(row["results_version"] == "1" and row["learning_rate"] == "0.001" for row in rows)


def test_collect_thins_long_runs_and_keeps_the_last_row(tmp_path):
    tiny_run(tmp_path / "runs", "tb", "uniform", "--general.n_trajectories=700", "--general.n_envs=1")
    out = tmp_path / "all.csv"
    collect.main([str(tmp_path / "runs"), "--out", str(out)])
    steps = [int(row["step"]) for row in rows_of(out)]
    assert len(steps) == 200 and steps[-1] == 700 and steps == sorted(set(steps))


def test_collect_refuses_runs_that_differ_in_more_unless_told(tmp_path, capsys):
    tiny_run(tmp_path / "runs", "tb", "tlm")
    tiny_run(tmp_path / "runs", "tb", "tlm", "--algo.target_decay=0.5")
    out = tmp_path / "all.csv"
    assert collect.main([str(tmp_path / "runs"), "--out", str(out)]) == 2
    assert "differ in algo.target_decay" in capsys.readouterr().err
    assert not out.exists()
    assert collect.main([str(tmp_path / "runs"), "--out", str(out), "--varying", "algo.target_decay"]) == 0
    assert collect.main([str(tmp_path / "nowhere"), "--out", str(out)]) == 2


def test_the_report_replaces_its_section_alone():
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    new = report.replace_section(page, "| new |")
    assert new.startswith("before\n") and new.endswith("\nafter\n")
    assert "| new |" in new and "old" not in new
    assert report.replace_section(new, "| new |") == new
    with pytest.raises(ExperimentError, match="markers"):
        report.replace_section("no markers", "| new |")


def test_several_runs_in_one_picture(tmp_path, capsys):
    runs = [str(tiny_run(tmp_path / "runs", "munchausen_dqn", approach)) for approach in ("tlm", "uniform")]
    out = tmp_path / "picture.png"
    assert plots.main([*runs, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    other = str(tiny_run(tmp_path / "runs", "tb", "tlm", "--env.height=5"))
    assert plots.main([runs[0], other, "--out", str(out)]) == 2
    assert "different environments" in capsys.readouterr().err
    assert plots.main([str(tmp_path), "--out", str(out)]) == 2
    (Path(runs[0]) / "config.json").write_text("{")
    assert plots.main([*runs, "--out", str(out)]) == 2
    assert "config.json is damaged" in capsys.readouterr().err
