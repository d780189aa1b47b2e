"""Every option: its default, its help, and its place in the run folder's name."""

import argparse
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from each import each, each_approach, each_objective

import bitseq
from bitseq import settings
from bitseq.common.terminal import ExperimentError

SUITE = Path(bitseq.__file__).parent

# The paper's, as facts section 3 has them; what it does not say is the environment's and the machine's business.
EVERYWHERE = {
    "environment": "n=120-k=8", "backward_approach": "tlm", "seed": 1, "num_iterations": 50_000, "batch_size": 16,
    "n": 120, "k": 8, "M_size": 60, "mode_threshold": 30, "reward_exponent": 2.0,
    "width": 64, "n_layers": 3, "n_heads": 8, "ff_width": 64, "dropout": 0.1, "rand_action_prob": 0.001,
    "learning_rate": 1e-3, "weight_decay": 1e-5, "update_order": "backward_first",
    "backward_learning_rate": 1e-3, "gamma": 0.9999, "uniform_initialisation": True,
    "validate_every": 100, "corr_every": 10_000, "corr_num_rounds": 10, "exact_every": 1_000,
    "correlation_network": "target",
    "threads": 1, "kernels": "compiled", "output_dir": "runs", "if_exists": "refuse", "checkpoint_every": 500,
    "wandb": "", "tensorboard": False,
}  # fmt: skip
DQN = {
    "leaf_coeff": 5.0, "huber_delta": 1.0, "replay_capacity": 100_000, "replay_batch_size": 256,
    "replay_priority_exponent": 0.9, "replay_importance_exponent": 0.1, "start_learning": 50, "update_target_every": 5,
}  # fmt: skip
OWN = {
    "tb": {"good_trajectories": 0, "log_z_learning_rate": 1e-3, "target_decay": 0.9, "backward_head_only": True},
    "db": {"good_trajectories": 0, "target_decay": 0.9, "backward_head_only": False},
    "subtb": {"good_trajectories": 0, "subtb_lambda": 0.9, "target_decay": 0.9, "backward_head_only": False},
    "soft_dqn": {"backward_head_only": False, **DQN},
    "munchausen_dqn": {"m_alpha": 0.15, "m_l0": -25.0, "backward_head_only": False, **DQN},
}


APPROACHES = {  # that have an option, where not all do
    "backward_learning_rate": ["tlm", "pessimistic"],
    "gamma": ["tlm"],
    "update_order": ["tlm", "pessimistic"],
    "backward_head_only": ["tlm", "pessimistic"],
    "uniform_initialisation": ["naive", "tlm", "pessimistic"],
}


def parsed(*argv):
    return settings.parse(list(argv)).to_dict()


@each_objective
def test_the_defaults_are_the_papers(objective):
    expected = {"objective": objective, "device": "cpu", **EVERYWHERE, **OWN[objective]}
    assert parsed("--objective", objective, "--device", "cpu") == expected


def test_without_arguments_it_is_trajectory_balance_on_what_there_is():
    config = settings.parse([])
    assert (config.objective, config.backward_approach) == ("tb", "tlm")
    assert config.device == ("cuda" if torch.cuda.is_available() else "cpu")


@each_objective
@each_approach
def test_every_default_comes_back_from_the_command_line(objective, approach):
    defaults = parsed("--objective", objective, "--backward_approach", approach, "--device", "cpu")
    words = [
        f"--{'' if value else 'no-'}{name}" if isinstance(value, bool) else f"--{name}={value}"
        for name, value in defaults.items()
        if name != "environment" and approach in APPROACHES.get(name, [approach])  # environment: follows from n and k
    ]
    assert parsed(*words) == defaults


@each("name", list(APPROACHES))
@each_approach
def test_an_option_goes_with_its_approaches_alone(name, approach):
    words = ["--objective", "db", "--backward_approach", approach, argument(name, CHANGED[name])]
    if approach in APPROACHES[name]:
        assert str(parsed(*words)[name]) == CHANGED[name]
    else:
        with pytest.raises(ExperimentError, match=f"--{name} has no effect with --backward_approach {approach}"):
            parsed(*words)


