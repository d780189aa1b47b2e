"""MXMNet: a network's estimate of the HOMO-LUMO gap of a molecule in space, in eV.

    python -m mols.rewards.mxmnet.network MOLECULES.json --weights FILE --out raw.csv

Zhang, Liu and Xie 2020, "Molecular Mechanics-Driven Graph Neural Network with Multiplex Graph for Molecular
Structures" (arXiv 2011.07457), with the published parameter names. An atom's state h starts from its element; each of 6
times, two layers pass messages (W are matrices, mlp linear maps with SiLU behind each):

    global  between near atoms, twice:  h_i <- h_i + sum over j of W e_ij * mlp([h_i, h_j, e_ij])
    local   on the edges j -> i of the bonds, with m_ji = [h_i, h_j, e_ji]:
            m_ji <- mlp_ji_1(m_ji) + sum over two-hop edges of mlp_kj(m_kj) * W e_kj * mlp(angle), then
            m_ji <- mlp_ji_2(m_ji) + sum over one-hop edges of mlp_jj(m_j'i) * W e_j'i * mlp(angle), then
            h_i <- sum over j of W e_ji * m_ji

each with residual maps of h behind it, and the molecule's value is the sum of what every local layer reads from every
atom. e are distances in the radial basis, and angles come in the spherical one, see ``mols.rewards.mxmnet.basis``.
"""

import argparse
import sys
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mols.common.terminal import ExperimentError, command
from mols.molecules.csv_files import require_writable, write_raw
from mols.molecules.structures import Structure, read_structures
from mols.rewards.mxmnet.basis import N_RADIAL, N_SPHERICAL, N_SPHERICAL_RADIAL, RadialBasis, angular_part, radial_part
from mols.rewards.mxmnet.graph import ELEMENTS, Atoms, collate, edge_vectors, near_pairs, one_hop_angles, two_hop_angles
from mols.rewards.mxmnet.layers import WIDTH, Edges, GlobalLayer, LocalLayer, perceptron

N_LAYERS = 6
CUTOFF = 5.0  # Angstrom, of the pairs, and of the bases of pairs and bonds
CHUNK = 64  # molecules at once, which bounds the memory; the time of each is about the same from 8 to 128


