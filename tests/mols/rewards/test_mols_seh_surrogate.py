"""The sEH surrogate: a slow loop beside the fast one, batches, the committed weights, and how faithful they are."""

import math

import numpy as np
import pytest
import torch
from rdkit import Chem
from scipy.stats import spearmanr
from shared_data import SHARED, needs

from mols.common.terminal import ExperimentError
from mols.molecules.reference_set import read_seh_test_set
from mols.rewards.seh.features import atom_features, featurise
from mols.rewards.seh.proxy import WEIGHTS_FILE, load_proxy
from mols.rewards.seh.surrogate import CHUNK, N_LAYERS, N_QUERIES, N_TYPES, WEIGHTS, SehSurrogate, SurrogateNetwork

SMILES = ["CCO", "O", "C.CC", "N#Cc1ccncc1", "CC(=O)Oc1ccccc1C(=O)O", "O=S(=O)(c1ccccc1)N1CCOCC1", "FC(I)=C=C"]


@pytest.fixture(scope="module")
def network():
    """Random weights, larger than initialisation makes them, so that molecules differ."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        network = SurrogateNetwork()
        for parameter in network.parameters():
            parameter *= 2
    network.mean.fill_(4.0)
    network.scale.fill_(3.0)
    return network


def graphs(*smiles):
    return [featurise(Chem.MolFromSmiles(text)) for text in smiles or SMILES]


def slow_raw(network, graph):
    """The formula of the module's text, atom by atom and bond by bond."""

    def norm(layer, x):
        return (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() * layer.weight + layer.bias

    def silu(x):
        return x * torch.sigmoid(x)

    state = [network.embed.weight @ x + network.embed.bias for x in torch.from_numpy(atom_features(graph.atoms))]
    n = len(state)
    for layer in network.layers:
        x = [norm(layer.norm, h) for h in state]
        mean = sum(x) / n
        following = []
        for atom in range(n):
            message = torch.zeros(layer.receive.in_features)
            for source, target, kind in graph.edges.tolist():
                if target == atom:
                    rows = slice(kind * len(message), (kind + 1) * len(message))
                    message = message + layer.value.weight[rows] @ x[source] + layer.value.bias[rows]
            hidden = layer.enter.weight @ x[atom] + layer.enter.bias + layer.receive.weight @ message
            hidden = silu(hidden + layer.whole.weight @ mean)
            following.append(state[atom] + layer.leave.weight @ hidden + layer.leave.bias)
        state = following
    x = [norm(network.norm, h) for h in state]
    attended = []
    for query in range(N_QUERIES):
        weights = [math.exp(network.attend.weight[query] @ h + network.attend.bias[query]) for h in x]
        size = network.value.out_features // N_QUERIES
        rows = slice(query * size, (query + 1) * size)
        values = [network.value.weight[rows] @ h + network.value.bias[rows] for h in x]
        attended.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    mean = sum(x) / n
    hidden = network.read[0].weight @ torch.cat([*attended, mean, mean * n / 32]) + network.read[0].bias
    return (network.read[2].weight @ silu(hidden) + network.read[2].bias).item() * 3 + 4


def test_the_slow_loop_gives_the_same(network):
    assert (len(network.layers), N_TYPES) == (N_LAYERS, 5)
    raw = SehSurrogate(network)(graphs())
    assert raw.std() > 0.05 and raw.dtype == torch.float32
    np.testing.assert_allclose(raw, [slow_raw(network, graph) for graph in graphs()], rtol=0, atol=1e-4)


def test_many_at_once_are_one_by_one(network):
    surrogate = SehSurrogate(network)
    some = graphs() * (2 * CHUNK // len(SMILES) + 1)
    assert len(some) > 2 * CHUNK and len(some) % CHUNK
    one_by_one = torch.cat([surrogate([graph]) for graph in some[: len(SMILES)]])
    torch.testing.assert_close(surrogate(some), one_by_one.repeat(len(some) // len(SMILES)), rtol=0, atol=1e-4)
    assert surrogate([]).shape == (0,)


def test_the_numbering_of_atoms_does_not_matter(network):
    surrogate = SehSurrogate(network)
    for text in SMILES[3:]:
        molecule = Chem.MolFromSmiles(text)
        order = np.random.default_rng(0).permutation(molecule.GetNumAtoms()).tolist()
        other = featurise(Chem.RenumberAtoms(molecule, order))
        torch.testing.assert_close(surrogate([other]), surrogate([featurise(molecule)]), rtol=0, atol=1e-4)


def test_the_committed_weights_are_small_and_known(tmp_path):
    assert WEIGHTS.stat().st_size < 5_000_000
    surrogate = SehSurrogate.load()
    assert not any(parameter.requires_grad for parameter in surrogate.network.parameters())
    (tmp_path / "other.pt").write_bytes(WEIGHTS.read_bytes()[:-1] + b"x")
    with pytest.raises(ExperimentError, match=r"another file .* fetch it from the repository again"):
        SehSurrogate.load(tmp_path / "other.pt")
    with pytest.raises(ExperimentError, match="does not hold the surrogate network's weights"):
        (tmp_path / "other.pt").write_bytes(b"nothing")
        SehSurrogate.load(tmp_path / "other.pt", None)


@needs(WEIGHTS_FILE, "seh_test_set.csv")
def test_it_ranks_the_published_test_set_much_as_the_published_network():
    """Molecules that it was not trained on; a network of chance has no correlation."""
    some = graphs(*read_seh_test_set(SHARED / "seh_test_set.csv")[::4])
    labels, predicted = load_proxy(SHARED)(some) / 8, SehSurrogate.load()(some) / 8
    assert spearmanr(labels, predicted).statistic > 0.9
    assert (labels - predicted).abs().mean() < 0.08
