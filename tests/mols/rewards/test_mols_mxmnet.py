"""MXMNet: published names and values, slow loops beside it, symmetries, its weights, and its command."""

import csv
import json
import math
import os
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from each import each
from scipy.special import eval_legendre, spherical_jn
from shared_data import SHARED, needs
from torch.nn.functional import silu

import mols
from mols.common.terminal import ExperimentError
from mols.molecules.structures import Structure, read_structures
from mols.rewards.mxmnet.basis import _bessel_constants
from mols.rewards.mxmnet.graph import ELEMENTS
from mols.rewards.mxmnet.network import CHUNK, MXMNet

REFERENCE, PARAMETERS = SHARED / "mxmnet_reference.json", SHARED / "mxmnet_parameters.csv"
needs_data = needs(REFERENCE.name, PARAMETERS.name)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def filled():
    """The network with the parameters that the reference states."""
    network = MXMNet()
    for name, parameter in network.named_parameters():
        if not name.endswith(".freq"):
            shape = parameter.shape
            draws = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape.numel())
            parameter.copy_(torch.from_numpy(draws.reshape(shape) / np.sqrt(shape[-1]) * 0.5))
    return network


@pytest.fixture(scope="module")
def network():
    """The reference's parameters in double precision, but for frequencies, which differ as trained ones do."""
    network = filled().double()
    network.rbf_l.freq *= 1.01
    network.rbf_g.freq *= 0.98
    return network


def structure(n_atoms, seed, scale=1.5):
    """Random positions and elements; a chain of bonds, a ring's, and a last atom without any."""
    rng = np.random.default_rng(seed)
    bonds = [(i, i + 1) for i in range(n_atoms - 2)] + ([(0, n_atoms - 2)] if n_atoms > 4 else [])
    positions = scale * rng.standard_normal((n_atoms, 3))
    return Structure(rng.choice([1, 6, 7, 8, 9], n_atoms), positions, np.array(bonds, dtype=np.int64).reshape(-1, 2))


STRUCTURES = [structure(n, seed=n) for n in (1, 2, 5, 8)] + [structure(6, seed=0, scale=4.0)]


@needs_data
def test_parameters_have_the_published_names_and_shapes():
    with PARAMETERS.open(newline="") as file:
        expected = {row["name"]: row["shape"] for row in csv.DictReader(file)}
    state = MXMNet().state_dict()
    assert {name: "x".join(map(str, tensor.shape)) for name, tensor in state.items()} == expected
    assert list(state) == list(expected) and len(expected) == 371


@needs_data
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_outputs_are_the_published_networks(precision):
    expected = [molecule["output"] for molecule in json.loads(REFERENCE.read_text())["molecules"]]
    structures = [structure for _, structure in read_structures(REFERENCE, ELEMENTS)]
    found = filled().to(precision)(structures)
    assert len(expected) == 8 and found.dtype == precision
    assert found.tolist() == pytest.approx(expected, rel=2e-6)


