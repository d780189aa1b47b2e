"""The command line: the promised commands, every field, and one clear sentence for whatever is wrong."""

import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from each import each

import hypergrid
from hypergrid import plots, settings
from hypergrid.agents.table import COLUMNS
from hypergrid.common.run_folder import COMMON_COLUMNS, read_metrics
from hypergrid.run_hypergrid_exp import main

SUITE = Path(hypergrid.__file__).parent
CONFIGS = SUITE / "experiments" / "config"
ALGORITHMS = ("tb", "db", "subtb", "soft_dqn", "munchausen_dqn")
APPROACHES = ("uniform", "naive", "maxent", "tlm", "pessimistic")
TINY = ["--env.ndim=2", "--env.height=4", "--general.n_trajectories=64", "--general.n_envs=8"]
TINY += ["--general.validation_interval=2", "--general.exact_interval=4", "--general.device=cpu"]
SMALL_NETWORK = ["--algo.hidden_width=16"]
SMALL_REPLAY = ["--algo.start_learning=1", "--algo.replay_batch_size=8"]


def command(algorithm="tb", *extra, seed="3", environment="standard"):
    argv = ["run", "--general", f"{CONFIGS}/general.py:{seed}", "--env", f"{CONFIGS}/hypergrid.py:{environment}"]
    return [*argv, "--algo", f"{CONFIGS}/algo.py:{algorithm}", *extra]


def tiny_command(algorithm, folder, *extra):
    argv = [*TINY, f"--general.output_dir={folder}"]
    argv += SMALL_NETWORK if algorithm in ALGORITHMS else []
    argv += SMALL_REPLAY if "dqn" in algorithm else []
    return command(algorithm, *argv, *extra)


def only_run(folder):
    (config,) = Path(folder).rglob("config.json")
    return config.parent


BAD = [
    (["--algo.learning_rat=1"], "did you mean --algo.learning_rate?"),
    (["--algo.learning_rate=abc"], "algo.learning_rate is 'abc': input should be"),
    (["--algo.learning_rate=-1"], "input should be"),
    (["--algo.learning_rate=nan"], "input should be"),
    (["--general.n_envs=1.5"], "input should be"),
    (["--general.n_envs=0"], "input should be"),
    (["--general.n_trajectories=-16"], "input should be"),
    (["--general.threads=0"], "input should be"),
    (["--general.seed=0"], "input should be"),
    (["--general.device=tpu"], "input should be"),
    (["--general.if_exists=maybe"], "input should be"),
    (["--env.height=2"], "input should be"),
    (["--env.ndim=0"], "input should be"),
    (["--env.R0=0"], "input should be"),
    (["--env.ndim=20"], "too large"),
    (["--env.name=../elsewhere"], "should match pattern"),
    (["--algo.backward_approach=tml"], "input should be"),
    (["--algo.backward_learning_rate_decay=1.5"], "input should be"),
    (["--algo.target_decay=1"], "input should be"),
    (["--algo.tied_trunk=maybe"], "input should be"),
    (["--algo.name=db"], "take algo.py:db"),
    (["--algo.learning_rate"], "expected one argument"),
    (["--nonsense"], "nonsense"),
    (["stray"], "unknown argument stray"),
]


@each("extra,message", BAD)
def test_bad_values_get_one_sentence(extra, message, tmp_path, monkeypatch, capsys):
    refused(command("tb", *extra), message, tmp_path, monkeypatch, capsys)


BAD_COMMANDS = [
    (command(seed="x"), "the seed is 'x'"),
    (command(seed="0"), "the seed is '0'"),
    (command(environment="soft"), "one of standard, hard"),
    (command("ppo"), "one of tb, db, subtb, soft_dqn, munchausen_dqn, perfect, uniform"),
    (command("perfect", "--algo.backward_approach=tlm"), "algo.backward_approach has no effect on 'perfect'"),
    (command("perfect", "--env.ndim=8"), "perfect draws from a list of all states"),
    (command("munchausen_dqn", "--algo.m_alpha=1"), "input should be"),
    (command("soft_dqn", "--algo.m_alpha=0.5"), "algo.m_alpha has no effect on 'soft_dqn'"),
    (["run"], "the following arguments are required: --general"),
    (["run", "--general"], "argument --general: expected one argument"),
    (["run", "--general", "nowhere.py:1", *command()[3:]], "no Python file nowhere.py"),
]


