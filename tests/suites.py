"""A tiny run of any suite by the same words, and what it leaves: the copied folders are tested over all suites."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
import torch
from each import ALGOS, OBJECTIVES, each
from same import assert_same

from hypergrid.common.run_folder import read_metrics

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "hypergrid" / "experiments" / "config"
FILES = {"general": "general.py:3", "env": "hypergrid.py:standard", "algo": "algo.py:{}"}


@dataclass(frozen=True, eq=False)
class Suite:
    """How a suite calls what all have; options have the names of bitseq, those that it lacks are None."""

    name: str
    program: tuple[str, ...]  # as a process
    entry: str  # the module of its main
    small: dict
    objectives: tuple[str, ...] = OBJECTIVES
    replay: dict = field(default_factory=dict)
    names: dict[str, str | None] = field(default_factory=dict)
    objective: tuple[str, ...] = ("--objective={}",)

    def __repr__(self) -> str:
        return self.name

    def module(self, name: str) -> ModuleType:
        """A module of the suite."""
        return importlib.import_module(f"{self.name}.{name}")

    @property
    def flag(self) -> str:
        """That says what to do about an existing folder."""
        return f"--{self.names.get('if_exists', 'if_exists')}"

    def main(self, argv: list[str]) -> int:
        """The exit status of the command line."""
        return self.module(self.entry).main(argv)

    def argv(self, objective: str, folder: Path | str, **options) -> list[str]:
        """The arguments of ``main`` for a run of four steps, rows at 2 and 4, unless ``options`` say otherwise."""
        usual = {"output_dir": folder, "backward_approach": "tlm", "num_iterations": 4, "validate_every": 2}
        given = usual | self.small | (self.replay if "dqn" in objective else {}) | options
        if self.name == "hypergrid":
            given["num_iterations"] *= self.small["general.n_envs"]  # its length is in trajectories
        named = {self.names.get(name, name): value for name, value in given.items()}
        words = [f"--{name}={value}" for name, value in named.items() if name]
        return [word.format(objective) for word in self.objective] + words

    def run(self, objective: str, folder: Path | str, **options) -> Path:
        """The folder of a run that has ended well."""
        assert self.main(self.argv(objective, folder, **options)) == 0
        return only_run(Path(folder))

    def words(self, argv: list[str]) -> list[str]:
        """What follows ``python`` on a command line with these arguments of ``main``."""
        return [*self.program, *(argv[1:] if self.name == "hypergrid" else argv)]  # whose first is the program's name

    def process(self, argv: list[str], **how) -> subprocess.Popen:
        """The command line as a process of its own."""
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen([sys.executable, *self.words(argv)], cwd=ROOT, env=env, **how)


SUITES = (
    Suite(
        "hypergrid",
        ("hypergrid/run_hypergrid_exp.py",),
        "run_hypergrid_exp",
        {
            "env.ndim": 2,
            "env.height": 4,
            "general.n_envs": 8,
            "general.validation_samples": 50,
            "algo.hidden_width": 16,
            "device": "cpu",
        },
        replay={"algo.start_learning": 3, "algo.replay_batch_size": 8, "algo.replay_capacity": 64},
        names={
            "num_iterations": "general.n_trajectories",
            "validate_every": "general.validation_interval",
            "checkpoint_every": "general.checkpoint_interval",
            "exact_every": "general.exact_interval",
            "corr_every": None,
            "wandb": "general.wandb_project",
            "backward_approach": "algo.backward_approach",
            "learning_rate": "algo.learning_rate",
        }
        | {name: f"general.{name}" for name in ("output_dir", "if_exists", "seed", "device", "threads", "tensorboard")}
        | {"kernels": "general.kernels"},
        objective=("run", *(word for name, file in FILES.items() for word in (f"--{name}", f"{CONFIGS}/{file}"))),
    ),
    Suite(
        "bitseq",
        ("bitseq/run.py",),
        "run",
        {
            "n": 8,
            "k": 2,
            "M_size": 5,
            "mode_threshold": 1,
            "width": 16,
            "n_layers": 1,
            "n_heads": 2,
            "ff_width": 16,
            "batch_size": 8,
            "corr_num_rounds": 1,
            "device": "cpu",
        },  # dropout stays on
        # A buffer that wraps, and targets that are not the online networks when the checkpoint is written.
        replay={"start_learning": 3, "replay_batch_size": 8, "replay_capacity": 200, "update_target_every": 3},
    ),
    Suite(
        "mols",
        ("-m", "mols.tasks.seh_frag"),
        "tasks.seh_frag",
        {
            "width": 16,
            "n_layers": 1,
            "n_heads": 1,
            "batch_size": 4,
            "max_fragments": 2,
            "rp": 0.5,
            "proxy": "surrogate",
            "test_set": "generated",
            "corr_molecules": 3,
            "corr_rounds": 1,
            "device": "cpu",
            "threads": 1,
        },
        objectives=ALGOS,
        names={"num_iterations": "n", "learning_rate": "lr", "exact_every": None},
        objective=("--algo={}",),
    ),
)
HYPERGRID, BITSEQ, MOLS = SUITES
each_suite = each("suite", SUITES)
RUNS = [(suite, objective) for suite in SUITES for objective in suite.objectives]


def quicken(patch: pytest.MonkeyPatch) -> None:
    """No pictures, no list of libraries, no git, few generated molecules: most of what such short runs take."""
    for suite in SUITES:
        patch.setattr(suite.module("plots"), "draw_run", lambda *_: None)
        patch.setattr(suite.module("common.provenance"), "_library_versions", dict)
        patch.setattr(suite.module("common.provenance"), "_git", lambda *_: None)
    for name in ("agents.base", "tasks.seh_frag"):
        patch.setattr(MOLS.module(name), "N_GENERATED", 6)


def refused(main: Callable[[list[str]], int], argv: list[str], message: str, folder: Path, capsys) -> None:
    """That a command says what is wrong in one sentence, with exit status 2, and leaves the folder as it is."""
    before = contents(folder), set(folder.rglob("*"))
    capsys.readouterr()
    assert main(argv) == 2
    out, error = capsys.readouterr()
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert out == ""
    assert (contents(folder), set(folder.rglob("*"))) == before


def only_run(folder: Path) -> Path:
    """The one run folder at or below a folder."""
    (config,) = Path(folder).rglob("config.json")
    return config.parent


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Time of the last change and bytes of every file."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def metrics_without_time(folder: Path) -> dict[str, str]:
    """The columns of metrics.csv that a repetition has to repeat, as text: an empty cell equals itself."""
    return {name: str(values) for name, values in read_metrics(only_run(folder)).items() if name != "wall_s"}


def checkpoint(folder: Path) -> dict:
    """What a repetition has to repeat of the checkpoint."""
    state = torch.load(only_run(folder) / "checkpoint.pt", weights_only=True)
    del state["wall_s"]
    return state


def require_equal(folder: Path, other: Path) -> None:
    """That two runs have the same metrics and the same checkpoint."""
    assert metrics_without_time(folder) == metrics_without_time(other)
    assert_same(checkpoint(folder), checkpoint(other))


def rows_in(folder: Path) -> int:
    """Complete rows of a metrics.csv that is being written."""
    (path,) = folder.rglob("metrics.csv")
    return path.read_text().count("\n") - 1
