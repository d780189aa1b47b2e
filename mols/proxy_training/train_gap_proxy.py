"""Train the gap network on QM9, and report its error on the tenth of the molecules that is held out.

    python -m mols.proxy_training.train_gap_proxy --seed 1 --epochs 16 --run_dir runs/gap_proxy

Needs the extra `qm9`. The folder gets what `mols.proxy_training.training` says, and at the end gap_proxy.pt: the
averaged weights of the epoch with the least error on 5,000 molecules that are neither trained on nor held out. The
error reported is that of the file, in single precision. To ship the file, put it into mols/rewards/gap and its sha256
into mols/rewards/gap/proxy.py.
"""

import argparse
import hashlib
import sys
from typing import NamedTuple

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from mols.common.terminal import duration
from mols.molecules import qm9
from mols.molecules.qm9 import EV_PER_HARTREE, Qm9
from mols.proxy_training import training
from mols.proxy_training.training import Training, fit
from mols.rewards.gap.features import collate, featurise
from mols.rewards.gap.proxy import GapNetwork, GapProxy

N_VALIDATION = 5000  # molecules that choose the epoch
EVALUATION_BATCH, FEATURISE_BATCH = 1024, 4096  # molecules
ORBITAL_WEIGHT = 0.25  # of the errors of HOMO and LUMO beside that of the gap
WEIGHTS_FILE = "gap_proxy.pt"


class MoleculeTensors(NamedTuple):
    """N molecules as tensors.

    Attributes:
        present, atoms, pairs: as in ``GapBatch``, the features in half precision.
        orbitals: (N, 2) HOMO and LUMO, eV.
    """

    present: Tensor
    atoms: Tensor
    pairs: Tensor
    orbitals: Tensor

    def of(self, rows: Tensor) -> "MoleculeTensors":
        """The molecules (M,) of these numbers, in single precision."""
        return MoleculeTensors(*(t[rows].float() if t.is_floating_point() else t[rows] for t in self))


def prepare(data: Qm9) -> MoleculeTensors:
    """The tensors of QM9, or of a part of it."""
    n_atoms, parts = int(data.n_heavy.max()), []
    for first in range(0, len(data.smiles), FEATURISE_BATCH):
        molecules = [Chem.MolFromSmiles(text) for text in data.smiles[first : first + FEATURISE_BATCH]]
        batch = collate([featurise(molecule) for molecule in molecules], n_atoms)
        parts.append([torch.from_numpy(batch.present), *(torch.from_numpy(x).half() for x in batch[1:])])
    orbitals = torch.from_numpy(np.stack([data.homo, data.lumo], axis=1) * EV_PER_HARTREE).float()
    return MoleculeTensors(*map(torch.cat, zip(*parts, strict=True)), orbitals)


def loss_of(predicted: Tensor, orbitals: Tensor) -> Tensor:
    """() mean absolute error of the gap, eV, and a part of those of HOMO and LUMO; both arguments are (N, 2), eV."""
    error = predicted - orbitals
    return (error[:, 1] - error[:, 0]).abs().mean() + ORBITAL_WEIGHT * error.abs().sum(1).mean()


@torch.no_grad()
def error_of(network: GapNetwork, molecules: MoleculeTensors, rows: Tensor) -> float:
    """Mean absolute error of the gap over the molecules of these numbers, eV."""
    errors = []
    for some in rows.split(EVALUATION_BATCH):
        *graphs, orbitals = molecules.of(some)
        error = network(*graphs) - orbitals
        errors.append((error[:, 1] - error[:, 0]).abs())
    return torch.cat(errors).mean().item()


class GapTraining(Training):
    """A run on QM9, in mixed precision.

    Args:
        molecules: QM9.
        seed, n_epochs, n_validation: as in ``Training``; errors are in eV.
    """

    def __init__(self, molecules: MoleculeTensors, seed: int, n_epochs: int, n_validation: int = N_VALIDATION) -> None:
        self.molecules = molecules
        super().__init__(molecules.orbitals, GapNetwork, seed, n_epochs, n_validation)

    def batch_of(self, rows: Tensor) -> MoleculeTensors:
        """The molecules of these numbers."""
        return self.molecules.of(rows)

    def loss(self, batch: MoleculeTensors) -> Tensor:
        """() ``loss_of`` a batch."""
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.network(batch.present, batch.atoms, batch.pairs)
        return loss_of(predicted.float(), batch.orbitals)

    def error(self, network: GapNetwork, rows: Tensor) -> float:
        """Mean absolute error of the gap, eV."""
        return error_of(network, self.molecules, rows)


def train(arguments: argparse.Namespace) -> None:
    """Train, or go on, and report; see the module's text."""
    gap, path = GapTraining(prepare(qm9.read_qm9()), arguments.seed, arguments.epochs), arguments.run_dir / WEIGHTS_FILE
    fit(gap, arguments.run_dir, path, arguments.seconds, "eV")
    error = gap.error(GapProxy.load(path, None).network, gap.held_out)
    n_train, n_held_out = len(gap.train), len(gap.held_out)
    print(f"{path}: mean absolute error {error:.4f} eV on {n_held_out} held-out molecules, ", end="")
    print(f"{gap.epoch} epochs of {n_train} in {duration(gap.seconds)}; sha256 ", end="")
    print(hashlib.sha256(path.read_bytes()).hexdigest())


def main(argv: list[str]) -> int:
    """Run the arguments ``argv``, without the program's name; returns the exit status."""
    description = __doc__.splitlines()[0]
    parser = training.make_parser("mols.proxy_training.train_gap_proxy", description, "runs/gap_proxy", n_epochs=16)
    return training.run(parser.parse_args(argv), train)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
