"""The gap network: a message passing network's estimate of a molecule's HOMO-LUMO gap, in eV, from its graph alone.

It reads what `mols.rewards.gap.features` makes of a molecule of C, N, O and F: neither chirality nor a conformer. With
LayerNorm(h) = x and F linear in an embedding of the pair of atoms i, j, four times

    h_i <- h_i + MLP(x_i, sum over all atoms j of F_ij * V x_j, mean over j of x_j)

(continuous filters as in SchNet, Schuett et al. 2017, over pairs of the graph, not distances in space); attention, mean
and sum over the atoms are read as HOMO and LUMO, whose difference is the gap. `proxy_training.train_gap_proxy` made
the weights, from QM9 (Ramakrishnan et al. 2014: B3LYP/6-31G(2df,p)).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from rdkit import Chem
from torch import Tensor, nn
from torch.nn.functional import silu

from mols.rewards.gap.features import N_ATOM_FEATURES, N_PAIR_FEATURES, collate, featurise
from mols.rewards.weights import load_weights

WEIGHTS = Path(__file__).with_name("gap_proxy.pt")
SHA256 = "ee85777fc1d85f8d42fe8569292c3ef3b6e57e8e9240b60fbb2b85adb354e9bb"
WIDTH, HIDDEN, MESSAGE_WIDTH, PAIR_WIDTH = 128, 192, 48, 32
N_LAYERS, N_QUERIES = 4, 8
TYPICAL_SIZE = 8  # atoms, so that the sum over them is about as large as their mean
CHUNK = 128  # molecules at once: more take more memory and no less time each


class GapLayer(nn.Module):
    """One round of messages between all pairs of atoms."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.filter = nn.Linear(PAIR_WIDTH, MESSAGE_WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, MESSAGE_WIDTH)
        self.enter = nn.Linear(WIDTH, HIDDEN)
        self.receive = nn.Linear(MESSAGE_WIDTH, HIDDEN, bias=False)
        self.whole = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.leave = nn.Linear(HIDDEN, WIDTH)

    def forward(self, state: Tensor, pairs: Tensor, share: Tensor) -> Tensor:
        """(N, n, WIDTH) states of n atoms after the round.

        Args:
            state: (N, n, WIDTH) before it.
            pairs: (N, n, n, PAIR_WIDTH) embedded pairs; 0 where one of the atoms is absent.
            share: (N, n, 1) one over the molecule's atoms; 0 for an absent one.
        """
        x = self.norm(state)
        message = (self.filter(pairs) * self.value(x).unsqueeze(1)).sum(2)
        mean = share.transpose(1, 2) @ x
        return state + self.leave(silu(self.enter(x) + self.receive(message) + self.whole(mean)))


class GapNetwork(nn.Module):
    """The network with random weights; ``mean`` and ``scale`` are those of HOMO and LUMO in training, eV."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("scale", torch.ones(2))
        self.embed = nn.Linear(N_ATOM_FEATURES, WIDTH)
        self.relate = nn.Linear(N_PAIR_FEATURES, PAIR_WIDTH)
        self.layers = nn.ModuleList(GapLayer() for _ in range(N_LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.attend = nn.Linear(WIDTH, N_QUERIES)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.read = nn.Sequential(nn.Linear(3 * WIDTH, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2))

    def forward(self, present: Tensor, atoms: Tensor, pairs: Tensor) -> Tensor:
        """(N, 2) HOMO and LUMO, eV, of the molecules of a ``GapBatch``, its arrays as tensors."""
        both = (present.unsqueeze(1) & present.unsqueeze(2)).unsqueeze(3)
        related = silu(self.relate(pairs)) * both
        n_atoms = present.sum(1, keepdim=True)
        share = (present / n_atoms).unsqueeze(2)
        state = self.embed(atoms)
        for layer in self.layers:
            state = layer(state, related, share)
        x = self.norm(state)
        attention = self.attend(x).masked_fill(~present.unsqueeze(2), -torch.inf).softmax(1)
        attended = (attention.unsqueeze(3) * self.value(x).unflatten(2, (N_QUERIES, -1))).sum(1).flatten(1)
        mean = (share.transpose(1, 2) @ x).squeeze(1)
        read = self.read(torch.cat([attended, mean, mean * (n_atoms / TYPICAL_SIZE)], dim=1))
        return read * self.scale + self.mean


class GapProxy:
    """Molecules -> gaps, for inference; ``load`` gives the committed one.

    Args:
        network: evaluated as it is; single precision.
    """

    def __init__(self, network: GapNetwork) -> None:
        self.network = network.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path = WEIGHTS, sha256: str | None = SHA256) -> "GapProxy":
        """The network with the weights of a file.

        Args:
            path: as ``mols.proxy_training.train_gap_proxy`` writes it.
            sha256: of its bytes, in hexadecimal; None: any, for weights of one's own.

        Raises:
            ExperimentError: it cannot be read, is damaged, or holds the weights of another network.
        """
        network = GapNetwork()
        load_weights(network, path, sha256, "gap")
        return cls(network)

    @torch.no_grad()
    def __call__(self, molecules: Sequence[Chem.Mol]) -> Tensor:
        """(N,) gaps of N molecules, eV.

        Args:
            molecules: sanitised, hydrogens implicit.

        Raises:
            ExperimentError: one of them is not of C, N, O and F; see ``featurise``.
        """
        graphs = [featurise(molecule) for molecule in molecules]
        gaps = [torch.zeros(0)]
        for first in range(0, len(graphs), CHUNK):
            homo, lumo = self.network(*map(torch.from_numpy, collate(graphs[first : first + CHUNK]))).T
            gaps.append(lumo - homo)
        return torch.cat(gaps)

    def close(self) -> None:
        """Nothing to end: it has no workers."""
