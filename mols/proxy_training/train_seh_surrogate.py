"""Train the sEH surrogate on molecules that the published network labels, and report how faithful it is.

    python -m mols.proxy_training.train_seh_surrogate --seed 1 --epochs 14 --run_dir runs/seh_surrogate

Needs the published network's weights, see `mols.rewards.downloads`. The folder gets the sampled molecules, see
`mols.proxy_training.surrogate_molecules`, what `mols.proxy_training.training` says, and at the end seh_surrogate.pt.
Mean absolute errors are in units of r, an eighth of the raw output; the report is of the held-out tenth of the
molecules and of the tenth of these with the largest labels. To ship the file, put it into mols/rewards/seh and its
sha256 into mols/rewards/seh/surrogate.py.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from rdkit import Chem
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from mols.common.terminal import duration
from mols.proxy_training import training
from mols.proxy_training.surrogate_molecules import sampled
from mols.proxy_training.training import Training, fit
from mols.rewards.seh.features import MoleculeGraph, collate, featurise
from mols.rewards.seh.reward import RAW_PER_REWARD
from mols.rewards.seh.surrogate import CHUNK, BatchedGraphs, SehSurrogate, SurrogateNetwork

N_VALIDATION = 2000  # molecules that choose the epoch
THRESHOLD = 0.02  # of r, below which the loss is quadratic
WEIGHTS_FILE = "seh_surrogate.pt"


class Labelled(NamedTuple):
    """N molecules and their (N,) raw outputs."""

    graphs: Sequence[MoleculeGraph]
    raw: Tensor

    def of(self, rows: Tensor) -> "Labelled":
        """The molecules (M,) of these numbers."""
        return Labelled([self.graphs[row] for row in rows.tolist()], self.raw[rows])


class SurrogateTraining(Training):
    """A run on labelled molecules, in mixed precision.

    Args:
        molecules: with their labels.
        seed, n_epochs, n_validation: as in ``Training``; errors are in units of r.
    """

    def __init__(self, molecules: Labelled, seed: int, n_epochs: int, n_validation: int = N_VALIDATION) -> None:
        self.molecules = molecules
        super().__init__(molecules.raw, SurrogateNetwork, seed, n_epochs, n_validation)

    def batch_of(self, rows: Tensor) -> Labelled:
        """The molecules of these numbers."""
        return self.molecules.of(rows)

    def loss(self, batch: Labelled) -> Tensor:
        """() smooth absolute error, in units of r."""
        graphs = BatchedGraphs(collate(batch.graphs))
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.network(graphs)
        return smooth_l1_loss(predicted.float() / RAW_PER_REWARD, batch.raw / RAW_PER_REWARD, beta=THRESHOLD)

    @torch.no_grad()
    def error(self, network: SurrogateNetwork, rows: Tensor) -> float:
        """Mean absolute error, in units of r."""
        errors = []
        for some in rows.split(CHUNK):
            batch = self.molecules.of(some)
            errors.append((network(BatchedGraphs(collate(batch.graphs))) - batch.raw).abs())
        return torch.cat(errors).mean().item() / RAW_PER_REWARD


def fidelity(predicted: np.ndarray, labels: np.ndarray) -> list[tuple[str, int, float, float]]:
    """What, number of molecules, Spearman correlation and mean absolute error: of all, and of the top tenth by label.

    Args:
        predicted, labels: (N,) r.
    """
    top = np.argsort(-labels, kind="stable")[: len(labels) // 10]
    return [
        (what, len(rows), float(spearmanr(predicted[rows], labels[rows]).statistic),
         float(np.abs(predicted[rows] - labels[rows]).mean()))
        for what, rows in (("all", np.arange(len(labels))), ("the top tenth", top))
    ]  # fmt: skip


def train(arguments: argparse.Namespace) -> None:
    """Sample, train, or go on, and report; see the module's text."""
    raw = sampled(arguments.run_dir, arguments.seed, arguments.data_dir)
    graphs = [featurise(Chem.MolFromSmiles(smiles)) for smiles in raw]
    molecules = Labelled(graphs, torch.tensor(list(raw.values())))
    run, path = SurrogateTraining(molecules, arguments.seed, arguments.epochs), arguments.run_dir / WEIGHTS_FILE
    fit(run, arguments.run_dir, path, arguments.seconds, "r")
    held_out = molecules.of(run.held_out)
    predicted = SehSurrogate.load(path, None)(held_out.graphs) / RAW_PER_REWARD
    for what, n, correlation, error in fidelity(predicted.numpy(), held_out.raw.numpy() / RAW_PER_REWARD):
        print(f"held out, {what} ({n}): Spearman correlation {correlation:.4f}, mean absolute error {error:.4f}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"{path}: {run.epoch} epochs of {len(run.train)} in {duration(run.seconds)}; sha256 {digest}")


def main(argv: list[str]) -> int:
    """Run the arguments ``argv``, without the program's name; returns the exit status."""
    description = __doc__.splitlines()[0]
    parser = training.make_parser(
        "mols.proxy_training.train_seh_surrogate", description, "runs/seh_surrogate", n_epochs=14
    )
    parser.add_argument("--data_dir", default="", help="folder of the published weights")
    return training.run(parser.parse_args(argv), train)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
