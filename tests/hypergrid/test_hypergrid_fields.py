"""Every field has an effect, a user's own file is checked for types too, a finished run starts nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from each import each

import hypergrid
from hypergrid import plots
from hypergrid.run_hypergrid_exp import main

SUITE = Path(hypergrid.__file__).parent
CONFIGS = SUITE / "experiments" / "config"
SMALL = ["--env.ndim=2", "--env.height=4", "--general.n_trajectories=96", "--general.n_envs=8", "--general.device=cpu"]
SMALL += ["--general.validation_interval=100"]


def command(algorithm: str, folder: Path, *extra: str, **files: str) -> list[str]:
    names = {"general": f"{CONFIGS}/general.py:3", "env": f"{CONFIGS}/hypergrid.py", "algo": f"{CONFIGS}/algo.py"}
    names = names | files
    argv = ["run", "--general", names["general"], "--env", f"{names['env']}:standard"]
    return [*argv, "--algo", f"{names['algo']}:{algorithm}", *SMALL, f"--general.output_dir={folder}", *extra]


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """``weights(algorithm, extra)``: the policies' parameters after twelve steps; no pictures are drawn."""
    monkeypatch.setattr(plots, "draw_run", lambda *_: None)

    def train(algorithm: str, *extra: str) -> list[torch.Tensor]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        small = ["--algo.hidden_width=16"]
        if "dqn" in algorithm:
            small += ["--algo.start_learning=2", "--algo.replay_batch_size=8"]
        assert main(command(algorithm, folder, *small, *extra)) == 0
        (path,) = folder.rglob("checkpoint.pt")
        state = torch.load(path, weights_only=True)["agent"]["policies"]
        return [value for value in state.values() if isinstance(value, torch.Tensor)]

    return train


EFFECTS = [
    ("tb", "--algo.learning_rate=0.01"),
    ("tb", "--algo.log_z_learning_rate=0.01"),
    ("tb", "--algo.backward_learning_rate=0.01"),
    ("tb", "--algo.backward_learning_rate_decay=0.5"),
    ("tb", "--algo.target_decay=0"),
    ("soft_dqn", "--algo.target_decay=0"),
    ("tb", "--algo.zero_initialisation=false"),
    ("tb", "--algo.tied_trunk=false"),
    ("tb", "--algo.update_order=forward_first"),
    ("tb", "--algo.gradient_clipping=0.1"),
    ("tb", "--algo.hidden_width=8"),
    ("tb", "--algo.hidden_layers=3"),
    ("tb", "--algo.backward_approach=naive"),
    ("subtb", "--algo.subtb_lambda=0.5"),
    ("soft_dqn", "--algo.huber_delta=0.1"),
    ("soft_dqn", "--algo.start_learning=4"),
    ("soft_dqn", "--algo.replay_capacity=16"),
    ("soft_dqn", "--algo.replay_batch_size=16"),
    ("soft_dqn", "--algo.replay_priority_exponent=1"),
    ("soft_dqn", "--algo.replay_importance_exponent=1"),
    ("munchausen_dqn", "--algo.m_alpha=0.5"),
    ("munchausen_dqn", "--algo.m_l0=-0.01"),
    ("tb", "--general.seed=4"),
    ("tb", "--general.n_envs=4"),
    ("tb", "--general.n_trajectories=80"),
    ("tb", "--env.ndim=3"),
    ("tb", "--env.height=5"),
    ("tb", "--env.R0=0.1"),
    ("tb", "--env.R1=1"),
]


@each("algorithm,change", EFFECTS)
def test_every_field_that_trains_has_an_effect(algorithm, change, weights):
    base, changed = weights(algorithm), weights(algorithm, change)
    assert differ(base, changed)


def test_the_readable_rollout_trains_as_the_compiled_one(weights):
    assert not differ(weights("tb", "--general.kernels=torch"), weights("tb", "--general.kernels=compiled"))


def test_the_modes_reward_has_an_effect(weights):
    """A mode needs 0.3 < |s/(H-1) - 0.5| < 0.4: a 4x4 grid has none, an 8x8 grid does."""
    assert differ(weights("tb", "--env.height=8"), weights("tb", "--env.height=8", "--env.R2=5"))


def differ(base: list[torch.Tensor], changed: list[torch.Tensor]) -> bool:
    return [w.shape for w in base] != [w.shape for w in changed] or not all(
        torch.equal(a, b) for a, b in zip(base, changed, strict=True)
    )