class Slow:
    """One molecule, atom by atom and edge by edge, with the angles that arc cosines give."""

    def __init__(self, network, molecule):
        self.network, self.positions = network, molecule.positions
        self.atoms = range(len(molecule.numbers))
        self.kinds = [[1, 6, 7, 8, 9].index(number) for number in molecule.numbers]
        self.edges = [edge for a, b in molecule.bonds.tolist() for edge in ((a, b), (b, a))]

    def distance(self, i, j):
        return math.dist(self.positions[i], self.positions[j])

    def angle(self, a, b, c, d):
        """Between the directions a to b and c to d."""
        one, other = self.positions[b] - self.positions[a], self.positions[d] - self.positions[c]
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        return math.acos(max(-1, min(1, cosine)))

    def envelope(self, d):
        x = d / 5
        return 1 / x - 21 * x**5 + 35 * x**6 - 15 * x**7 if x < 1 else 0

    def radial(self, d, basis):
        return torch.tensor([self.envelope(d) * math.sin(f * d / 5) for f in basis.freq.tolist()]).double()

    def spherical(self, d, angle):
        rows = []
        for order, zeros in enumerate(_bessel_constants()[0]):
            scale = math.sqrt(2) / np.abs(spherical_jn(order + 1, zeros))
            harmonic = math.sqrt((2 * order + 1) / 4 / math.pi) * eval_legendre(order, math.cos(angle))
            rows.append(self.envelope(d) * scale * spherical_jn(order, zeros * min(d / 5, 1)) * harmonic)
        return torch.from_numpy(np.concatenate(rows))

    def __call__(self):
        net, states, value = self.network, [self.network.embeddings[kind] for kind in self.kinds], 0
        for among_all, along_bonds in zip(net.global_layers, net.local_layers, strict=True):
            states = self.among_all(among_all, states)
            states = self.along_bonds(along_bonds, states)
            value += sum(along_bonds.y_W(along_bonds.y_mlp(state)).item() for state in states)
        return value

    def among_all(self, layer, states):
        def passed(of):
            out = []
            for i in self.atoms:
                out.append(of[i])
                for j in self.atoms:
                    if i != j and self.distance(i, j) < 5:
                        e = self.network.rbf_g_mlp(self.radial(self.distance(i, j), self.network.rbf_g))
                        linear = layer.x_edge_mlp[0][0]
                        inner = linear.weight @ torch.cat([of[i], of[j], e]) + linear.bias
                        out[-1] = out[-1] + (layer.linear.weight @ e) * silu(inner)
            return out

        after = passed([layer.h_mlp(state) for state in states])
        after = [layer.mlp(layer.res1(new)) + old for new, old in zip(after, states, strict=True)]
        return passed([layer.res3(layer.res2(state)) for state in after])

    def along_bonds(self, layer, states):
        net, first = self.network, [layer.h_mlp(state) for state in states]
        e = {(j, i): net.rbf_l_mlp(self.radial(self.distance(i, j), net.rbf_l)) for j, i in self.edges}
        ends = {(j, i): torch.cat([first[i], first[j], e[j, i]]) for j, i in self.edges}
        message = {edge: self.of_ends(layer.mlp_ji_1, ends[edge]) for edge in self.edges}
        for j, i in self.edges:
            for k in self.atoms:
                if (k, j) in e and k != i:
                    basis = self.spherical(self.distance(k, j), self.angle(i, j, j, k))
                    sent = self.of_ends(layer.mlp_kj, ends[k, j]) * (layer.lin_rbf1.weight @ e[k, j])
                    message[j, i] = message[j, i] + sent * layer.mlp_sbf1(net.sbf_1_mlp(basis))
        second = {edge: layer.mlp_ji_2(message[edge]) for edge in self.edges}
        for j, i in self.edges:
            for k in self.atoms:
                if (k, i) in e:
                    basis = self.spherical(self.distance(k, i), self.angle(j, i, i, k))
                    sent = layer.mlp_jj(message[k, i]) * (layer.lin_rbf2.weight @ e[k, i])
                    second[j, i] = second[j, i] + sent * layer.mlp_sbf2(net.sbf_2_mlp(basis))
        out = []
        for i in self.atoms:
            arriving = [layer.lin_rbf_out.weight @ e[edge] * second[edge] for edge in self.edges if edge[1] == i]
            after = layer.h_mlp(layer.res1(sum(arriving, torch.zeros_like(states[i])))) + states[i]
            out.append(layer.res3(layer.res2(after)))
        return out

    def of_ends(self, network, ends):
        return silu(network[0][0].weight @ ends + network[0][0].bias)


@each("number", range(len(STRUCTURES)))
def test_outputs_are_what_loops_find(network, number):
    molecule = STRUCTURES[number]
    assert network([molecule]).item() == pytest.approx(Slow(network, molecule)(), rel=1e-9)


def test_a_batch_is_its_molecules_one_by_one(network):
    many = (STRUCTURES * CHUNK)[: CHUNK + 7]
    alone = [network([one]).item() for one in STRUCTURES]
    assert network(many).tolist() == pytest.approx((alone * CHUNK)[: CHUNK + 7], rel=1e-12)
    assert len(set(alone)) == len(alone) and network([]).shape == (0,)


def test_nothing_depends_on_how_a_molecule_lies_or_is_numbered(network):
    rng = np.random.default_rng(4)
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    for molecule in STRUCTURES:
        (value,) = network([molecule]).tolist()
        order = rng.permutation(len(molecule.numbers))
        place = np.argsort(order)  # where each atom goes
        bonds = rng.permutation(place[molecule.bonds])
        bonds[::2] = bonds[::2, ::-1]
        others = [
            molecule._replace(positions=molecule.positions @ rotation.T),
            molecule._replace(positions=molecule.positions * [1, 1, -1]),
            molecule._replace(positions=molecule.positions + np.array([3, -40, 0.5])),
            Structure(molecule.numbers[order], molecule.positions[order], bonds),
        ]
        assert network(others).tolist() == pytest.approx([value] * 4, rel=1e-9)


