"""Every option: its default, its help, what has it, its place in the run folder's name."""

import argparse
import os
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_origin

import pytest
import torch
from each import each, each_algo, each_approach

import mols
from mols import settings
from mols.common.terminal import ExperimentError
from mols.tasks import seh_frag

SUITE = Path(mols.__file__).parent

# The paper's, as facts section 4 has them; what it does not say is the machine's business.
EVERYWHERE = {
    "environment": "seh_frag", "backward_approach": "tlm", "seed": 1, "n": 20_000, "batch_size": 256,
    "temp": 10.0, "proxy": "auto", "data_dir": "", "workers": 0,
    "max_fragments": 8, "rp": 0.05, "ap": "linear", "aexp": 0.0, "width": 128, "n_layers": 8, "n_heads": 2,
    "precision": "float32",
    "lr": 5e-4, "lrd": 20_000.0, "weight_decay": 1e-8, "gradient_clipping": 10.0, "target_decay": 0.95,
    "no_sampling_model": False, "blr": 5e-5, "blrd": 20_000.0, "rand_pb_init": False,
    "validate_every": 100, "corr_every": 5_000, "corr_rounds": 10, "corr_molecules": 0, "test_set": "auto",
    "threads": os.cpu_count(),
    "kernels": "auto", "output_dir": "runs", "if_exists": "refuse", "checkpoint_every": 100, "wandb": "",
    "tensorboard": False,
}  # fmt: skip
DQN = {"leaf_coeff": 10.0, "not_dueling": False, "q_target_decay": 0.9}
OWN = {
    "tb": {"log_z_lr": 1e-3, "log_z_lrd": 50_000.0},
    "db": {},
    "subtb": {"subtb_lambda": 1.0},
    "dqn": {"m_alpha": 0.15, "m_l0": -500.0, **DQN},
    "soft_dqn": DQN,
}
APPROACHES = {  # that have an option, where not all do
    "blr": ["maxent", "tlm", "pessimistic"],
    "blrd": ["tlm"],
    "rand_pb_init": ["naive", "maxent", "tlm", "pessimistic"],
}
PROMISED = shlex.split(
    "--n --batch_size --temp --lr --lrd --blr --blrd --rp --ap --aexp --m_alpha --m_l0 --not_dueling --rand_pb_init "
    "--no_sampling_model --q_target_decay --max_fragments "
    "--validate_every --corr_every --corr_rounds --corr_molecules --checkpoint_every --test_set "
    "--device --threads --kernels --workers --data_dir --proxy --output_dir --if_exists --wandb --tensorboard "
    "--seed --algo --backward_approach"
)


def parse(*argv):
    return settings.parse([*argv], seh_frag.Settings)


def parsed(*argv):
    return parse(*argv).to_dict()


@each_algo
def test_the_defaults_are_the_papers(algo):
    expected = {"algo": algo, "objective": algo, "device": "cpu", **EVERYWHERE, **OWN[algo]}
    assert parsed("--algo", algo, "--device", "cpu") == expected


def test_without_arguments_it_is_trajectory_balance_on_what_there_is():
    config = parse()
    assert (config.algo, config.backward_approach) == ("tb", "tlm")
    assert config.device == ("cuda" if torch.cuda.is_available() else "cpu")


@each("annealing", ["linear", "exp"])
@each_algo
@each_approach
def test_every_default_comes_back_from_the_command_line(annealing, algo, approach):
    defaults = parsed(f"--algo={algo}", f"--backward_approach={approach}", "--device=cpu", f"--ap={annealing}")
    follow = {"environment", "objective"} | (set() if annealing == "exp" else {"aexp"})  # from other options
    words = [
        f"--{'' if value else 'no-'}{name}" if isinstance(value, bool) else f"--{name}={value}"
        for name, value in defaults.items()
        if name not in follow and approach in APPROACHES.get(name, [approach])
    ]
    assert parsed(*words) == defaults


@each("name", list(APPROACHES))
@each_approach
def test_an_option_goes_with_its_approaches_alone(name, approach):
    words = ["--backward_approach", approach, argument(name, CHANGED[name])]
    if approach in APPROACHES[name]:
        assert str(parsed(*words)[name]) == CHANGED[name]
    else:
        with pytest.raises(ExperimentError, match=f"--{name} has no effect with --backward_approach {approach}"):
            parsed(*words)


def test_a_default_is_what_the_same_text_would_be():
    """In a configuration's JSON, 1 is not 1.0: runs would differ for no reason."""
    for name, field in seh_frag.Settings.model_fields.items():
        assert field.default is None or get_origin(field.annotation) or type(field.default) is field.annotation, name


def test_the_backward_learning_rate_is_a_tenth_of_the_forward_one_unless_given():
    assert parse("--lr", "0.002").blr == 0.0002
    assert parse("--lr", "0.002", "--blr", "0.001").blr == 0.001


def test_exponential_annealing_leaves_a_share_and_the_others_have_none():
    assert [parse("--ap", ap).aexp for ap in ("exp", "linear", "none")] == [0.99, 0, 0]
    assert parse("--ap", "exp", "--aexp", "0.5").aexp == 0.5