@each("argv,message", BAD_COMMANDS)
def test_bad_commands_get_one_sentence(argv, message, tmp_path, monkeypatch, capsys):
    refused(argv, message, tmp_path, monkeypatch, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_refused(tmp_path, monkeypatch, capsys):
    refused(command("tb", "--general.device=cuda"), "no usable GPU", tmp_path, monkeypatch, capsys)


def refused(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("config.tau = 1", "algo.tau is 1: extra inputs are not permitted"),
        ("del config['learning_rate']", "algo.learning_rate is missing"),
    ],
)
def test_a_users_file_is_checked(change, message, tmp_path, monkeypatch, capsys):
    own = tmp_path / "own.py"
    own.write_text(
        "from hypergrid.experiments.config import algo\n"
        f"def get_config(name='tb'):\n    config = algo.get_config(name)\n    {change}\n    return config\n"
    )
    folder = tmp_path / "empty"
    folder.mkdir()
    argv = command("tb")
    argv[argv.index("--algo") + 1] = str(own)
    refused(argv, message, folder, monkeypatch, capsys)


@each("objective", ["tb", "munchausen_dqn"])
def test_a_grid_too_large_to_list_trains_with_the_metrics_that_need_no_list(objective, tmp_path, capsys):
    assert main(tiny_command(objective, tmp_path, "--env.ndim=8", "--env.height=20")) == 0
    assert "a grid of 2.56e+10 states is not listed" in capsys.readouterr().err
    run = only_run(tmp_path)
    metrics = read_metrics(run)
    for column in ("mean_log_reward", "modes_visited", "log_z_error"):
        assert all(map(math.isfinite, metrics[column]))
    for column in ("l1_dist", "l1_floor", "exact_total_variation"):
        assert not any(map(math.isfinite, metrics[column]))
    assert (run / "curves.png").is_file() and not (run / "distribution.png").exists()


def test_an_output_folder_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    assert main(tiny_command("tb", tmp_path / "file")) == 2
    assert "choose another" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


@each("algorithm", [*ALGORITHMS, "perfect", "uniform"])
def test_every_default_comes_back_from_the_command_line(algorithm):
    defaults = settings.parse(command(algorithm))
    for section in ("general", "env", "algo"):
        for field, value in defaults[section].items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            assert settings.parse(command(algorithm, f"--{section}.{field}={text}")).to_dict() == defaults.to_dict()


def test_the_defaults_are_the_papers():
    config = settings.parse(command("munchausen_dqn"))
    assert (config.general.n_trajectories, config.general.n_envs) == (1_000_000, 16)
    assert (config.general.validation_interval, config.general.validation_samples) == (100, 200_000)
    assert (config.env.ndim, config.env.height) == (4, 20)
    assert (config.env.R0, config.env.R1, config.env.R2) == (1e-3, 0.5, 2.0)
    hard = settings.parse(command(environment="hard")).env
    assert (hard.R0, hard.R1, hard.R2) == (1e-4, 1.0, 3.0)
    a = config.algo
    assert (a.learning_rate, a.backward_learning_rate, a.backward_learning_rate_decay) == (1e-3, 1e-3, 0.999)
    assert (a.target_decay, a.zero_initialisation, a.tied_trunk) == (0.75, True, True)
    assert (a.update_order, a.hidden_width, a.hidden_layers) == ("backward_first", 256, 2)
    assert (a.m_alpha, a.m_l0, a.huber_delta, a.start_learning) == (0.15, -100, 1, 16)
    assert (a.replay_capacity, a.replay_batch_size, a.replay_priority_exponent) == (100_000, 256, 0.5)
    assert settings.parse(command("tb")).algo.log_z_learning_rate == 0.1
    assert settings.parse(command("subtb")).algo.subtb_lambda == 0.9


def test_a_grid_runs_on_the_cpu_unless_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert settings.parse(command("db")).general.device == "cpu"
    assert settings.parse(command("db", "--general.device=cuda")).general.device == "cuda"


def test_the_folder_names_what_differs_and_no_more():
    plain = settings.run_directory(settings.parse(command("db")))
    assert plain == Path("runs/hypergrid/standard/db-tlm/seed=3")
    extra = ["--algo.learning_rate=0.01", "--env.height=8", "--general.threads=2", "--general.if_exists=resume"]
    changed = settings.run_directory(settings.parse(command("db", *extra)))
    assert changed == Path("runs/hypergrid/standard-height=8/db-tlm-learning_rate=0.01/seed=3")
    assert settings.run_directory(settings.parse(command("perfect"))).parent.name == "perfect"


CELLS = [(algorithm, approach) for algorithm in ALGORITHMS for approach in APPROACHES]


