"""The sEH proxy: a message passing network's estimate of how well a molecule binds to soluble epoxide hydrolase.

    python -m mols.rewards.seh.proxy SMILES.csv --out raw.csv

The network of Bengio et al. 2021 with its published weights. An atom's state h starts from its features; 12 times,

    m_i = leaky_relu(W h_i + b + mean over bonds j-i of h_j M(type of j-i)),   h_i <- GRU(m_i, h_i)

and set2set (Vinyals et al. 2016) reads the molecule's value from its atoms in 3 rounds of attention. M is a network of
the bond's type, of which there are four: it is evaluated four times, not once per bond, and each product with an M(t)
takes the atoms that have a bond of type t, once each, however many there are.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rdkit import Chem
from rdkit.rdBase import BlockLogs
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.rnn import pad_sequence

from mols.common.terminal import ExperimentError, command
from mols.molecules.csv_files import read_columns, require_writable, write_raw
from mols.rewards.downloads import find
from mols.rewards.seh.features import N_FEATURES, NO_BOND, GraphBatch, MoleculeGraph, collate, featurise
from mols.rewards.seh.restricted_pickle import load_arrays

WEIGHTS_FILE = "bengio2021flow_proxy.pkl.gz"
WIDTH, EDGE_WIDTH = 64, 128
N_STEPS, N_ROUNDS = 12, 3
CHUNK = 64  # molecules at once: more take more memory and no less time each

# What the published file's arrays are, in their order; None: heads of another task of the same network.
ARRAYS = (
    *("embed.weight", "embed.bias", "root.weight", "root.bias"),
    *("edge.0.weight", "edge.0.bias", "edge.2.weight", "edge.2.bias"),
    *("update.weight_ih", "update.weight_hh", "update.bias_ih", "update.bias_hh"),
    *(None, None, None, None),
    *("query.weight_ih", "query.weight_hh", "query.bias_ih", "query.bias_hh"),
    *("out.weight", "out.bias"),
)


class SehProxy(nn.Module):
    """The network with random weights, for inference; ``load`` gives the published one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(N_FEATURES, WIDTH)
        self.root = nn.Linear(WIDTH, WIDTH)
        self.edge = nn.Sequential(nn.Linear(NO_BOND, EDGE_WIDTH), nn.LeakyReLU(), nn.Linear(EDGE_WIDTH, WIDTH**2))
        self.update = nn.GRUCell(WIDTH, WIDTH)
        self.query = nn.LSTMCell(2 * WIDTH, WIDTH)
        self.out = nn.Linear(2 * WIDTH, 1)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path) -> "SehProxy":
        """The network with the weights of a file.

        Args:
            path: a gzipped pickle of arrays as ``ARRAYS`` lists them.

        Raises:
            ExperimentError: it is damaged, or the weights of another network.
        """
        arrays, proxy = load_arrays(path), cls()
        given = [array.shape for array in arrays]
        shapes = {name: tuple(parameter.shape) for name, parameter in proxy.named_parameters()}
        if len(arrays) != len(ARRAYS) or any(
            name is not None and shape != shapes[name] for name, shape in zip(ARRAYS, given, strict=True)
        ):
            raise ExperimentError(f"{path} holds the weights of another network: replace it by the published file")
        named = zip(ARRAYS, arrays, strict=True)
        proxy.load_state_dict({name: torch.from_numpy(array) for name, array in named if name is not None})
        return proxy

    @torch.no_grad()
    def forward(self, graphs: Sequence[MoleculeGraph]) -> Tensor:
        """(N,) raw output of N molecules: 8 times the reward r, before that is clipped."""
        chunks = [collate(graphs[first : first + CHUNK]) for first in range(0, len(graphs), CHUNK)]
        return torch.cat([self.out.bias[:0], *map(self._raw, chunks)])

    def _raw(self, batch: GraphBatch) -> Tensor:
        features = torch.from_numpy(batch.features).to(self.out.bias)
        sizes, edges = (torch.from_numpy(array).to(features.device) for array in (batch.sizes, batch.edges))
        return self._read_out(self._atom_states(features, *edges.T), sizes)

    def _atom_states(self, features: Tensor, source: Tensor, target: Tensor, kind: Tensor) -> Tensor:
        """(n, WIDTH) states of n atoms after the last step.

        Args:
            features: (n, N_FEATURES).
            source, target, kind: (E,) edges.
        """
        matrices = self._edge_matrices()
        n_atoms = len(features)
        # An atom sends the same along all its edges of a type, so that senders are the distinct (type, atom).
        senders, sender = (kind * n_atoms + source).unique(return_inverse=True)
        atoms, counts = senders % n_atoms, (senders // n_atoms).bincount(minlength=len(matrices)).tolist()
        share = 1 / target.bincount(minlength=n_atoms)[target].to(features).unsqueeze(1)
        state = leaky_relu(self.embed(features))
        for _ in range(N_STEPS):
            sent = torch.cat([x @ matrix for x, matrix in zip(state[atoms].split(counts), matrices, strict=True)])
            message = self.root(state).index_add_(0, target, sent[sender] * share)
            state = self.update(leaky_relu(message), state)
        return state

    def _edge_matrices(self) -> Tensor:
        """(NO_BOND + 1, WIDTH, WIDTH) M of each type of bond, and of features that are all 0."""
        types = torch.eye(NO_BOND + 1, NO_BOND).to(self.out.bias)
        return self.edge(types).view(-1, WIDTH, WIDTH)

    def _read_out(self, state: Tensor, sizes: Tensor) -> Tensor:
        """(n, WIDTH) states of the atoms of N molecules -> (N,)."""
        atoms = pad_sequence(state.split(sizes.tolist()), batch_first=True)
        absent = torch.arange(atoms.shape[1], device=sizes.device) >= sizes[:, None]
        read, memory = state.new_zeros(len(sizes), 2 * WIDTH), None
        for _ in range(N_ROUNDS):
            memory = self.query(read, memory)
            question = memory[0].unsqueeze(2)
            attention = (atoms @ question).squeeze(2).masked_fill(absent, -torch.inf).softmax(1)
            read = torch.cat([memory[0], (attention.unsqueeze(1) @ atoms).squeeze(1)], dim=1)
        return self.out(read).squeeze(1)


def load_proxy(data_dir: str | Path | None = None) -> SehProxy:
    """The published network.

    Args:
        data_dir: the folder of its weights; None: wherever they are found, see ``mols.rewards.downloads``.

    Raises:
        ExperimentError: the weights are missing.
    """
    return SehProxy.load(find(WEIGHTS_FILE, data_dir))


def main(argv: list[str]) -> int:
    """Run the arguments ``argv``, without the program's name; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mols.rewards.seh.proxy", description=__doc__.splitlines()[0])
    parser.add_argument("smiles", type=Path, metavar="SMILES.csv", help="a CSV with a column smiles")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write: columns smiles, raw")
    parser.add_argument("--data_dir", help="folder of the weights (GFLOWNET_TLM_DATA, the cache, a download)")
    arguments = parser.parse_args(argv)
    return command(lambda: write_outputs(**vars(arguments)))


def write_outputs(smiles: Path, out: Path, data_dir: str | None = None) -> None:
    """Write a CSV with the columns smiles and raw, a row for each row of ``smiles``, raw empty where there is none.

    Args:
        smiles: a CSV with a column smiles.
        out: the file to write; there must be none yet.
        data_dir: as in ``load_proxy``.

    Raises:
        ExperimentError: a file is missing or wrong, or ``out`` exists.
    """
    require_writable(out)
    texts = [text for (text,) in read_columns(smiles, ["smiles"])]
    graphs = [_graph(text) for text in texts]
    known = [graph for graph in graphs if graph is not None]
    values = iter(load_proxy(data_dir)(known).tolist())
    write_raw(out, [(text, None if graph is None else next(values)) for text, graph in zip(texts, graphs, strict=True)])
    if skipped := len(texts) - len(known):
        print(f"{skipped} SMILES are not molecules that the network takes: their raw is empty", file=sys.stderr)
    print(f"{len(known)} molecules in {out}")


def _graph(smiles: str) -> MoleculeGraph | None:
    """The molecule of a SMILES; None if it is none, or none that the network takes."""
    with BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    try:
        return None if molecule is None else featurise(molecule)
    except ExperimentError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