def test_elements_positions_and_bonds_all_count(network):
    molecule = STRUCTURES[3]
    moved, changed = molecule.positions.copy(), molecule.numbers.copy()
    moved[2] += 0.01
    changed[2] = 1 if changed[2] != 1 else 6
    others = [
        molecule,
        molecule._replace(positions=moved),
        molecule._replace(numbers=changed),
        molecule._replace(bonds=molecule.bonds[1:]),
    ]
    values = network(others)
    assert (values[:, None] - values).abs().add(torch.eye(4)).min() > 1e-5


def test_molecules_far_from_each_other_add_up(network):
    one, other = STRUCTURES[2], STRUCTURES[3]
    both = Structure(
        np.concatenate([one.numbers, other.numbers]),
        np.concatenate([one.positions, other.positions + 100]),
        np.concatenate([one.bonds, other.bonds + len(one.numbers)]),
    )
    assert network([both]).item() == pytest.approx(network([one, other]).sum().item(), rel=1e-12)


def save(path, state, **options):
    torch.save(state, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_loaded_as_they_were_saved(tmp_path, zipped):
    network = filled()
    path = save(tmp_path / "a.pt", network.state_dict(), _use_new_zipfile_serialization=zipped)
    loaded = MXMNet.load(path)
    assert loaded(STRUCTURES).tolist() == network(STRUCTURES).tolist() != MXMNet()(STRUCTURES).tolist()
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def other_states():
    """States that are not this network's, and what is said of each."""
    state, freq = MXMNet().state_dict(), "rbf_l.freq"
    without = {name: tensor for name, tensor in state.items() if name != freq}
    another = r"weights of another network \({}.* differs\): name the published"
    yield without, another.format(freq)
    yield state | {"more": torch.ones(2)}, another.format("more")
    yield state | {freq: torch.ones(17)}, another.format(freq)
    yield {f"module.{name}": tensor for name, tensor in state.items()}, another.format("embeddings")
    yield {}, another.format("embeddings")
    yield state | {freq: torch.full((16,), torch.nan)}, "not a file of weights .*finite tensors"
    yield state | {freq: torch.ones(16, dtype=torch.int64)}, "not a file of weights .*finite tensors"
    yield state | {freq: [1.0] * 16}, "not a file of weights .*finite tensors"
    yield list(state.values()), "not a file of weights .*finite tensors"


def test_other_weights_are_refused(tmp_path):
    for state, message in other_states():
        with pytest.raises(ExperimentError, match=message):
            MXMNet.load(save(tmp_path / "a.pt", state))


class Trap:
    """A pickle of it would write a file."""

    def __reduce__(self):
        return (Path.touch, (Path(os.environ["TRAP"]),))


def test_a_file_that_is_no_weights_is_refused_and_never_run(tmp_path, monkeypatch, recwarn):
    monkeypatch.setenv("TRAP", str(tmp_path / "trap"))
    good = save(tmp_path / "good.pt", MXMNet().state_dict()).read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for content in (b"", b"weights", good[: len(good) // 2], bytes(flipped), pickle.dumps(Trap())):
        (tmp_path / "a.pt").write_bytes(content)
        with pytest.raises(ExperimentError, match=r"a\.pt is not a file of weights .*: name a file") as error:
            MXMNet.load(tmp_path / "a.pt")
        assert "\n" not in str(error.value)
    with pytest.raises(ExperimentError, match="not a file of weights"):
        MXMNet.load(save(tmp_path / "b.pt", {"rbf_l.freq": Trap()}))
    assert not (tmp_path / "trap").exists() and not recwarn.list
    with pytest.raises(ExperimentError, match=r"none\.pt is not there: name a file"):
        MXMNet.load(tmp_path / "none.pt")
    with pytest.raises(ExperimentError, match="not a file of weights"):
        MXMNet.load(tmp_path)


def test_nothing_but_the_command_of_qm9_reads_mxmnet():
    root = Path(mols.__file__).parent
    readers = {
        path.relative_to(root) for path in root.rglob("*.py") if "import mols.rewards.mxmnet" in path.read_text()
    }
    readers |= {path.relative_to(root) for path in root.rglob("*.py") if "from mols.rewards.mxmnet" in path.read_text()}
    assert {path for path in readers if path.parts[:2] != ("rewards", "mxmnet")} == {Path("tasks/qm9.py")}