def test_short_names():
    long = parsed("--objective", "munchausen_dqn", "--learning_rate", "2e-3")
    assert parsed("--objective", "dqn", "--lr", "0.002") == parsed("--lr=0.002", "--objective=dqn") == long
    assert long["m_alpha"] == 0.15 and long["objective"] == "munchausen_dqn"
    assert parsed("--blr", "0.5")["backward_learning_rate"] == 0.5


def test_the_backward_learning_rate_is_the_forward_ones_unless_given():
    assert parsed("--lr", "0.002")["backward_learning_rate"] == 0.002
    assert parsed("--lr", "0.002", "--blr", "0.001")["backward_learning_rate"] == 0.001


@each_objective
def test_the_losses_of_p_b_step_its_head_alone_with_tb_unless_told_otherwise(objective):
    """The published code's rule; every spelling of either value, for every objective."""

    def head_only(*words):
        return parsed("--objective", objective, *words)["backward_head_only"]

    assert head_only() == (objective == "tb")
    for approach in ("tlm", "pessimistic"):
        assert head_only("--backward_approach", approach) == (objective == "tb")
    spellings = {
        True: ["--backward_head_only", "--backward_head_only true", "--backward_head_only=True"],
        False: ["--backward_head_only false", "--no-backward_head_only", "--no_backward_head_only"],
    }
    for value, lines in spellings.items():
        assert [head_only(*line.split()) for line in lines] == [value] * 3
    default = f"{objective}-tlm"
    for value in (True, False):
        name = directory(objective, "--backward_head_only", str(value)).parent.name
        assert name == (default if value == (objective == "tb") else f"{default}-backward_head_only={value}")


@pytest.mark.parametrize("module", ["settings.py", "run.py"])
def test_importing_makes_no_parser(module, monkeypatch):
    def made(*_, **__):
        raise AssertionError("a parser at import")

    monkeypatch.setattr(argparse.ArgumentParser, "__init__", made)
    monkeypatch.setattr(sys, "argv", ["other_program", "--nonsense"])
    runpy.run_path(str(SUITE / module), run_name="imported")


def test_the_arguments_are_mains_own(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["other_program", "--nonsense"])
    assert parsed("--seed", "7")["seed"] == 7


