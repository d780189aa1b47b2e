"""Molecules from a trained run, with their rewards and what RDKit says of them, as a CSV and a picture of the best.

    python -m mols.tasks.sample RUN_DIR --n 1000 --out molecules.csv

They are samples of the model that sampled in training (the EMA model, unless the run has --no_sampling_model), without
random actions; the CSV has the best first:

    smiles, reward      canonical SMILES; r, as in training
    log_prob            estimate of log P(x), nats, of the graph that was sampled, from backward trajectories
    qed, sa, mol_weight drug-likeness (0 to 1), synthetic accessibility (1 easy to 10 hard), molecular weight, by RDKit

The picture, beside the CSV with the ending .png, shows the best that are unlike one another.
"""

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from ml_collections import ConfigDict
from rdkit import Chem
from rdkit.Chem import QED, Descriptors
from rdkit.Contrib.SA_Score import sascorer
from tqdm import tqdm

from mols import settings
from mols.agents.base import LearningAgent
from mols.agents.table import make_agent
from mols.common.checkpoint import restore_agent
from mols.common.files import written
from mols.common.options import applicable
from mols.common.terminal import ExperimentError, command
from mols.evaluation import MAX_SIMILARITY, Found, sorted_modes
from mols.molecules.csv_files import require_writable, write_table
from mols.plots import N_DRAWN, draw_grid, reward_name
from mols.sampling import estimated_log_prob, sample_trajectories
from mols.suite import NEWER
from mols.tasks import qm9, seh_frag

TASKS = {task.Settings.task: task for task in (seh_frag, qm9)}
BATCH = 64
MAX_DRAWS = 10  # for each molecule that is wanted


class Sample(NamedTuple):
    """A molecule of the model: a row of the CSV."""

    smiles: str
    reward: float
    log_prob: float | None
    qed: float
    sa: float
    mol_weight: float


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mols.tasks.sample", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="folder of a run: finished, or with a checkpoint")
    parser.add_argument("--n", type=int, default=1000, help="molecules (1000)")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write; the picture lies beside it")
    parser.add_argument("--distinct", action="store_true", help="every molecule once")
    parser.add_argument("--seed", type=int, default=1, help="of the sampling (1)")
    parser.add_argument("--rounds", type=int, default=10, help="backward trajectories for log P(x); 0: none of it (10)")
    parser.add_argument("--data_dir", help="folder of the published sEH weights, if the run's is elsewhere now")
    arguments = parser.parse_args(argv)
    return command(lambda: write_samples(arguments), "nothing is written")


def write_samples(arguments: argparse.Namespace) -> None:
    """Sample a run and write the CSV and the picture.

    Raises:
        ExperimentError: an argument makes no sense, the folder is not a run with a checkpoint, or something cannot be
            read or written.
    """
    if min(arguments.n, arguments.seed, arguments.rounds + 1) < 1:
        raise ExperimentError("--n and --seed start at 1 and --rounds at 0: choose others")
    if not arguments.out.name:
        raise ExperimentError("--out is not the name of a file: write one, such as molecules.csv")
    picture = arguments.out.with_suffix(".png")
    if picture == arguments.out:
        raise ExperimentError(f"{picture} is the picture's name: choose another --out, such as molecules.csv")
    for path in (arguments.out, picture):
        require_writable(path)
    config = read_config(arguments.run)
    checkpoint = arguments.run / "checkpoint.pt"
    if not checkpoint.is_file():
        raise ExperimentError(f"{arguments.run} has no checkpoint yet: train longer, or name another run")
    if arguments.data_dir is not None:
        if config.get("proxy") != "original":
            raise ExperimentError("--data_dir is of sEH's published weights, which this run does not use: leave it out")
        config.data_dir = arguments.data_dir
    torch.set_num_threads(config.threads)
    with closing(TASKS[config.environment].make_task(config)) as task:
        agent = make_agent(config, task)
        step, _ = restore_agent(agent, checkpoint, "train the run anew")
        if config.get("reward_source") and config.reward_source != task.reward.function.source:
            known = "molecules that training knows keep the rewards that they had"
            print(f"warning: the source of --reward {config.reward} has changed since: {known}", file=sys.stderr)
        samples = draw_samples(agent, arguments.n, arguments.seed, arguments.rounds, arguments.distinct)
    samples.sort(key=lambda sample: -sample.reward)
    # The reward in all its digits: it counts at a threshold here where it does in training.
    cells = [(s.smiles, s.reward, *("" if x is None else f"{x:.6g}" for x in s[2:])) for s in samples]
    which = f"{config.environment}, {reward_name(config)}: {config.algo}, P_B {config.backward_approach}, step {step}"
    with written(picture, binary=True) as file:  # both, or neither
        n_drawn = draw_best(file, samples, which)
        write_table(arguments.out, [Sample._fields, *cells])
    n_distinct = len({sample.smiles for sample in samples})
    print(f"{arguments.out}: {len(samples)} molecules, {n_distinct} of them distinct, of step {step} of {config.n}")
    print(f"{picture}: the best {n_drawn} that are unlike one another")


