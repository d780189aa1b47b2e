"""The QM9 task: the promised command and its run folder, its options beside sEH's, refusals, the benchmark."""

import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from each import each, each_algo
from small_runs import SUITE, command, refused, without_pictures
from suites import metrics_without_time, only_run
from test_mols_benchmark import require_table
from test_mols_fields import EVERYWHERE, OWN

from mols import benchmark, settings, suite
from mols.agents import base as learning
from mols.analysis import collect
from mols.common import provenance
from mols.common.options import option
from mols.common.run_folder import COMMON_COLUMNS, read_metrics
from mols.molecules import qm9 as data
from mols.rewards.gap import proxy as gap_proxy
from mols.rewards.mxmnet import gaps as mxmnet_gaps
from mols.rewards.mxmnet.network import MXMNet
from mols.tasks import qm9, sample, seh_frag
from mols.tasks import run as run_module
from mols.tasks.qm9 import main

SMALL = shlex.split("--width 16 --n_layers 1 --n_heads 1 --batch_size 4 --n 2 --max_atoms 3 --corr_rounds 1")
SMALL += shlex.split("--corr_molecules 9 --device cpu --threads 1")
COLUMNS = [
    "modes_found_1.125", "modes_found_1.1875", "modes_found_1.25", "mean_reward", "mean_log_reward",
    "invalid_share", "top_100_reward", "top_100_diversity", "rewards_evaluated", "reward_correlation",
    "reward_correlation_generated", "mean_log_reward_perfect", "log_z_error",
    "modes_sorted_1.125", "modes_sorted_1.1875", "modes_sorted_1.25",
]  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(learning, "N_GENERATED", 6)
    monkeypatch.setattr(provenance, "_library_versions", dict)


@pytest.fixture
def no_pictures(monkeypatch):
    without_pictures(monkeypatch)


def small(folder, *extra):
    """The arguments of a small run."""
    return [*SMALL, "--output_dir", str(folder), *extra]


# The command


PROMISED = "python -m mols.tasks.qm9 --seed 1 --algo dqn --lr 5e-4 --backward_approach tlm"
SHORT = "--n 2 --batch_size 4 --width 16 --n_layers 1 --corr_every 0"


