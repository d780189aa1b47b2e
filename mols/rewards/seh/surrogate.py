"""The sEH surrogate: a small message passing network used where the published one is missing.

It reads what the published network reads, `rewards.seh.features`, and gives the same raw output, 8 times the reward
r. With LayerNorm(h) = x, and V of a bond's type, six times

    h_i <- h_i + MLP(x_i, sum over bonds j-i of V(type of j-i) x_j, mean over the molecule's atoms of x_j)

and attention, mean and sum over the atoms are read as the output. `proxy_training.train_seh_surrogate` made the
weights, from molecules of this environment that the published network labelled.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from mols.rewards.seh.features import N_FEATURES, NO_BOND, GraphBatch, MoleculeGraph, collate
from mols.rewards.weights import load_weights

WEIGHTS = Path(__file__).with_name("seh_surrogate.pt")
SHA256 = "2e2e4c9bc4c4d6148a73114ddd098c42fbdd846a864cc3bbf5be57eeccff9c97"
WIDTH, HIDDEN, MESSAGE_WIDTH = 64, 128, 48
N_LAYERS, N_QUERIES = 6, 8
N_TYPES = NO_BOND + 1
TYPICAL_SIZE = 32  # atoms, so that the sum over them is about as large as their mean
CHUNK = 64  # molecules at once: more take more memory and no less time each


class BatchedGraphs:
    """N molecules with n atoms in all, as tensors.

    Attributes:
        features: (n, N_FEATURES).
        sizes: (N, 1) atoms of each, as floating-point numbers.
        molecule, place: (n,) of each atom, and which of the molecule's atoms it is.
        sender, target: (E,) row among (n, type) that a bond's message comes from, and atom that it goes to.
    """

    def __init__(self, batch: GraphBatch) -> None:
        self.features, sizes, edges = (torch.from_numpy(array) for array in batch)
        self.sizes = sizes[:, None].to(self.features)
        self.molecule = torch.arange(len(sizes)).repeat_interleave(sizes)
        self.place = torch.arange(len(self.molecule)) - (sizes.cumsum(0) - sizes)[self.molecule]
        source, self.target, kind = edges.T
        self.sender = source * N_TYPES + kind

    def mean(self, x: Tensor) -> Tensor:
        """(N, W) means over each molecule's atoms of (n, W)."""
        return x.new_zeros(len(self.sizes), x.shape[1]).index_add(0, self.molecule, x) / self.sizes.to(x)

    def padded(self, x: Tensor, absent: float) -> Tensor:
        """(N, A, W) molecule by molecule, of (n, W); ``absent`` where one has fewer than the A atoms of the largest."""
        shape = len(self.sizes), int(self.place.max()) + 1, x.shape[1]
        return x.new_full(shape, absent).index_put((self.molecule, self.place), x)


class SurrogateLayer(nn.Module):
    """One round of messages along the bonds."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.value = nn.Linear(WIDTH, N_TYPES * MESSAGE_WIDTH)
        self.enter = nn.Linear(WIDTH, HIDDEN)
        self.receive = nn.Linear(MESSAGE_WIDTH, HIDDEN, bias=False)
        self.whole = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.leave = nn.Linear(HIDDEN, WIDTH)

    def forward(self, state: Tensor, graphs: BatchedGraphs) -> Tensor:
        """(n, WIDTH) states of n atoms after the round, from those before it."""
        x = self.norm(state)
        sent = self.value(x).view(-1, MESSAGE_WIDTH)
        message = sent.new_zeros(len(state), MESSAGE_WIDTH).index_add(0, graphs.target, sent[graphs.sender])
        whole = self.whole(graphs.mean(x))[graphs.molecule]
        return state + self.leave(silu(self.enter(x) + self.receive(message) + whole))


class SurrogateNetwork(nn.Module):
    """The network with random weights; ``mean`` and ``scale`` are those of the raw outputs in training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.embed = nn.Linear(N_FEATURES, WIDTH)
        self.layers = nn.ModuleList(SurrogateLayer() for _ in range(N_LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.attend = nn.Linear(WIDTH, N_QUERIES)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.read = nn.Sequential(nn.Linear(3 * WIDTH, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1))

    def forward(self, graphs: BatchedGraphs) -> Tensor:
        """(N,) raw outputs."""
        state = self.embed(graphs.features)
        for layer in self.layers:
            state = layer(state, graphs)
        x = self.norm(state)
        weights = graphs.padded(self.attend(x), -torch.inf).softmax(1)
        values = graphs.padded(self.value(x), 0.0).unflatten(2, (N_QUERIES, -1))
        attended = (weights.unsqueeze(3) * values).sum(1).flatten(1)
        mean = graphs.mean(x)
        read = self.read(torch.cat([attended, mean, mean * (graphs.sizes / TYPICAL_SIZE)], dim=1))
        return read.squeeze(1) * self.scale + self.mean


class SehSurrogate:
    """Graphs -> raw outputs, for inference, in the place of ``SehProxy``; ``load`` gives the committed one.

    Args:
        network: evaluated as it is; single precision.
    """

    def __init__(self, network: SurrogateNetwork) -> None:
        self.network = network.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path = WEIGHTS, sha256: str | None = SHA256) -> "SehSurrogate":
        """The network with the weights of a file.

        Args:
            path: as ``mols.proxy_training.train_seh_surrogate`` writes it.
            sha256: of its bytes, in hexadecimal; None: any, for weights of one's own.

        Raises:
            ExperimentError: it cannot be read, is damaged, or holds the weights of another network.
        """
        network = SurrogateNetwork()
        load_weights(network, path, sha256, "surrogate")
        return cls(network)

    @torch.no_grad()
    def __call__(self, graphs: Sequence[MoleculeGraph]) -> Tensor:
        """(N,) raw outputs of N molecules."""
        chunks = (graphs[first : first + CHUNK] for first in range(0, len(graphs), CHUNK))
        return torch.cat([torch.zeros(0), *(self.network(BatchedGraphs(collate(chunk))) for chunk in chunks)])
