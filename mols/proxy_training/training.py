"""How this package's own networks are trained: AdamW with an average of the weights on the side, and a run folder.

The folder gets checkpoint.pt after every epoch, from which the same command goes on (with another number of epochs, the
learning rate is from there on what it would be in a run of that many). The averaged weights of the epoch with the least
error on the validation molecules are kept. A tenth of the molecules is held out: neither trained on, nor validated by.
"""

import argparse
import io
import math
import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mols.common.files import make_folder, written
from mols.common.terminal import ExperimentError, command, duration

HELD_OUT = 10  # one molecule in ten
BATCH_SIZE = 128  # molecules
LEARNING_RATE, WARM_UP, WEIGHT_DECAY, CLIP = 2e-3, 500, 0.01, 1.0  # at most; steps; ...; gradient norm
EMA_DECAY = 0.999
CHECKPOINT_FILE = "checkpoint.pt"


def split(n_molecules: int, seed: int, n_validation: int) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of the molecules to train on, to choose the epoch by, and held out."""
    order = torch.randperm(n_molecules, generator=torch.Generator().manual_seed(seed))
    n_held_out = n_molecules // HELD_OUT
    return order[n_held_out + n_validation :], order[n_held_out : n_held_out + n_validation], order[:n_held_out]


def learning_rate(step: int, n_steps: int) -> float:
    """A linear warm-up, times half a period of a cosine that ends at 0."""
    return LEARNING_RATE * min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / n_steps)) / 2


class Training(ABC):
    """A run: the same seed gives the same run. What is learned, and from what, a subclass says.

    Args:
        targets: (N,) or (N, K) of all molecules.
        new_network: with buffers ``mean`` and ``scale`` of the targets.
        seed: of the split, the weights and the order.
        n_epochs: until the learning rate is 0.
        n_validation: molecules that choose the epoch.

    Attributes:
        train, validation, held_out: numbers of the molecules.
        epoch: epochs done.
        seconds: that they took.
        best: least validation error so far.
    """

    def __init__(
        self, targets: Tensor, new_network: Callable[[], nn.Module], seed: int, n_epochs: int, n_validation: int
    ) -> None:
        self.seed, self.n_epochs = seed, n_epochs
        self.train, self.validation, self.held_out = split(len(targets), seed, n_validation)
        self.n_batches = len(self.train) // BATCH_SIZE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network, self.average = new_network(), new_network()
        self.network.mean.copy_(targets[self.train].mean(0))
        self.network.scale.copy_(targets[self.train].std(0))
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(self.network.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
        self.epoch, self.seconds, self.best = 0, 0.0, math.inf
        self.best_weights = self.average.state_dict()

    @abstractmethod
    def batch_of(self, rows: Tensor) -> Any:
        """The molecules (M,) of these numbers, as ``loss`` takes them."""

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """() of the network on a batch."""

    @abstractmethod
    def error(self, network: nn.Module, rows: Tensor) -> float:
        """What the epoch is chosen by, over the molecules of these numbers."""

    def run_epoch(self) -> float:
        """Returns the validation error after it."""
        start = time.monotonic()
        generator = torch.Generator().manual_seed(1000 * self.seed + self.epoch)
        order = self.train[torch.randperm(len(self.train), generator=generator)]
        for batch, rows in enumerate(order.split(BATCH_SIZE)[: self.n_batches]):
            rate = learning_rate(self.epoch * self.n_batches + batch, self.n_epochs * self.n_batches)
            self._step(self.batch_of(rows), rate)
        self.epoch += 1
        error = self.error(self.average, self.validation)
        if error < self.best:
            self.best = error
            self.best_weights = {name: value.clone() for name, value in self.average.state_dict().items()}
        self.seconds += time.monotonic() - start
        return error

    def _step(self, batch: Any, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self.loss(batch)
        self.optimiser.zero_grad()
        loss.backward()
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
    make_folder(path.parent)
    content = io.BytesIO()  # on a full disk torch itself says little
    torch.save(value, content)
    with written(path, binary=True) as file:
        file.write(content.getbuffer())


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


def fit(training: Training, run_dir: Path, weights: Path, seconds: float, unit: str) -> None:
    """Train, or go on, and write the best weights.

    Args:
        training: of the molecules.
        run_dir: the folder of the checkpoint.
        weights: the file to write.
        seconds: end after the epoch in which these have passed.
        unit: of the error.
    """
    resume(training, run_dir / CHECKPOINT_FILE)
    start = time.monotonic()
    while training.epoch < training.n_epochs and time.monotonic() - start < seconds:
        error = training.run_epoch()
        save(training.state_dict(), run_dir / CHECKPOINT_FILE)
        done = f"epoch {training.epoch} of {training.n_epochs}"
        print(f"{done}: {error:.4f} {unit} after {duration(training.seconds)}", flush=True)
    save(smaller(training.best_weights), weights)


def make_parser(prog: str, description: str, run_dir: str, n_epochs: int) -> argparse.ArgumentParser:
    """The options that every training has."""
    parser = argparse.ArgumentParser(prog=f"python -m {prog}", description=description)
    parser.add_argument("--seed", type=int, default=1, help="of the split, the weights and the order (1)")
    parser.add_argument("--epochs", type=int, default=n_epochs, help="until the learning rate is 0 (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="end after the epoch in which these have passed"
    )
    parser.add_argument("--run_dir", type=Path, default=Path(run_dir), help="folder of the files (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    return parser


def run(arguments: argparse.Namespace, train: Callable[[argparse.Namespace], None]) -> int:
    """Check the arguments and train; returns the exit status."""

    def work() -> None:
        if min(arguments.seed + 1, arguments.epochs, arguments.threads) < 1 or not arguments.seconds > 0:
            raise ExperimentError("--epochs, --seconds and --threads start above 0 and --seed at 0: choose others")
        torch.set_num_threads(arguments.threads)
        train(arguments)

    return command(work, "repeat the command to go on")