@each("algorithm,approach", [*CELLS, ("perfect", None), ("uniform", None)])
def test_every_combination_runs_to_a_complete_folder(algorithm, approach, tmp_path, monkeypatch):
    pictures = {"curves.png", "distribution.png"} if approach in ("tlm", None) else set()
    if not pictures:
        monkeypatch.setattr(plots, "draw_run", lambda *_: None)  # it takes longer than the run
    extra = [f"--algo.backward_approach={approach}"] if approach else []
    assert main(tiny_command(algorithm, tmp_path, *extra)) == 0
    run = only_run(tmp_path)
    wanted = {"config.json", "meta.json", "metrics.csv", "checkpoint.pt", "DONE"}
    assert wanted | pictures <= {path.name for path in run.iterdir()}
    metrics = read_metrics(run)
    assert list(metrics) == [*COMMON_COLUMNS, *COLUMNS]
    assert metrics["step"] == [2, 4, 6, 8] and metrics["trajectories"][-1] == 64
    exact = metrics["exact_total_variation"]
    assert exact[0] != exact[0] and exact[1] == exact[1] and exact[3] == exact[3]  # NaN: not due
    if approach == "uniform":
        assert metrics["pb_deviation"] == [0, 0, 0, 0]
    if algorithm == "perfect":
        assert exact[3] == 0
    assert json.loads((run / "meta.json").read_text())["status"] == "done"


def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(tmp_path):
    rows = []
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert main(tiny_command("munchausen_dqn", tmp_path / folder, f"--general.seed={seed}")) == 0
        metrics = read_metrics(only_run(tmp_path / folder))
        rows.append([str(values) for name, values in metrics.items() if name != "wall_s"])
    assert rows[0] == rows[1] != rows[2]


def test_an_existing_run_is_refused_and_a_finished_one_not_repeated(tmp_path, capsys):
    assert main(tiny_command("tb", tmp_path)) == 0
    before = {path: path.read_bytes() for path in only_run(tmp_path).iterdir()}
    capsys.readouterr()
    assert main(tiny_command("tb", tmp_path)) == 2
    assert "--general.if_exists=resume" in capsys.readouterr().err
    assert main(tiny_command("tb", tmp_path, "--general.if_exists=resume")) == 0
    assert "done already" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in only_run(tmp_path).iterdir()} == before


def test_a_loss_that_is_not_finite_names_step_and_checkpoint(tmp_path, monkeypatch, capsys):
    from hypergrid.agents.balance import BalanceAgent

    forward_loss, steps = BalanceAgent.forward_loss, []

    def poisoned(agent, batch):
        steps.append(1)
        loss = forward_loss(agent, batch)
        return loss * float("nan") if len(steps) == 7 else loss

    monkeypatch.setattr(BalanceAgent, "forward_loss", poisoned)
    assert main(tiny_command("db", tmp_path, "--general.checkpoint_interval=4")) == 2
    error = capsys.readouterr().err
    assert "step 7: loss is nan" in error and "checkpoint.pt of step 4" in error and error.count("\n") == 1
    assert read_metrics(only_run(tmp_path))["step"] == [2, 4, 6]


def test_tensorboard_writes_events(tmp_path):
    assert main(tiny_command("tb", tmp_path, "--general.tensorboard=true")) == 0
    assert list((only_run(tmp_path) / "tensorboard").glob("events*"))


def test_wandb_works_offline(tmp_path):
    argv = tiny_command("tb", tmp_path, "--general.wandb_project=test")
    done = launch(argv[1:], SUITE.parent, {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert list((only_run(tmp_path) / "wandb").glob("offline-run-*"))


def launch(arguments, folder, environment=None):
    script = SUITE / "run_hypergrid_exp.py"
    env = os.environ | {"PYTHONPATH": str(SUITE.parent)} | (environment or {})
    return subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )


PROMISED = (
    "python run_hypergrid_exp.py --general experiments/config/general.py:3"
    " --env experiments/config/hypergrid.py:standard --algo experiments/config/algo.py:munchausen_dqn"
    " --algo.backward_approach "
)


@pytest.mark.parametrize("from_root", [False, True])
@pytest.mark.parametrize("approach", ["tlm", "uniform"])
def test_the_promised_commands_work_letter_for_letter(approach, from_root, tmp_path):
    words = shlex.split(PROMISED + approach)[1:]
    if from_root:
        words = [f"hypergrid/{word}" if ".py" in word else word for word in words]
    short = ["--general.n_trajectories=320", f"--general.output_dir={tmp_path}", "--general.exact_interval=0"]
    env = os.environ | {"PYTHONPATH": str(SUITE.parent)}
    folder = SUITE.parent if from_root else SUITE
    done = subprocess.run([sys.executable, *words, *short], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]) == only_run(tmp_path)