def draw_best(file: BinaryIO, samples: list[Sample], which: str) -> int:
    """Draw the best samples that are unlike one another, and say how many; ``which`` begins the title."""
    best = sorted_modes([Found(sample.smiles, sample.reward, 0) for sample in samples], 0.0, N_DRAWN)
    of = {sample.smiles: sample for sample in samples}
    legends = [(m.smiles, f"r = {m.reward:.3f}, QED {of[m.smiles].qed:.2f}, SA {of[m.smiles].sa:.1f}") for m in best]
    draw_grid(file, legends, f"{which}: best of {len(samples)} samples, Tanimoto similarity below {MAX_SIMILARITY}")
    return len(best)


def read_config(run: Path) -> ConfigDict:
    """The configuration of a run of this suite, for sampling on this machine.

    Raises:
        ExperimentError: the folder is not such a run.
    """
    if not run.is_dir():
        raise ExperimentError(f"{run} is not a folder: name a run folder, as training prints it at its end")
    try:
        config = ConfigDict(NEWER | json.loads((run / "config.json").read_text(encoding="utf-8")))
        environment = config.get("environment")
    except OSError as error:
        raise ExperimentError(f"{run} is not a run folder (no config.json): name one that training has made") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ExperimentError(f"{run}/config.json is damaged: name another run") from error
    if environment not in TASKS:
        raise ExperimentError(f"{run} is not a run of {' or '.join(TASKS)}: name one of this suite")
    config.kernels = settings.AUTO  # which gives the same, and older runs do not have
    needed = applicable(TASKS[environment].Settings(), config.get("algo"))
    if missing := [name for name in needed if name not in (*settings.OWN_REWARD_OPTIONS, *config)]:
        raise ExperimentError(f"{run}/config.json is damaged (it lacks {missing[0]}): name another run")
    config.corr_every = 0  # no test set
    if config.device == "cuda" and not torch.cuda.is_available():
        config.device = "cpu"
    return config


def draw_samples(agent: LearningAgent, n: int, seed: int, rounds: int, distinct: bool) -> list[Sample]:
    """Samples of the model that sampled in training, in the order of their drawing.

    Args:
        agent: of the run.
        n: how many.
        seed: of a stream for this.
        rounds: backward trajectories for each log P(x); 0: it is None.
        distinct: whether a molecule that was drawn before is left out.

    Raises:
        ExperimentError: nothing that is drawn is valid.
    """
    rng, samples, seen = np.random.default_rng(seed), [], set()
    with tqdm(total=n, desc="sampling", unit="molecule", disable=None) as bar:
        for _ in range(0, MAX_DRAWS * n, BATCH):
            for sample in draw_batch(agent, rng, rounds):
                if len(samples) < n and not (distinct and sample.smiles in seen):
                    samples.append(sample)
                    seen.add(sample.smiles)
            bar.update(len(samples) - bar.n)
            if len(samples) == n:
                break
    if not samples:
        raise ExperimentError(f"{MAX_DRAWS * n} draws gave no valid molecule: train this run longer")
    if len(samples) < n:
        what = "distinct" if distinct else "valid"
        print(f"warning: {MAX_DRAWS * n} draws gave {len(samples)} {what} molecules, not {n}", file=sys.stderr)
    return samples


def draw_batch(agent: LearningAgent, rng: np.random.Generator, rounds: int) -> list[Sample]:
    """The valid ones among a batch of samples."""
    drawn = sample_trajectories(agent.sampler, agent.environment, BATCH, rng, coefficient=agent.coefficient)
    finished = drawn.terminal_states
    scores = agent.task.score(finished)
    log_prob = [None] * BATCH
    if rounds:
        log_prob = estimated_log_prob(
            finished, agent.sampler, agent.environment, rng, rounds=rounds, coefficient=agent.coefficient
        ).tolist()
    rows = zip(scores.smiles, scores.reward.tolist(), log_prob, strict=True)
    return [Sample(smiles, reward, log, *properties(smiles)) for smiles, reward, log in rows if smiles is not None]


def properties(smiles: str) -> tuple[float, float, float]:
    """QED, synthetic accessibility and molecular weight, by RDKit."""
    molecule = Chem.MolFromSmiles(smiles)
    return QED.qed(molecule), sascorer.calculateScore(molecule), Descriptors.MolWt(molecule)


if __name__ == "__main__":
    sys.exit(main())