class MXMNet(nn.Module):
    """The network with random weights, for inference; ``load`` gives a trained one."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(torch.empty(len(ELEMENTS), WIDTH).uniform_(-(3**0.5), 3**0.5))
        self.rbf_l, self.rbf_g = RadialBasis(CUTOFF), RadialBasis(CUTOFF)
        self.rbf_g_mlp, self.rbf_l_mlp = perceptron(N_RADIAL, WIDTH), perceptron(N_RADIAL, WIDTH)
        self.sbf_1_mlp, self.sbf_2_mlp = (perceptron(N_SPHERICAL * N_SPHERICAL_RADIAL, WIDTH) for _ in range(2))
        self.global_layers = nn.ModuleList(GlobalLayer() for _ in range(N_LAYERS))
        self.local_layers = nn.ModuleList(LocalLayer() for _ in range(N_LAYERS))
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path) -> "MXMNet":
        """The network with the weights of a file.

        Args:
            path: what ``torch.save`` wrote of its ``state_dict``.

        Raises:
            ExperimentError: it cannot be read, is damaged, or holds the weights of another network.
        """
        state, network = _read_state(path), cls()
        given, own = ({name: tensor.shape for name, tensor in one.items()} for one in (state, network.state_dict()))
        if given != own:
            name = next(name for name in [*own, *given] if own.get(name) != given.get(name))
            raise ExperimentError(
                f"{path} holds the weights of another network ({name} differs): name the published MXMNet's, "
                f"of width {WIDTH} and {N_LAYERS} layers"
            )
        network.load_state_dict(state)
        return network

    @torch.no_grad()
    def forward(self, structures: Sequence[Structure]) -> Tensor:
        """(N,) gaps of N molecules, eV.

        Raises:
            ExperimentError: an element is none that the network knows.
        """
        chunks = [structures[first : first + CHUNK] for first in range(0, len(structures), CHUNK)]
        values = [self._raw(collate(chunk, self.embeddings.device), len(chunk)) for chunk in chunks]
        return torch.cat([self.embeddings.new_empty(0), *values])

    def _raw(self, atoms: Atoms, n_molecules: int) -> Tensor:
        pairs, edges = near_pairs(atoms, CUTOFF), self._edges(atoms)
        distance = self.rbf_g_mlp(self._cast(self.rbf_g(pairs.distance)))
        state, read = self.embeddings[atoms.kind], 0
        for global_layer, local_layer in zip(self.global_layers, self.local_layers, strict=True):
            state, value = local_layer(global_layer(state, pairs, distance), edges)
            read = read + value
        return state.new_zeros(n_molecules).index_add_(0, atoms.molecule, read.squeeze(1))

    def _edges(self, atoms: Atoms) -> Edges:
        vectors = edge_vectors(atoms)
        distance = vectors.norm(dim=1)
        radial = radial_part(distance, CUTOFF)
        embedded = []
        for find_angles, network in ((two_hop_angles, self.sbf_1_mlp), (one_hop_angles, self.sbf_2_mlp)):
            sender, receiver, cosine = find_angles(atoms, vectors)
            basis = radial[sender] * angular_part(cosine).unsqueeze(2)
            embedded.append((sender, receiver, network(self._cast(basis.flatten(1)))))
        distance = self.rbf_l_mlp(self._cast(self.rbf_l(distance)))
        return Edges(atoms.source, atoms.target, distance, *embedded)

    def _cast(self, basis: Tensor) -> Tensor:
        """Bases are evaluated in float64, whatever the network's precision."""
        return basis.to(self.embeddings.dtype)


def _read_state(path: Path) -> dict[str, Tensor]:
    """A file's named tensors, checked to be finite."""
    advice = "name a file of weights that torch.save wrote"
    try:
        if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip():
            raise ValueError("bad checksum")  # which torch itself does not look at
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's of a foreign pickle, which is refused anyway
            state = torch.load(path, weights_only=True, map_location="cpu")
        if not isinstance(state, dict) or not all(map(_is_finite_tensor, state.values())):
            raise ValueError("it is not a table of finite tensors")
    except FileNotFoundError as error:
        raise ExperimentError(f"{path} is not there: {advice}") from error
    # What a damaged zip or pickle raises is the unpickler's choice: all of it means the same to the user.
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ExperimentError(f"{path} is not a file of weights ({reason}): {advice}") from error
    return state


def _is_finite_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(value.isfinite().all())


def main(argv: list[str]) -> int:
    """Run the arguments ``argv``, without the program's name; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mols.rewards.mxmnet.network", description=__doc__.splitlines()[0])
    parser.add_argument("molecules", type=Path, metavar="MOLECULES.json", help="molecules with their positions")
    parser.add_argument("--weights", type=Path, required=True, help="the weights, as torch.save wrote them")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write: columns smiles, raw (eV)")
    arguments = parser.parse_args(argv)
    return command(lambda: write_outputs(**vars(arguments)))


def write_outputs(molecules: Path, weights: Path, out: Path) -> None:
    """Write a CSV with the columns smiles and raw, a row for each molecule of a JSON.

    Args:
        molecules: see ``mols.molecules.structures``.
        weights: as in ``MXMNet.load``.
        out: the file to write; there must be none yet.

    Raises:
        ExperimentError: a file is missing or wrong, or ``out`` exists.
    """
    require_writable(out)
    listed = read_structures(molecules, ELEMENTS)
    raw = MXMNet.load(weights)([structure for _, structure in listed])
    if not raw.isfinite().all():
        raise ExperimentError(f"{weights} gives outputs that are not finite: name the published MXMNet's weights")
    write_raw(out, zip((smiles for smiles, _ in listed), raw.tolist(), strict=True))
    print(f"{len(listed)} molecules in {out}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
