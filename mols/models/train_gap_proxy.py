"""Train the gap network on QM9, and report its error on the tenth of the molecules that is held out.

    python -m mols.models.train_gap_proxy --seed 1 --epochs 16 --run_dir runs/gap_proxy

Needs the extra `qm9`. The folder gets checkpoint.pt after every epoch, from which the same command goes on (with
another number of epochs, the learning rate is from there on what it would be in a run of that many), and at the end
gap_proxy.pt: the averaged weights of the epoch with the least error on 5,000 molecules that are neither trained on nor
held out. The error reported is that of the file, in single precision. To ship the file, put it into mols/data and its
sha256 into mols/models/gap_proxy.py.
"""

import argparse
import hashlib
import math
import pickle
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from mols.data import qm9
from mols.data.qm9 import EV_PER_HARTREE, Qm9
from mols.experiment import ExperimentError
from mols.models.gap_features import collate, featurise
from mols.models.gap_proxy import GapNetwork, GapProxy

HELD_OUT = 10  # one molecule in ten
N_VALIDATION = 5000  # molecules that choose the epoch
BATCH_SIZE, EVALUATION_BATCH, FEATURISE_BATCH = 128, 1024, 4096  # molecules
LEARNING_RATE, WARM_UP, WEIGHT_DECAY, CLIP = 2e-3, 500, 0.01, 1.0  # at most; steps; ...; gradient norm
EMA_DECAY = 0.999
ORBITAL_WEIGHT = 0.25  # of the errors of HOMO and LUMO beside that of the gap
CHECKPOINT_FILE, WEIGHTS_FILE = "checkpoint.pt", "gap_proxy.pt"


class Molecules(NamedTuple):
    """N molecules as tensors.

    Attributes:
        present, atoms, pairs: as in ``GapBatch``, the features in half precision.
        orbitals: (N, 2) HOMO and LUMO, eV.
    """

    present: Tensor
    atoms: Tensor
    pairs: Tensor
    orbitals: Tensor

    def of(self, rows: Tensor) -> "Molecules":
        """The molecules (M,) of these numbers, in single precision."""
        return Molecules(*(t[rows].float() if t.is_floating_point() else t[rows] for t in self))


def prepare(data: Qm9) -> Molecules:
    """The tensors of QM9, or of a part of it."""
    n_atoms, parts = int(data.n_heavy.max()), []
    for first in range(0, len(data.smiles), FEATURISE_BATCH):
        molecules = [Chem.MolFromSmiles(text) for text in data.smiles[first : first + FEATURISE_BATCH]]
        batch = collate([featurise(molecule) for molecule in molecules], n_atoms)
        parts.append([torch.from_numpy(batch.present), *(torch.from_numpy(x).half() for x in batch[1:])])
    orbitals = torch.from_numpy(np.stack([data.homo, data.lumo], axis=1) * EV_PER_HARTREE).float()
    return Molecules(*map(torch.cat, zip(*parts, strict=True)), orbitals)