WRONG_TYPES = [
    ("algo", "algo", "learning_rate", "'fast'"),
    ("algo", "algo", "tied_trunk", "0"),
    ("env", "hypergrid", "height", "4.5"),
    ("env", "hypergrid", "name", "3"),
    ("general", "general", "tensorboard", "'yes'"),
    ("general", "general", "n_envs", "True"),
    ("general", "general", "output_dir", "7"),
]


@each("section,file,field,value", WRONG_TYPES)
def test_a_wrong_type_in_a_users_file_is_refused(section, file, field, value, tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text(
        f"from ml_collections import ConfigDict\nfrom hypergrid.experiments.config import {file}\n"
        f"def get_config(argument):\n    return ConfigDict({{**{file}.get_config(argument), '{field}': {value}}})\n"
    )
    named = str(own) if section != "general" else f"{own}:3"
    argv = command("tb", tmp_path / "runs", **{section: named})
    argv = [word for word in argv if not word.startswith(f"--{section}.{field}=")]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {section}.{field} is {value}")
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_numpys_numbers_in_a_users_file_are_taken_and_stored_as_plain_ones(tmp_path):
    changes = {
        "general": "{'n_envs': np.int64(4), 'n_trajectories': np.uint16(8), 'tensorboard': np.bool_(False)}",
        "hypergrid": "{'height': np.int32(5), 'ndim': np.int8(2), 'R0': np.float64(0.25), 'R1': np.float32(0.5)}",
        "algo": "{'hidden_width': np.int64(8), 'learning_rate': np.float64(0.01), 'tied_trunk': np.bool_(True)}",
    }
    for file, change in changes.items():
        (tmp_path / f"own_{file}.py").write_text(
            "import numpy as np\nfrom ml_collections import ConfigDict\n"
            f"from hypergrid.experiments.config import {file}\n"
            f"def get_config(argument):\n    return ConfigDict({{**{file}.get_config(argument), **{change}}})\n"
        )
    argv = ["run", "--general", f"{tmp_path}/own_general.py:3", "--env", f"{tmp_path}/own_hypergrid.py:standard"]
    argv += ["--algo", f"{tmp_path}/own_algo.py:tb", f"--general.output_dir={tmp_path}/runs"]
    assert main(argv) == 0
    assert main([*argv, "--env.height=6"]) == 0  # such a field is a field of the command line
    plain = ["--general.n_envs=4", "--general.n_trajectories=8", "--env.height=5", "--env.ndim=2", "--env.R0=0.25"]
    plain += ["--algo.hidden_width=8", "--algo.learning_rate=0.01", f"--general.output_dir={tmp_path}/plain"]
    own = [word for word in command("tb", tmp_path) if not re.match(r"--\w+\.", word)]
    assert main([*own, *plain]) == 0
    paths = {path.relative_to(tmp_path / "plain"): path for path in (tmp_path / "plain").rglob("config.json")}
    for name, path in paths.items():  # in a folder of the same name
        found, expected = (json.loads(path.read_text()) for path in (tmp_path / "runs" / name, path))
        found["general"]["output_dir"] = expected["general"]["output_dir"]
        assert found == expected


@pytest.mark.parametrize("value", ["np.float64(5.0)", "np.bool_(True)", "np.array([5])"])
def test_numpys_other_types_are_refused(value, tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text(
        "import numpy as np\nfrom ml_collections import ConfigDict\n"
        "from hypergrid.experiments.config import hypergrid\n"
        f"def get_config(name):\n    return ConfigDict({{**hypergrid.get_config(name), 'height': {value}}})\n"
    )
    argv = [word for word in command("tb", tmp_path / "runs", env=str(own)) if "env.height" not in word]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "env.height is" in error and error.endswith("input should be a valid integer\n") and error.count("\n") == 1


def test_a_users_file_that_fails_in_several_lines_is_answered_in_one(tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text("def get_config(name):\n    raise ValueError('first\\nsecond')\n")
    assert main(command("tb", tmp_path / "runs", algo=str(own))) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_finished_run_ends_at_once_without_torchgfn(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "draw_run", lambda *_: None)
    argv = command("tb", tmp_path, "--general.if_exists=resume")
    assert main(argv) == 0
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()}
    code = (
        "import sys; from hypergrid.run_hypergrid_exp import main; status = main(sys.argv);"
        "sys.exit(status or 3 * ('gfn' in sys.modules))"
    )
    env = os.environ | {"PYTHONPATH": str(SUITE.parent)}
    done = subprocess.run([sys.executable, "-c", code, *argv[1:]], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()} == before