MODULES = [module.name for module in pkgutil.walk_packages(mols.__path__, "mols.") if not module.ispkg]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@each("module", MODULES)
def test_importing_parses_nothing(module, monkeypatch):
    def made(*_, **__):
        raise AssertionError("a parser at import")

    monkeypatch.setattr(argparse.ArgumentParser, "__init__", made)
    monkeypatch.setattr(sys, "argv", ["other_program", "--nonsense"])
    runpy.run_module(module, run_name="imported", alter_sys=True)


def test_the_arguments_are_mains_own(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["other_program", "--nonsense"])
    assert parse("--seed", "7").seed == 7


def test_help_and_refusals_do_not_wait_for_pictures_and_molecules():
    """matplotlib and RDKit take seconds to import; an answer that needs neither comes before them."""
    code = (
        "import sys; from mols.tasks.seh_frag import main; main(['--n', '0']); "
        "print({'matplotlib', 'rdkit', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SUITE.parent, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


CHANGED = {  # of dqn unless it has none
    "algo": "soft_dqn", "backward_approach": "uniform", "seed": "7", "n": "200", "batch_size": "8",
    "temp": "8.5", "max_fragments": "5", "rp": "0.01", "ap": "none", "width": "32", "n_layers": "2", "n_heads": "4",
    "precision": "bfloat16",
    "lr": "1e-05", "lrd": "500.0", "weight_decay": "0.0", "gradient_clipping": "1.0", "target_decay": "0.5",
    "no_sampling_model": "True", "q_target_decay": "0.5",
    "blr": "0.0005", "blrd": "500.0", "rand_pb_init": "True", "m_alpha": "0.25", "m_l0": "-30.0", "leaf_coeff": "2.0",
    "not_dueling": "True", "validate_every": "50", "corr_every": "0", "corr_rounds": "5", "corr_molecules": "100",
    "test_set": "generated", "log_z_lr": "0.01", "log_z_lrd": "500.0", "subtb_lambda": "0.8",
    "proxy": "surrogate", "reward": "qed", "mode_thresholds": "0.5,0.75,1",
}  # fmt: skip
STORAGE = {
    "device": "cpu", "threads": "2", "kernels": "torch", "if_exists": "resume", "checkpoint_every": "9", "wandb": "a/b",
    "tensorboard": "True", "data_dir": "some/where", "workers": "3",
}  # fmt: skip


def directory(algo, *extra):
    return settings.run_directory(parse("--algo", algo, *extra), seh_frag.Settings)


def argument(name, value):
    return f"--{'no-' if value == 'False' else ''}{name}" + ("" if value in ("True", "False") else f"={value}")


def objective_with(name):
    return {"log_z_lr": "tb", "log_z_lrd": "tb", "subtb_lambda": "subtb"}.get(name, "dqn")


@each("name", list(CHANGED))
def test_the_folder_names_what_differs_and_no_more(name):
    algo, value = objective_with(name), CHANGED[name]
    run, seed = f"{algo}-tlm", "seed=1"
    if name == "seed":
        seed = f"seed={value}"
    elif name in ("algo", "backward_approach"):
        run = {"algo": "soft_dqn-tlm", "backward_approach": "dqn-uniform"}[name]
    else:
        run += f"-{name}={value}"
    expected = Path("runs") / "mols" / "seh_frag" / run / seed
    assert directory(algo, argument(name, value)) == expected
    assert re.fullmatch(r"[\w=.,+/-]+", str(expected))


def test_every_option_that_is_not_storage_can_be_in_the_folders_name():
    """But for the share that exponential annealing leaves, and what goes with a resumed own reward."""
    names = seh_frag.Settings.model_fields.keys()
    assert CHANGED.keys() | STORAGE.keys() | {"output_dir", "aexp", "reward_changed"} == names


@each("name", list(STORAGE))
def test_where_and_how_a_run_is_stored_is_not_in_its_folders_name(name):
    assert directory("tb", argument(name, STORAGE[name])) == Path("runs/mols/seh_frag/tb-tlm/seed=1")


def test_folders_of_values_that_follow_from_others():
    assert directory("db", "--lr", "2e-3").parent.name == "db-tlm-lr=0.002"
    assert directory("db", "--lr", "2e-3", "--blr", "0.0002").parent.name == "db-tlm-lr=0.002"
    assert directory("db", "--blr", "5e-5", "--lr", "2e-3").parent.name == "db-tlm-lr=0.002-blr=5e-05"
    assert directory("dqn", "--m_alpha", "0.15") == directory("dqn")
    assert directory("tb", "--output_dir", "there/are") == Path("there/are/mols/seh_frag/tb-tlm/seed=1")


def test_the_default_share_of_exponential_annealing_does_not_differ():
    assert directory("tb", "--ap", "exp").parent.name == "tb-tlm-ap=exp"
    assert directory("tb", "--ap", "exp", "--aexp", "0.5").parent.name == "tb-tlm-ap=exp-aexp=0.5"


def test_a_run_that_differs_in_everything_still_has_a_folder():
    """A file system takes names of up to 255 bytes."""
    changed = {name: value for name, value in CHANGED.items() if objective_with(name) == "dqn" and name != "proxy"}
    words = [argument(name, value) for name, value in changed.items() if name not in ("algo", "backward_approach")]
    folders = [directory("dqn", *words, *more) for more in ([], ["--corr_rounds=20"], ["--rp=0.3"])]
    assert all(len(part.encode()) <= 255 for folder in folders for part in folder.parts)
    assert len(set(folders)) == 3