def split(n_molecules: int, seed: int, n_validation: int = N_VALIDATION) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of the molecules to train on, to choose the epoch by, and held out."""
    order = torch.randperm(n_molecules, generator=torch.Generator().manual_seed(seed))
    n_held_out = n_molecules // HELD_OUT
    return order[n_held_out + n_validation :], order[n_held_out : n_held_out + n_validation], order[:n_held_out]


def loss_of(predicted: Tensor, orbitals: Tensor) -> Tensor:
    """() mean absolute error of the gap, eV, and a part of those of HOMO and LUMO; both arguments are (N, 2), eV."""
    error = predicted - orbitals
    return (error[:, 1] - error[:, 0]).abs().mean() + ORBITAL_WEIGHT * error.abs().sum(1).mean()


@torch.no_grad()
def error_of(network: GapNetwork, molecules: Molecules, rows: Tensor) -> float:
    """Mean absolute error of the gap over the molecules of these numbers, eV."""
    errors = []
    for some in rows.split(EVALUATION_BATCH):
        *graphs, orbitals = molecules.of(some)
        error = network(*graphs) - orbitals
        errors.append((error[:, 1] - error[:, 0]).abs())
    return torch.cat(errors).mean().item()


def learning_rate(step: int, n_steps: int) -> float:
    """A linear warm-up, times half a period of a cosine that ends at 0."""
    return LEARNING_RATE * min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / n_steps)) / 2


class Training:
    """A run: AdamW with an average of the weights on the side, mixed precision; the same seed gives the same run.

    Args:
        molecules: QM9.
        seed: of the split, the weights and the order.
        n_epochs: until the learning rate is 0.
        n_validation: molecules that choose the epoch.

    Attributes:
        epoch: epochs done.
        seconds: that they took.
        best: least validation error so far, eV.
    """

    def __init__(self, molecules: Molecules, seed: int, n_epochs: int, n_validation: int = N_VALIDATION) -> None:
        self.molecules, self.seed, self.n_epochs = molecules, seed, n_epochs
        self.train, self.validation, self.held_out = split(len(molecules.orbitals), seed, n_validation)
        self.n_batches = len(self.train) // BATCH_SIZE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network, self.average = GapNetwork(), GapNetwork()
        orbitals = molecules.orbitals[self.train]
        self.network.mean.copy_(orbitals.mean(0))
        self.network.scale.copy_(orbitals.std(0))
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(self.network.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
        self.epoch, self.seconds, self.best = 0, 0.0, math.inf
        self.best_weights = self.average.state_dict()

    def run_epoch(self) -> float:
        """Returns the validation error after it, eV."""
        start = time.monotonic()
        generator = torch.Generator().manual_seed(1000 * self.seed + self.epoch)
        order = self.train[torch.randperm(len(self.train), generator=generator)]
        for batch, rows in enumerate(order.split(BATCH_SIZE)[: self.n_batches]):
            rate = learning_rate(self.epoch * self.n_batches + batch, self.n_epochs * self.n_batches)
            self._step(self.molecules.of(rows), rate)
        self.epoch += 1
        error = error_of(self.average, self.molecules, self.validation)
        if error < self.best:
            self.best = error
            self.best_weights = {name: value.clone() for name, value in self.average.state_dict().items()}
        self.seconds += time.monotonic() - start
        return error

    def _step(self, batch: Molecules, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.network(batch.present, batch.atoms, batch.pairs)
        self.optimiser.zero_grad()
        loss_of(predicted.float(), batch.orbitals).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimiser.step()
        with torch.no_grad():
            averages = list(self.average.parameters())
            torch._foreach_lerp_(averages, list(self.network.parameters()), 1 - EMA_DECAY)

    def state_dict(self) -> dict[str, Any]:
        """What the checkpoint holds."""
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "best": self.best,
            "best_weights": self.best_weights,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            ExperimentError: it is of another seed.
        """
        if state["seed"] != self.seed:
            raise ExperimentError(
                f"the checkpoint is of --seed {state['seed']}: go on with it, or choose another --run_dir"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.seconds, self.best = state["epoch"], state["seconds"], state["best"]
        self.best_weights = state["best_weights"]


def save(value: dict[str, Any], path: Path) -> None:
    """Write a file that is there complete or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        torch.save(value, partial)
        partial.replace(path)
    # torch's own writer says RuntimeError for what the system refuses.
    except (OSError, RuntimeError) as error:
        raise ExperimentError(f"cannot write {path} ({error}): choose another --run_dir") from error


def resume(training: Training, path: Path) -> None:
    """Go on from a checkpoint, if there is one."""
    if not path.exists():
        return
    try:
        training.load_state_dict(torch.load(path, weights_only=True))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise ExperimentError(
            f"{path} is damaged or of another program: delete it, or choose another --run_dir"
        ) from error


def smaller(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The matrices in half precision, which the error does not show; vectors as they are."""
    return {name: value.half() if value.ndim > 1 else value for name, value in weights.items()}


def train(run_dir: Path, seed: int, n_epochs: int, seconds: float) -> None:
    """Train, or go on, and report; see the module's text."""
    training = Training(prepare(qm9.read()), seed, n_epochs)
    resume(training, run_dir / CHECKPOINT_FILE)
    start = time.monotonic()
    while training.epoch < n_epochs and time.monotonic() - start < seconds:
        error = training.run_epoch()
        save(training.state_dict(), run_dir / CHECKPOINT_FILE)
        print(f"epoch {training.epoch} of {n_epochs}: {error:.4f} eV after {training.seconds:.0f} s", flush=True)
    path = run_dir / WEIGHTS_FILE
    save(smaller(training.best_weights), path)
    error = error_of(GapProxy.load(path, None).network, training.molecules, training.held_out)
    n_train, n_held_out = len(training.train), len(training.held_out)
    print(f"{path}: mean absolute error {error:.4f} eV on {n_held_out} held-out molecules, ", end="")
    print(f"{training.epoch} epochs of {n_train} in {training.seconds:.0f} s; sha256 ", end="")
    print(hashlib.sha256(path.read_bytes()).hexdigest())


def main(argv: list[str]) -> int:
    """Run the arguments ``argv``, without the program's name; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mols.models.train_gap_proxy", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of the split, the weights and the order (1)")
    parser.add_argument("--epochs", type=int, default=16, help="until the learning rate is 0 (16)")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="end after the epoch in which these have passed"
    )
    parser.add_argument(
        "--run_dir", type=Path, default=Path("runs/gap_proxy"), help="folder of the files (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    arguments = parser.parse_args(argv)
    try:
        if min(arguments.seed + 1, arguments.epochs, arguments.threads) < 1 or not arguments.seconds > 0:
            raise ExperimentError("--epochs, --seconds and --threads start above 0 and --seed at 0: choose others")
        torch.set_num_threads(arguments.threads)
        train(arguments.run_dir, arguments.seed, arguments.epochs, arguments.seconds)
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
