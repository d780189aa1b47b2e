"""What is made of finished runs: torchgfn estimators, one picture of several, a full disk's old one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from each import each
from gfn.gym import HyperGrid
from gfn.samplers import Sampler
from suites import HYPERGRID, quicken

import hypergrid
from hypergrid import plots, slices
from hypergrid.common.terminal import ExperimentError
from hypergrid.evaluation import forward_probabilities
from hypergrid.torchgfn.estimators import load_agent


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quicken(monkeypatch)


@each(
    "algorithm,approach",
    [("tb", "uniform"), ("db", "tlm"), ("subtb", "maxent"), ("soft_dqn", "naive"), ("munchausen_dqn", "pessimistic")],
)
def test_a_run_loads_as_torchgfn_estimators(algorithm, approach, tmp_path):
    run = HYPERGRID.run(algorithm, tmp_path, backward_approach=approach)
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
    path = HYPERGRID.run("tb", tmp_path) / "config.json"
    config = json.loads(path.read_text())
    del config["general"]["kernels"]
    path.write_text(json.dumps(config))
    assert load_agent(path.parent).n_steps > 0


def test_the_environment_of_a_run_is_torchgfns_with_the_runs_reward(tmp_path):
    run = HYPERGRID.run("tb", tmp_path, **{"env.height": 11})
    environment = hypergrid.load_environment(run)
    assert isinstance(environment, HyperGrid)
    expected = load_agent(run).environment.log_rewards.exp()
    torch.testing.assert_close(environment.reward(environment.all_states), expected)
    trajectories = Sampler(hypergrid.load_estimators(run).forward).sample_trajectories(environment, n=5)
    assert trajectories.terminating_states.tensor.shape == (5, 2)


def test_loading_a_run_leaves_the_callers_draws_alone(tmp_path):
    run = HYPERGRID.run("db", tmp_path)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    hypergrid.load_estimators(run)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_on_a_grid_too_large_to_list_loads_and_has_no_distances_to_draw(tmp_path, monkeypatch, capsys):
    for module in ("environment", "torchgfn.estimators"):
        monkeypatch.setattr(f"hypergrid.{module}.MAX_ENUMERATED", 8)
    run = HYPERGRID.run("db", tmp_path)
    environment = hypergrid.load_environment(run)
    assert environment.all_states is None and environment.log_partition() == pytest.approx(
        load_agent(run).environment.log_z
    )
    assert plots.main([str(run), "--out", str(tmp_path / "picture.png")]) == 2
    assert "is of a grid too large to list" in capsys.readouterr().err
    assert slices.main([str(run), "--out", str(tmp_path / "slices.csv")]) == 2
    assert "is of a grid too large to list" in capsys.readouterr().err


def test_what_is_no_run_has_no_estimators(tmp_path):
    for load in (hypergrid.load_estimators, hypergrid.load_environment):
        with pytest.raises(ExperimentError, match="is not a run folder: name one"):
            load(tmp_path)
    (tmp_path / "config.json").write_text('{"n": 8}')
    with pytest.raises(ExperimentError, match="is not a run of the hypergrid"):
        hypergrid.load_environment(tmp_path)


def test_several_runs_in_one_picture(tmp_path, capsys):
    approaches = ("tlm", "uniform")
    runs = [str(HYPERGRID.run("munchausen_dqn", tmp_path / name, backward_approach=name)) for name in approaches]
    out = tmp_path / "picture.png"
    assert plots.main([*runs, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    other = str(HYPERGRID.run("tb", tmp_path / "other", **{"env.height": 5}))
    assert plots.main([runs[0], other, "--out", str(out)]) == 2
    assert "different environments" in capsys.readouterr().err
    assert plots.main([str(tmp_path), "--out", str(out)]) == 2
    (Path(runs[0]) / "config.json").write_text("{")
    assert plots.main([*runs, "--out", str(out)]) == 2
    assert "config.json is damaged" in capsys.readouterr().err


def test_the_slice_that_a_model_lacks_is_found(grid):
    true = grid(3, 8).true_distribution
    lacking = true.reshape(8, 8, 8).copy()
    lacking[:, 6] /= 4
    masses = [slices.slice_masses(table, 3, 8) for table in (lacking / lacking.sum(), true)]
    assert masses[0][0, 2] == pytest.approx((lacking[2] / lacking.sum()).sum())
    coordinate, value, part = slices.least_served(*masses)
    assert (coordinate, value) == (2, 6) and part == pytest.approx(0.25 / lacking.sum())


def test_a_slice_of_little_mass_does_not_count():
    learned, true = np.array([[0.4, 0.6, 0.0]]), np.array([[0.5, 0.497, 0.003]])
    assert slices.least_served(learned, true) == (1, 0, 0.8)


def test_a_line_a_run_of_what_it_lacks(tmp_path, capsys):
    run = HYPERGRID.run("subtb", tmp_path / "one", backward_approach="tlm")
    out = tmp_path / "slices.csv"
    assert slices.main([str(run), "--out", str(out)]) == 0
    header, line = (text.split(",") for text in out.read_text().splitlines())
    row = dict(zip(header, line, strict=True))
    assert (row["objective"], row["approach"], row["seed"]) == ("subtb", "tlm", run.name.split("=")[1])
    agent = load_agent(run)
    learned, true = (p.reshape(4, 4) for p in (agent.exact_distribution(), agent.environment.true_distribution))
    parts = np.stack([learned.sum(1) / true.sum(1), learned.sum(0) / true.sum(0)])
    assert float(row["part_of_its_due"]) == pytest.approx(parts.min(), abs=1e-3)
    assert (int(row["coordinate"]) - 1, int(row["value"])) == np.unravel_index(parts.argmin(), parts.shape)
    assert float(row["exact_total_variation"]) == pytest.approx(abs(learned - true).sum() / 2, abs=1e-4)


def test_lines_of_other_runs_stay(tmp_path, capsys):
    run, out = HYPERGRID.run("subtb", tmp_path / "one"), tmp_path / "slices.csv"
    assert slices.main([str(run), "--out", str(out)]) == 0
    other, written = HYPERGRID.run("db", tmp_path / "two"), out.read_text()
    assert slices.main([str(other), str(run), "--out", str(out)]) == 0
    assert sorted(written.splitlines()) == sorted(line for line in out.read_text().splitlines() if ",db," not in line)
    assert out.read_text().count(",db,") == 1
    before = out.read_text()
    (other / "checkpoint.pt").write_text("torn")
    assert slices.main([str(other), "--out", str(out)]) == 2
    assert out.read_text() == before
    out.write_text(written.rpartition(",")[0] + ",9\n")
    assert slices.main([str(run), "--out", str(out)]) == 2
    assert "is there twice, with different numbers: name one" in capsys.readouterr().err
    out.write_text("environment,objective\n")
    assert slices.main([str(run), "--out", str(out)]) == 2
    assert "is not a CSV of this command: name another --out" in capsys.readouterr().err


def test_pictures_that_do_not_fit_on_the_disk_leave_the_old_ones(tmp_path, small_disk, monkeypatch, capsys):
    run = HYPERGRID.run("tb", tmp_path)
    (run / "DONE").unlink()
    (run / "curves.png").write_text("old")
    monkeypatch.undo()  # pictures again
    with small_disk(20_000):
        assert HYPERGRID.main(HYPERGRID.argv("tb", tmp_path, if_exists="resume")) == 2
    assert "curves.png (File too large)" in capsys.readouterr().err
    assert (run / "curves.png").read_text() == "old"
    assert not list(run.glob("*.partial")) and not (run / "DONE").exists()
