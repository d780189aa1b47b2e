"""What the sEH surrogate learns from: molecules of this environment, labelled by the published network.

One part are the molecules of uniformly random actions; others those of short runs with different reward exponents, from
their first to their last step; the last those of a search that takes the best of the others partly apart and finishes
them at random again. Together they have the whole range of the reward. Each part is a CSV in the run folder, written
when it is complete and not made again with the same seed.
"""

import shlex
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict

from mols import settings
from mols.agents.table import make_agent
from mols.agents.task import Task
from mols.common.algorithm import train_step
from mols.common.files import make_folder
from mols.common.terminal import ExperimentError
from mols.environments.base import concatenate, rows_of
from mols.environments.fragments import FragmentEnvironment, Trees
from mols.molecules.csv_files import read_columns, write_table
from mols.molecules.fragments import FragmentMolecules
from mols.molecules.reference_set import finished_at_random, random_finished_states
from mols.sampling import draw
from mols.tasks import seh_frag

N_RANDOM, BATCH_SIZE = 30_000, 64
EXPONENTS = (10, 20)  # one run each
N_STEPS = 400  # of a run, and of the search
N_BEST, MAX_BACK = 500, 6  # molecules that the search goes on from; actions that it takes back
# Small and fast: what counts is that rewards rise within minutes.
OPTIONS = shlex.split(
    "--proxy original --corr_every 0 --device cpu --algo tb --backward_approach uniform --width 32 --n_layers 2 "
    "--target_decay 0 --lr 0.003 --log_z_lr 0.3 --ap none"
)


def sampled(run_dir: Path, seed: int, data_dir: str) -> dict[str, float]:
    """Raw outputs of the published network by canonical SMILES.

    Args:
        run_dir: where parts are kept.
        seed: of the first part; the others count on from it.
        data_dir: folder of the network's weights; empty: as for runs.

    Raises:
        ExperimentError: the weights cannot be found, or a part of the folder is damaged.
    """
    runs = [(f"run_{number}", score_run, exponent) for number, exponent in enumerate(EXPONENTS, 1)]
    found: dict[str, float] = {}
    for number, (name, score, exponent) in enumerate([("random", score_random, 1), *runs, ("search", score_search, 1)]):
        path = run_dir / f"{name}_seed={seed + number}.csv"
        if not path.exists():
            argv = [*OPTIONS, f"--seed={seed + number}", f"--n={N_STEPS}", f"--batch_size={BATCH_SIZE}"]
            argv += [f"--temp={exponent}", f"--data_dir={data_dir}"]
            config = settings.parse(argv, seh_frag.Settings)
            task = seh_frag.make_task(config)
            score(task, config, found)
            write_part(dict(task.reward.evaluated()), path)
            print(f"{path}: made", flush=True)
        found |= read_part(path)
    return found


def score_random(task: Task, config: ConfigDict, found: dict[str, float]) -> None:
    """Score the molecules of uniformly random actions."""
    rng = np.random.default_rng(config.seed)
    for _ in range(0, N_RANDOM, BATCH_SIZE):
        task.score(random_finished_states(task.environment, BATCH_SIZE, rng))


def score_run(task: Task, config: ConfigDict, found: dict[str, float]) -> None:
    """Score the molecules of a run."""
    agent = make_agent(config, task)
    for _ in range(N_STEPS):
        train_step(agent)


def score_search(task: Task, config: ConfigDict, found: dict[str, float]) -> None:
    """Score the molecules of a search: the best so far, at first those of ``found``, make the next ones."""
    rng, molecules = np.random.default_rng(config.seed), FragmentMolecules(task.environment)
    states = map(molecules.from_molecule, sorted(found, key=found.get, reverse=True)[:N_BEST])
    best = concatenate([state for state in states if state is not None])
    scores = task.score(best)
    smiles, reward = scores.smiles, scores.reward
    for _ in range(N_STEPS):
        parents = rows_of(best, torch.from_numpy(rng.integers(len(smiles), size=BATCH_SIZE)))
        children = finished_at_random(task.environment, taken_apart(task.environment, parents, rng), rng)
        scores = task.score(children)
        best, smiles, reward = concatenate([best, children]), smiles + scores.smiles, torch.cat([reward, scores.reward])
        first: dict[str | None, int] = {None: -1}  # the row of each molecule, best first
        for row in reward.argsort(descending=True, stable=True).tolist():
            first.setdefault(smiles[row], row)
        kept = list(first.values())[1 : N_BEST + 1]
        best, smiles, reward = rows_of(best, torch.tensor(kept)), [smiles[row] for row in kept], reward[kept]


def taken_apart(environment: FragmentEnvironment, states: Trees, rng: np.random.Generator) -> Trees:
    """States after 1 to ``MAX_BACK`` uniformly random backward actions each, or fewer where s_0 is nearer."""
    left = torch.from_numpy(rng.integers(1, MAX_BACK + 1, size=len(states.fragment)))
    for move in range(MAX_BACK):
        uniform = torch.from_numpy(rng.random(len(left)))
        moving = (left > move) & ~environment.is_empty(states)
        some = rows_of(states, moving)
        before, _ = environment.backward_step(some, draw(environment.backward_mask(some).double(), uniform[moving]))
        for tensor, changed in zip(states, before, strict=True):
            tensor[moving] = changed
    return states


def write_part(raw: dict[str, float], path: Path) -> None:
    """Write a part that is there complete or not at all."""
    make_folder(path.parent)
    write_table(path, [("smiles", "raw"), *raw.items()])


def read_part(path: Path) -> list[tuple[str, float]]:
    """SMILES and raw output, row by row."""
    try:
        return [(smiles, float(raw)) for smiles, raw in read_columns(path, ("smiles", "raw"))]
    except (ExperimentError, ValueError) as error:
        raise ExperimentError(f"{path} is damaged: delete it, so that it is made again") from error