def test_help_and_refusals_do_not_wait_for_the_pictures():
    """matplotlib and scipy take seconds to import; an answer that needs neither comes before them."""
    code = (
        "import sys; from bitseq.run import main; main(['--n', '7']); print({'matplotlib', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SUITE.parent, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


CHANGED = {  # of munchausen_dqn unless the objective has none
    "objective": "soft_dqn", "backward_approach": "uniform", "seed": "7", "num_iterations": "200", "batch_size": "8",
    "n": "240", "k": "4", "M_size": "20", "mode_threshold": "25", "reward_exponent": "1.5",
    "width": "32", "n_layers": "2", "n_heads": "4", "ff_width": "128", "dropout": "0.0", "rand_action_prob": "0.01",
    "learning_rate": "1e-05", "weight_decay": "0.0", "update_order": "forward_first",
    "backward_learning_rate": "0.0005", "gamma": "0.999", "uniform_initialisation": "False",
    "backward_head_only": "True", "m_alpha": "0.25", "m_l0": "-30.0", "leaf_coeff": "2.0", "huber_delta": "0.5",
    "replay_capacity": "5000", "replay_batch_size": "64", "replay_priority_exponent": "0.5",
    "replay_importance_exponent": "0.4", "start_learning": "10", "update_target_every": "7", "validate_every": "50",
    "corr_every": "0", "corr_num_rounds": "5", "correlation_network": "online", "exact_every": "10",
    "log_z_learning_rate": "0.01", "subtb_lambda": "0.8", "target_decay": "0.5", "good_trajectories": "8",
}  # fmt: skip
STORAGE = {
    "device": "cpu", "threads": "2", "kernels": "torch", "if_exists": "resume", "checkpoint_every": "9", "wandb": "a/b",
    "tensorboard": "True",
}  # fmt: skip


def directory(objective, *extra):
    return settings.run_directory(settings.parse(["--objective", objective, *extra]))


def argument(name, value):
    return f"--{'no-' if value == 'False' else ''}{name}" + ("" if value in ("True", "False") else f"={value}")


def objective_with(name):
    own = {"log_z_learning_rate": "tb", "subtb_lambda": "subtb", "target_decay": "db", "good_trajectories": "db"}
    return own.get(name, "munchausen_dqn")


@each("name", list(CHANGED))
def test_the_folder_names_what_differs_and_no_more(name):
    objective, value = objective_with(name), CHANGED[name]
    environment, run, seed = "n=120-k=8", f"{objective}-tlm", "seed=1"
    if name in ("M_size", "mode_threshold", "reward_exponent"):
        environment += f"-{name}={value}"
    elif name in ("n", "k"):
        environment = {"n": "n=240-k=8", "k": "n=120-k=4"}[name]
    elif name == "seed":
        seed = f"seed={value}"
    elif name in ("objective", "backward_approach"):
        run = {"objective": "soft_dqn-tlm", "backward_approach": "munchausen_dqn-uniform"}[name]
    else:
        run += f"-{name}={value}"
    expected = Path("runs") / "bitseq" / environment / run / seed
    assert directory(objective, argument(name, value)) == expected
    assert re.fullmatch(r"[\w=.,+/-]+", str(expected))


def test_every_option_that_is_not_storage_can_be_in_the_folders_name():
    assert CHANGED.keys() | STORAGE.keys() | {"output_dir"} == settings.Settings.model_fields.keys()


@each("name", list(STORAGE))
def test_where_and_how_a_run_is_stored_is_not_in_its_folders_name(name):
    assert directory("tb", argument(name, STORAGE[name])) == Path("runs/bitseq/n=120-k=8/tb-tlm/seed=1")


def test_folders_of_values_that_follow_from_others():
    assert directory("db", "--lr", "2e-3").parent.name == "db-tlm-learning_rate=0.002"
    assert directory("db", "--lr", "2e-3", "--blr", "0.002").parent.name == "db-tlm-learning_rate=0.002"
    both = directory("db", "--blr", "1e-3", "--lr", "2e-3").parent.name
    assert both == "db-tlm-learning_rate=0.002-backward_learning_rate=0.001"
    assert directory("dqn", "--m_alpha", "0.15") == directory("munchausen_dqn")
    assert directory("tb", "--output_dir", "there/are") == Path("there/are/bitseq/n=120-k=8/tb-tlm/seed=1")


def test_a_run_that_differs_in_everything_still_has_a_folder():
    """A file system takes names of up to 255 bytes."""
    changed = {name: value for name, value in CHANGED.items() if objective_with(name) == "munchausen_dqn"}
    words = [argument(name, value) for name, value in changed.items() if name not in ("objective", "backward_approach")]
    folders = [directory("munchausen_dqn", *words, *more) for more in ([], ["--exact_every=20"], ["--dropout=0.3"])]
    assert all(len(part.encode()) <= 255 for folder in folders for part in folder.parts)
    assert len(set(folders)) == 3


@pytest.mark.parametrize("n_heads", [1, 2, 3, 4, 5, 6, 8, 12, 16, 32, 64, 128])
def test_automatic_kernels_are_compiled_for_heads_that_divide_64_in_single_precision_on_a_cpu(n_heads, monkeypatch):
    argv = ["--width", str(n_heads), "--n_heads", str(n_heads), "--device"]
    assert parsed(*argv, "cpu")["kernels"] == ("compiled" if n_heads in (1, 2, 4, 8, 16, 32, 64) else "torch")
    assert parsed(*argv, "cpu", "--kernels", "torch")["kernels"] == "torch"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert parsed(*argv, "cuda")["kernels"] == "torch"
    with pytest.raises(ExperimentError, match="it needs single precision on --device cpu"):
        settings.parse([*argv, "cuda", "--kernels", "compiled"])


def test_in_double_precision_automatic_kernels_are_torchs(double):
    assert parsed("--device", "cpu")["kernels"] == "torch"
