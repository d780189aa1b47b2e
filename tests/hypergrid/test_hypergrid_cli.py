"""The command line: the promised commands, every field, and one clear sentence for whatever is wrong."""

import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from each import each
from suites import HYPERGRID, only_run, refused

import hypergrid
from hypergrid import settings
from hypergrid.common.run_folder import read_metrics
from hypergrid.run_hypergrid_exp import main

SUITE = Path(hypergrid.__file__).parent
CONFIGS = SUITE / "experiments" / "config"
ALGORITHMS = ("tb", "db", "subtb", "soft_dqn", "munchausen_dqn")


def command(algorithm="tb", *extra, seed="3", environment="standard"):
    argv = ["run", "--general", f"{CONFIGS}/general.py:{seed}", "--env", f"{CONFIGS}/hypergrid.py:{environment}"]
    return [*argv, "--algo", f"{CONFIGS}/algo.py:{algorithm}", *extra]


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
    (
        ["--algo.backward_approach=uniform", "--algo.backward_learning_rate=0.1"],
        "--algo.backward_learning_rate has no effect with --algo.backward_approach uniform: leave it out",
    ),
    (["--algo.backward_approach=naive", "--algo.backward_learning_rate_decay=1"], "has no effect with"),
    (["--algo.backward_approach=maxent", "--algo.zero_initialisation=false"], "has no effect with"),
    (["--algo.backward_approach=uniform", "--algo.tied_trunk=false"], "has no effect with"),
    (["--algo.backward_approach=naive", "--algo.update_order=forward_first"], "has no effect with"),
    (["--algo.backward_approach=pessimistic", "--algo.target_decay=0.5"], "has no effect on tb and pessimistic"),
    (["--algo.learning_rate"], "expected one argument"),
    (["--nonsense"], "nonsense"),
    (["stray"], "unknown argument stray"),
]


def refused_here(argv, message, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    refused(main, argv, message, folder, capsys)


@each("extra,message", BAD)
def test_bad_values_get_one_sentence(extra, message, tmp_path, monkeypatch, capsys):
    refused_here(command("tb", *extra), message, tmp_path, monkeypatch, capsys)


BAD_COMMANDS = [
    (command(seed="x"), "the seed is 'x'"),
    (command(seed="0"), "the seed is '0'"),
    (command(environment="soft"), "one of standard, hard"),
    (command("ppo"), "one of tb, db, subtb, soft_dqn, munchausen_dqn, perfect, uniform"),
    (command("perfect", "--algo.backward_approach=tlm"), "algo.backward_approach has no effect on 'perfect'"),
    (command("perfect", "--env.ndim=8"), "perfect draws from a list of all states"),
    (command("munchausen_dqn", "--algo.m_alpha=1"), "input should be"),
    (
        command("munchausen_dqn", "--algo.m_alpha=0", "--algo.m_l0=-3"),
        "--algo.m_l0 has no effect with --algo.m_alpha 0: leave it out",
    ),
    (
        command("soft_dqn", "--algo.replay_priority_exponent=0", "--algo.replay_importance_exponent=0.5"),
        "--algo.replay_importance_exponent has no effect with --algo.replay_priority_exponent 0: leave it out",
    ),
    (command("soft_dqn", "--general.n_trajectories=256"), "nothing is learned in 16 iterations"),
    (command("soft_dqn", "--algo.m_alpha=0.5"), "algo.m_alpha has no effect on 'soft_dqn'"),
    (["run"], "the following arguments are required: --general"),
    (["run", "--general"], "argument --general: expected one argument"),
    (["run", "--general", "nowhere.py:1", *command()[3:]], "no Python file nowhere.py"),
]


@each("argv,message", BAD_COMMANDS)
def test_bad_commands_get_one_sentence(argv, message, tmp_path, monkeypatch, capsys):
    refused_here(argv, message, tmp_path, monkeypatch, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_refused(tmp_path, monkeypatch, capsys):
    refused_here(command("tb", "--general.device=cuda"), "no usable GPU", tmp_path, monkeypatch, capsys)


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
    refused_here(argv, message, folder, monkeypatch, capsys)


@each("objective", ["tb", "munchausen_dqn"])
def test_a_grid_too_large_to_list_trains_with_the_metrics_that_need_no_list(objective, tmp_path, capsys):
    run = HYPERGRID.run(objective, tmp_path, **{"env.ndim": 8, "env.height": 20})
    assert "a grid of 2.56e+10 states is not listed" in capsys.readouterr().err
    metrics = read_metrics(run)
    for column in ("mean_log_reward", "modes_visited", "log_z_error"):
        assert all(map(math.isfinite, metrics[column]))
    for column in ("l1_dist", "l1_floor", "exact_total_variation"):
        assert not any(map(math.isfinite, metrics[column]))
    assert (run / "curves.png").is_file() and not (run / "distribution.png").exists()


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
    assert (a.replay_capacity, a.replay_batch_size) == (100_000, 256)
    assert (a.replay_priority_exponent, a.replay_importance_exponent) == (0.5, 0.0)
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


def test_a_run_that_differs_in_much_still_has_a_folder():
    """A file system takes names of up to 255 bytes."""
    algo = "hidden_width=128 hidden_layers=3 learning_rate=0.0125 target_decay=0.9 tied_trunk=false"
    more = "update_order=forward_first gradient_clipping=0.5 zero_initialisation=false log_z_learning_rate=0.25"
    words = [f"--algo.{word}" for word in f"{algo} {more}".split()]
    folders = [settings.run_directory(settings.parse(command("tb", *words, *last))) for last in ([], ["--env.ndim=3"])]
    rates = [["--algo.backward_learning_rate=0.5"], ["--algo.backward_learning_rate=0.25"]]
    folders += [settings.run_directory(settings.parse(command("tb", *words, *last))) for last in rates]
    assert all(len(part.encode()) <= 255 for folder in folders for part in folder.parts)
    assert len(set(folders)) == 4


PROMISED = (
    "python run_hypergrid_exp.py --general experiments/config/general.py:3"
    " --env experiments/config/hypergrid.py:standard --algo experiments/config/algo.py:munchausen_dqn"
    " --algo.backward_approach "
)


@pytest.mark.parametrize(  # both places and both approaches; the slow ones are the rest of the product
    "approach,from_root",
    [
        ("tlm", False),
        ("uniform", True),
        pytest.param("tlm", True, marks=pytest.mark.slow),
        pytest.param("uniform", False, marks=pytest.mark.slow),
    ],
)
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