def test_the_promised_command_works_letter_for_letter_and_needs_no_data(tmp_path):
    words = shlex.split(f"{PROMISED} {SHORT}")[1:]
    env = {name: value for name, value in os.environ.items() if name != "GFLOWNET_TLM_DATA"}
    env |= {"PYTHONPATH": str(SUITE.parent), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    argv = [sys.executable, *words, "--output_dir", str(tmp_path / "runs")]
    done = subprocess.run(argv, cwd=SUITE.parent, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "mols" / "qm9" / f"dqn-tlm-{folder_part(SHORT)}" / "seed=1"
    assert only_run(tmp_path / "runs") == run == Path(done.stdout.splitlines()[-1])
    names = "config.json meta.json metrics.csv checkpoint.pt DONE .lock curves.png top_molecules.png modes.csv"
    assert {path.name for path in run.iterdir()} == set(names.split())
    for name in ("curves.png", "top_molecules.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    assert (run / "modes.csv").read_text().splitlines()[0] == "smiles,reward,step"
    config = json.loads((run / "config.json").read_text())
    expected = {"algo": "dqn", "backward_approach": "tlm", "lr": 5e-4, "seed": 1, "max_atoms": 8, "m_alpha": 0.15}
    assert config.items() >= (expected | {"environment": "qm9", "proxy": "embedded", "temp": 10.0}).items()
    assert json.loads((run / "meta.json").read_text())["status"] == "done"
    metrics = read_metrics(run)
    assert list(metrics) == [*COMMON_COLUMNS, *COLUMNS]
    assert metrics["step"] == [2] and metrics["trajectories"] == [8]
    assert 1e-4 <= metrics["mean_reward"][0] <= 2 and 0 <= metrics["invalid_share"][0] <= 1
    assert all(math.isnan(metrics[name][0]) for name in COLUMNS if "correlation" in name)


def folder_part(line):
    return line.removeprefix("--").replace(" --", "-").replace(" ", "=")


def test_correlations_are_numbers(tmp_path, no_pictures, capsys):
    """The test set begins with its nine molecules of three atoms."""
    assert main(small(tmp_path)) == 0
    assert "test set" not in capsys.readouterr().out
    metrics = read_metrics(only_run(tmp_path))
    for name in ("reward_correlation", "reward_correlation_generated"):
        assert -1 <= metrics[name][-1] <= 1


def test_molecules_that_cannot_be_built_are_left_out_and_counted(tmp_path, no_pictures, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("mols.common.algorithm.train", lambda agent, *_, **__: seen.append(agent.task))
    assert main(small(tmp_path, "--corr_molecules", "20")) == 0
    assert "test set: 9 of 20 molecules can be built, the others are left out" in capsys.readouterr().out
    (task,) = seen
    expected, _ = data.read_test_set()
    assert len(task.test_states.element) == 9
    assert (
        task._molecules.to_smiles(task.test_states)
        == [  # as RDKit writes them
            task._molecules.to_smiles(task._molecules.from_molecule(text))[0] for text in expected[:9]
        ]
    )
    assert task.thresholds == (1.125, 1.1875, 1.25)


def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(tmp_path, no_pictures):
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(small(tmp_path / folder, "--seed", seed, "--corr_every", "0")) == 0
    one, again, other = (metrics_without_time(tmp_path / folder) for folder in "abc")
    assert one == again and one["loss"] != other["loss"]


# Neutral molecules


def test_a_neutral_run_finds_neutral_molecules_and_knows_the_exact_numbers(tmp_path, no_pictures):
    assert main(small(tmp_path, "--charges", "neutral", "--batch_size", "64")) == 0
    run = only_run(tmp_path)
    assert "-charges=neutral" in run.parent.name
    assert json.loads((run / "config.json").read_text())["charges"] == "neutral"
    smiles = torch.load(run / "checkpoint.pt", weights_only=True)["agent"]["reward"]["smiles"].splitlines()
    assert len(smiles) > 9 and not set("".join(smiles)) & set("+-.")
    metrics = read_metrics(run)
    assert metrics["mean_log_reward_perfect"][-1] > metrics["mean_log_reward"][-1] and metrics["log_z_error"][-1] > 0
    out = tmp_path / "some.csv"
    assert sample.main([str(run), "--n", "5", "--rounds", "0", "--out", str(out)]) == 0
    assert not any(set(line.split(",")[0]) & set("+-.") for line in out.read_text().splitlines())


def test_a_folder_from_before_the_option_is_the_papers(tmp_path, no_pictures, capsys):
    argv = small(tmp_path, "--corr_every", "0")
    assert main(argv) == 0
    path = only_run(tmp_path) / "config.json"
    older = json.loads(path.read_text())
    assert older.pop("charges") == "paper"
    path.write_text(json.dumps(older))
    assert main([*argv, "--if_exists", "resume"]) == 0
    assert capsys.readouterr().out.endswith("is done\n")
    assert sample.read_config(only_run(tmp_path)).charges == "paper"
    older = {name: value for name, value in older.items() if name != "reward"}
    older |= {"width": 128, "n_layers": 8, "max_atoms": 8, "proxy": "embedded"}
    assert collect.identity(older)["environment"] == "qm9"
    assert collect.identity(older | {"charges": "paper"})["environment"] == "qm9"
    assert collect.identity(older | {"charges": "neutral"})["environment"] == "qm9 neutral"
    small_network = collect.identity(older | {"width": 64, "n_layers": 2})["environment"]
    assert small_network == "qm9 width=64 n_layers=2" in suite.SMALL
    assert collect.identity(older | {"reward": "a.b:f", "proxy": ""})["environment"] == "qm9 a.b:f"
    assert collect.identity(older | {"proxy": "surrogate"})["environment"] == "qm9 surrogate"


# How long it takes


def test_a_long_run_says_once_what_it_will_take(tmp_path, no_pictures, monkeypatch, capsys):
    for limit, times in ((12 * 3600, 0), (-1, 1)):
        monkeypatch.setattr(run_module, "LONG_S", limit)
        assert main(small(tmp_path / str(limit), "--corr_every", "0", "--n", "6")) == 0
        out = capsys.readouterr().out
        assert out.count("this will take about 0 min") == out.count("mols/sweeps/seh_small.sh and") == times


# MXMNet


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights."""
    path = tmp_path_factory.mktemp("weights") / "mxmnet.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(MXMNet().state_dict(), path)
    return path


def test_a_run_with_mxmnet_ends_its_workers(weights, tmp_path, no_pictures, monkeypatch):
    made = []

    class Conformers(mxmnet_gaps.ConformerMap):
        """In this process, whatever is asked for."""

        def __init__(self, workers):
            made.append([workers])
            super().__init__(0)

        def close(self):
            made[-1].append("closed")
            super().close()

    monkeypatch.setattr(mxmnet_gaps, "ConformerMap", Conformers)
    argv = ["--corr_every", "0", "--proxy", "mxmnet", "--proxy_weights", str(weights), "--workers", "3"]
    assert main(small(tmp_path / "whole", *argv)) == 0
    metrics, config = read_metrics(only_run(tmp_path)), only_run(tmp_path) / "config.json"
    assert metrics["rewards_evaluated"][-1] > 0 and 1e-4 <= metrics["mean_reward"][-1] <= 2
    assert json.loads(config.read_text())["proxy_weights"] == str(weights)
    assert config.parent.parent.name.endswith("-proxy=mxmnet") or "-proxy=mxmnet-" in config.parent.parent.name

    def interrupt(agent):
        raise KeyboardInterrupt

    monkeypatch.setattr(learning.LearningAgent, "sample", interrupt)
    assert main(small(tmp_path / "broken", *argv)) == 130
    assert made == [[3, "closed"]] * 2


# The options


def parsed(*argv):
    return settings.parse([*argv], qm9.Settings).to_dict()


def test_the_options_are_those_of_seh_but_for_what_is_the_tasks_own():
    mine, theirs = (task.Settings.model_fields for task in (qm9, seh_frag))
    assert mine.keys() - theirs.keys() == {"proxy_weights", "max_atoms", "charges"}
    assert theirs.keys() - mine.keys() == {"data_dir", "test_set", "max_fragments"}
    assert {name for name in mine.keys() & theirs.keys() if repr(mine[name]) != repr(theirs[name])} == {
        "proxy",
        "batch_size",
    }
    assert mine["batch_size"].default == 128


@each_algo
def test_the_defaults_are_the_papers(algo):
    expected = {"algo": algo, "objective": algo, "device": "cpu", **EVERYWHERE, **OWN[algo]}
    expected |= {"environment": "qm9", "batch_size": 128, "proxy": "embedded", "proxy_weights": "", "max_atoms": 8}
    expected["charges"] = "paper"
    for name in ("data_dir", "test_set", "max_fragments"):
        del expected[name]
    assert parsed("--algo", algo, "--device", "cpu") == expected


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ("", "tb-tlm"),
        ("--batch_size 256", "tb-tlm-batch_size=256"),
        ("--max_atoms 5", "tb-tlm-max_atoms=5"),
        ("--charges paper", "tb-tlm"),
        ("--charges neutral", "tb-tlm-charges=neutral"),
        ("--proxy mxmnet --proxy_weights a/b.pt --workers 2", "tb-tlm-proxy=mxmnet"),
    ],
)
def test_the_folder_names_what_differs_and_no_more(words, folder):
    config = settings.parse(shlex.split(words), qm9.Settings)
    assert settings.run_directory(config, qm9.Settings) == Path("runs") / "mols" / "qm9" / folder / "seed=1"


def test_help_and_refusals_do_not_wait_for_pictures_and_molecules():
    code = (
        "import sys; from mols.tasks.qm9 import main; main(['--n', '0']); "
        "print({'matplotlib', 'rdkit', 'scipy', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SUITE.parent, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


# What is refused

BAD = [
    ("--proxy original", "--proxy is 'original': input should be"),
    ("--proxy MXMNet", "input should be"),
    ("--proxy mxmnet", "--proxy mxmnet needs its published weights: name the file by --proxy_weights"),
    ("--proxy mxmnet --proxy_weights none.pt", "none.pt is not there: name a file of weights"),
    ("--proxy mxmnet --proxy_weights damaged.pt", "damaged.pt is not a file of weights"),
    ("--proxy mxmnet --proxy_weights other.pt", "other.pt holds the weights of another network"),
    ("--proxy_weights none.pt", "--proxy_weights has no effect with --proxy embedded: leave it out, or take --proxy"),
    ("--proxy embedded --workers 2", "--workers has no effect with --proxy embedded: leave it out, or take --proxy"),
    ("--workers -1", "input should be"),
    ("--charges positive", "input should be"),
    ("--max_atoms 0", "--max_atoms is '0': input should be"),
    ("--max_atoms 17", "--max_atoms is '17': input should be"),
    ("--max_atoms 8.5", "input should be"),
    ("--max_fragments 3", "unknown argument --max_fragments"),
    ("--data_dir data", "unknown argument --data_dir"),
    ("--test_set generated", "unknown argument --test_set"),
    ("--corr_molecules 1", "1 molecules of the test set can be built: raise --corr_molecules or --max_atoms"),
    ("--max_atoms 2", "0 molecules of the test set can be built: raise --corr_molecules or --max_atoms"),
    ("--algo tb --m_alpha 0.1", "--m_alpha has no effect with --algo tb: leave it out"),
]


@each("line,message", BAD)
def test_bad_values_and_combinations_get_one_sentence(line, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.pt").write_bytes(b"damaged")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    refused(small("runs", *shlex.split(line)), message, tmp_path, capsys, qm9)


def test_atoms_mean_nothing_to_seh(tmp_path, capsys):
    for words in ("--max_atoms 3", "--proxy_weights a.pt"):
        argv = command("tb", tmp_path / "runs", *shlex.split(words))
        refused(argv, f"unknown argument {words.split()[0]}", tmp_path, capsys, seh_frag)


def test_a_damaged_package_is_said(tmp_path, monkeypatch, capsys):
    """The two files that come with it: the network's weights and the test set."""
    argv = small(tmp_path / "runs")
    monkeypatch.setattr(data.read_test_set, "__defaults__", (tmp_path / "none.csv",))
    refused(argv, "is not the QM9 test set", tmp_path, capsys, qm9)
    monkeypatch.setattr(gap_proxy.GapProxy.load.__func__, "__defaults__", (tmp_path / "none.pt", None))
    refused(argv, "fetch it from the repository", tmp_path, capsys, qm9)


# The benchmark


@pytest.fixture
def small_defaults(monkeypatch):
    """The task's defaults are small."""

    class Small(qm9.Settings):
        """Smaller."""

        width: int = option(16, "")
        n_layers: int = option(1, "")
        n_heads: int = option(1, "")
        max_atoms: int = option(3, "")

    monkeypatch.setattr(qm9, "Settings", Small)
    monkeypatch.setattr(benchmark, "BATCH", 4)


def test_the_benchmark_prints_its_table(small_defaults, capsys):
    argv = ["--task", "qm9", "--rounds", "1", "--iterations", "1", "--objectives", "tb", "dqn"]
    assert benchmark.main(argv) == 0
    require_table(capsys.readouterr().out, ("tb", "dqn"))


def test_the_benchmark_measures_the_task_that_is_named(small_defaults, monkeypatch):
    agents, turn = [], benchmark.Stopwatch.turn
    monkeypatch.setattr(benchmark.Stopwatch, "turn", lambda w, n: agents.append(w.agent) or turn(w, n))
    assert benchmark.main(["--task", "qm9", "--rounds", "1", "--iterations", "1", "--objectives", "tb"]) == 0
    found = [(agent.config.environment, agent.config.backward_approach, agent.batch_size) for agent in agents]
    assert found == [("qm9", "uniform", 4), ("qm9", "tlm", 4)]


def test_a_data_folder_means_nothing_to_this_benchmark(small_defaults, tmp_path, capsys):
    assert benchmark.main(["--task", "qm9", "--rounds", "1", "--objectives", "tb", "--data_dir", str(tmp_path)]) == 2
    assert "unknown argument --data_dir" in capsys.readouterr().err
