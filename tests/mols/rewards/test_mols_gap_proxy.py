"""The gap network: its features by hand and by brute force, a slow loop beside the batch, and its committed weights."""

import math
import statistics

import networkx
import numpy as np
import pytest
import torch
from each import each
from rdkit import Chem
from torch.nn.functional import layer_norm, silu

from mols.common.terminal import ExperimentError
from mols.molecules.qm9 import EV_PER_HARTREE, read_test_set
from mols.rewards.gap import proxy as gap_proxy
from mols.rewards.gap.features import N_ATOM_FEATURES, N_PAIR_FEATURES, collate, featurise
from mols.rewards.gap.proxy import CHUNK, SHA256, WEIGHTS, GapNetwork, GapProxy

BOUND = 0.07  # eV, of the mean absolute error on the test set, most of which was trained on

SMILES = [
    "C",
    "O=C1C=C1",
    "CC#N",
    "c1cc[nH]c1",
    "[O-][N+](=O)C=CF",
    "C[NH3+].[O-]C=O",  # two components
    "C12C3C4C1C5C2C3C45",  # cubane: RDKit's rings are five of the six faces
    "N1C2CC1(O)C=2",
    "OC1=NC2=C(N1)C=CC2=O",
    "CC(C)(C)CC(=O)N=C=O",
]


@pytest.fixture(scope="module")
def random_proxy():
    """Random weights in double precision, larger than initialisation makes them, so that molecules differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = GapNetwork()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 2
        network.mean += torch.tensor([-6.5, 0.3])
        network.scale *= torch.tensor([0.6, 1.3])
    return GapProxy(network)


@pytest.fixture(scope="module")
def committed():
    return GapProxy.load()


@pytest.fixture(scope="module")
def test_set():
    """Molecules and gaps (eV) of the correlation's test set."""
    smiles, gaps = read_test_set()
    return molecules(*smiles), torch.from_numpy(gaps * EV_PER_HARTREE)


def molecules(*smiles):
    return [Chem.MolFromSmiles(text) for text in smiles or SMILES]


def columns(*parts):
    return np.concatenate([np.atleast_1d(part) for part in parts]).astype(np.float32)


def test_atoms_of_a_hand_made_molecule():
    # element C N O F | charge -1 0 +1 | hydrogens 0 to 4 | neighbours 0 to 4 | sp sp2 sp3 | ring 3 to 7 | aromatic |
    # conjugated
    # RDKit calls the ring of cyclopropenone aromatic.
    ((oxygen, carbon, left, right),) = collate([featurise(m) for m in molecules("O=C1C=C1")]).atoms
    element, neutral, sp2, ring = np.eye(4), [0, 1, 0], [0, 1, 0], [1, 0, 0, 0, 0]
    counts, no_ring = np.eye(5), [0] * 5
    np.testing.assert_array_equal(oxygen, columns(element[2], neutral, counts[0], counts[1], sp2, no_ring, 0, 1))
    np.testing.assert_array_equal(carbon, columns(element[0], neutral, counts[0], counts[3], sp2, ring, 1, 1))
    for atom in (left, right):
        np.testing.assert_array_equal(atom, columns(element[0], neutral, counts[1], counts[2], sp2, ring, 1, 1))
    ((nitrogen, fluorine),) = collate([featurise(Chem.MolFromSmiles("[NH3+]F"))]).atoms
    np.testing.assert_array_equal(
        nitrogen, columns(element[1], [0, 0, 1], counts[3], counts[1], [0, 0, 1], no_ring, 0, 0)
    )
    np.testing.assert_array_equal(
        fluorine, columns(element[3], neutral, counts[0], counts[1], [0, 0, 1], no_ring, 0, 0)
    )
    ((methane,),) = collate([featurise(Chem.MolFromSmiles("C"))]).atoms
    np.testing.assert_array_equal(methane, columns(element[0], neutral, counts[4], counts[0], [0, 0, 1], no_ring, 0, 0))
    (pyrrole,) = collate([featurise(Chem.MolFromSmiles("[nH]1cccc1"))]).atoms
    np.testing.assert_array_equal(
        pyrrole[0], columns(element[1], neutral, counts[1], counts[2], sp2, [0, 0, 1, 0, 0], 1, 1)
    )
    assert len(methane) == N_ATOM_FEATURES


def test_pairs_of_hand_made_molecules():
    # itself | single double triple aromatic | conjugated | ring 3 to 7 | distance 2 to 7 | resistance / 2 |
    # paths of two | one system | 1 / (1 + distance in it)
    (pairs,) = collate([featurise(m) for m in molecules("O=C1C=C1")]).pairs
    itself, none, no_ring, triangle = [1, 0, 0, 0, 0], [0] * 5, [0] * 5, [1, 0, 0, 0, 0]
    no_distance, two = [0] * 6, [1, 0, 0, 0, 0, 0]
    expected = {
        (0, 0): columns(itself, 0, no_ring, no_distance, 0, 0, 1, 1),
        (0, 1): columns([0, 0, 1, 0, 0], 1, no_ring, no_distance, 0.5, 0, 1, 1 / 2),
        (1, 2): columns([0, 0, 0, 0, 1], 1, triangle, no_distance, 1 / 3, 0, 1, 1 / 2),
        (2, 3): columns([0, 0, 0, 0, 1], 1, triangle, no_distance, 1 / 3, 0, 1, 1 / 2),
        (0, 2): columns(none, 0, no_ring, two, 5 / 6, 1, 1, 1 / 3),
    }
    for (i, j), value in expected.items():
        np.testing.assert_allclose(pairs[i, j], value, atol=1e-6)
        np.testing.assert_allclose(pairs[j, i], value, atol=1e-6)
    (square,) = collate([featurise(Chem.MolFromSmiles("C1CCC1"))]).pairs
    side = columns([0, 1, 0, 0, 0], 0, [0, 1, 0, 0, 0], no_distance, 3 / 8, 0, 0, 0)
    np.testing.assert_allclose(square[0, 1], side, atol=1e-6)
    np.testing.assert_allclose(square[0, 2], columns(none, 0, no_ring, two, 0.5, 2, 0, 0), atol=1e-6)
    (apart,) = collate([featurise(Chem.MolFromSmiles("C.O"))]).pairs
    np.testing.assert_array_equal(apart[0, 1], np.zeros(N_PAIR_FEATURES))


def brute_pairs(molecule):
    """(n, n, 4) by networkx, pair by pair: ring of a bond, distance, resistance, distance in a conjugated system."""
    n, whole, system = molecule.GetNumAtoms(), networkx.Graph(), networkx.Graph()
    whole.add_nodes_from(range(n))
    for bond in molecule.GetBonds():
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        whole.add_edge(*ends)
        if bond.GetIsConjugated():
            system.add_edge(*ends)
    found = np.full((n, n, 4), [0, np.inf, 0, np.inf])
    for i in range(n):
        for j in range(n):
            if networkx.has_path(whole, i, j):
                found[i, j, 1] = networkx.shortest_path_length(whole, i, j)
                component = whole.subgraph(networkx.node_connected_component(whole, i))
                found[i, j, 2] = 0 if i == j else networkx.resistance_distance(component, i, j)
            if i in system and j in system and networkx.has_path(system, i, j):
                found[i, j, 3] = networkx.shortest_path_length(system, i, j)
            if whole.has_edge(i, j):
                rest = whole.copy()
                rest.remove_edge(i, j)
                if networkx.has_path(rest, i, j):
                    found[i, j, 0] = networkx.shortest_path_length(rest, i, j) + 1
    return found


def test_pairs_by_brute_force(test_set):
    some = [*molecules(), *molecules("C1CCCCCCC1", "C1CC2CCC1CC2", "CCCCCCCCCC", "C1CCCCCC1"), *test_set[0][::60]]
    pairs = collate([featurise(molecule) for molecule in some]).pairs
    for molecule, found in zip(some, pairs, strict=True):
        n = molecule.GetNumAtoms()
        ring, distance, resistance, within = np.moveaxis(brute_pairs(molecule), 2, 0)
        assert not found[n:].any() and not found[:, n:].any()
        found = found[:n, :n]
        np.testing.assert_array_equal(found[..., 6:11], np.minimum(ring, 7)[..., None] == range(3, 8))
        far = np.where(np.isinf(distance), 0, np.minimum(distance, 7))
        np.testing.assert_array_equal(found[..., 11:17], far[..., None] == range(2, 8))
        np.testing.assert_allclose(found[..., 17], resistance / 2, atol=1e-5)
        np.testing.assert_array_equal(found[..., 19], np.isfinite(within))
        np.testing.assert_allclose(found[..., 20], 1 / (1 + within), atol=1e-6)


def slow_gap(network, molecule):
    """The network on one molecule, atom by atom and pair by pair."""
    weights = dict(network.named_parameters())
    batch = collate([featurise(molecule)])
    atoms, pairs = torch.from_numpy(batch.atoms[0]), torch.from_numpy(batch.pairs[0])

    def linear(name, x):
        return weights[f"{name}.weight"] @ x + weights.get(f"{name}.bias", 0)

    def normed(name, x):
        return layer_norm(x, x.shape, weights[f"{name}.weight"], weights[f"{name}.bias"])

    every = range(len(atoms))
    state = [linear("embed", x) for x in atoms]
    related = [[silu(linear("relate", pairs[i, j])) for j in every] for i in every]
    for k in range(gap_proxy.N_LAYERS):
        x = [normed(f"layers.{k}.norm", h) for h in state]
        whole, following = linear(f"layers.{k}.whole", sum(x) / len(x)), []
        for i in every:
            message = sum(
                linear(f"layers.{k}.filter", related[i][j]) * linear(f"layers.{k}.value", x[j]) for j in every
            )
            inner = linear(f"layers.{k}.enter", x[i]) + linear(f"layers.{k}.receive", message) + whole
            following.append(state[i] + linear(f"layers.{k}.leave", silu(inner)))
        state = following
    x = [normed("norm", h) for h in state]
    values = [linear("value", one).view(gap_proxy.N_QUERIES, -1) for one in x]
    scores = torch.stack([linear("attend", one) for one in x]).softmax(0)
    attended = sum(score[:, None] * value for score, value in zip(scores, values, strict=True)).flatten()
    read = torch.cat([attended, sum(x) / len(x), sum(x) / 8])
    homo, lumo = linear("read.2", silu(linear("read.0", read))) * network.scale + network.mean
    return (lumo - homo).item()


def test_the_slow_loop_gives_the_same(random_proxy):
    gaps = random_proxy(molecules())
    assert gaps.dtype == torch.float32 and gaps.std() > 0.05  # otherwise agreement would say little
    expected = [slow_gap(random_proxy.network, molecule) for molecule in molecules()]
    np.testing.assert_allclose(gaps, expected, rtol=0, atol=1e-4)


def test_many_at_once_are_one_by_one_in_any_order(random_proxy):
    some = molecules() * (2 * CHUNK // len(SMILES) + 1)
    assert len(some) > 2 * CHUNK and len(some) % CHUNK
    one_by_one = torch.cat([random_proxy([molecule]) for molecule in molecules()])
    expected = one_by_one.repeat(len(some) // len(SMILES))
    torch.testing.assert_close(random_proxy(some), expected, rtol=0, atol=1e-4)
    order = torch.randperm(len(some), generator=torch.Generator().manual_seed(1)).tolist()
    torch.testing.assert_close(random_proxy([some[i] for i in order]), expected[order], rtol=0, atol=1e-4)
    assert random_proxy([]).shape == (0,)


def test_every_way_of_writing_a_molecule_gives_the_same(random_proxy, committed, test_set):
    some = [*molecules(), *test_set[0]]
    expected = [proxy(some) for proxy in (random_proxy, committed)]
    assert expected[0].std() > 0.05
    for seed in range(3):
        others = [Chem.MolToRandomSmilesVect(molecule, 1, randomSeed=seed + 1)[0] for molecule in some]
        assert sum(Chem.MolToSmiles(one) != other for one, other in zip(some, others, strict=True)) > len(some) / 2
        for proxy, gaps in zip((random_proxy, committed), expected, strict=True):
            torch.testing.assert_close(proxy(molecules(*others)), gaps, rtol=0, atol=1e-4)


def test_explicit_kekule_and_charged_forms_are_read_as_rdkit_reads_them(random_proxy):
    pairs = (("C1=CNC=C1", "c1cc[nH]c1"), ("[H]C([H])([H])O", "CO"), ("C[N+](=O)[O-]", "CN(=O)=O"))
    for one, other in pairs:
        torch.testing.assert_close(random_proxy(molecules(one)), random_proxy(molecules(other)), rtol=0, atol=1e-5)


def test_what_the_graph_tells_apart_is_told_apart(random_proxy):
    graphs = ("CCCO", "CCOC", "C1CC1O", "C=CCO", "CCC[O-]", "CCCN", "CC=CO", "CC(C)O")
    gaps = random_proxy(molecules(*graphs))
    assert len({round(gap, 3) for gap in gaps.tolist()}) == len(graphs)


REFUSED = {
    "chlorine": lambda: Chem.MolFromSmiles("CCl"),
    "nothing": lambda: Chem.MolFromSmiles(""),
    "a hydrogen as an atom": lambda: Chem.AddHs(Chem.MolFromSmiles("C")),
    "a dative bond": lambda: Chem.MolFromSmiles("O->[C]"),
    "a bond of order 0": lambda: Chem.MolFromSmiles("O~C"),
}


@each("case", REFUSED)
def test_a_molecule_of_another_kind_is_refused(random_proxy, case):
    with pytest.raises(ExperimentError, match=r"the gap network takes molecules of C, N, O and F.*: leave it out"):
        random_proxy([*molecules("C"), REFUSED[case]()])


def test_the_committed_weights_are_small_and_predict_the_test_set(committed, test_set):
    assert WEIGHTS.stat().st_size < 5_000_000
    some, gaps = test_set
    errors = (committed(some) - gaps).abs()
    by_the_mean = (gaps - gaps.mean()).abs().mean()
    assert errors.mean() < BOUND < by_the_mean / 5
    assert errors.median() < BOUND / 2


def test_loaded_weights_do_not_train(committed):
    assert not any(parameter.requires_grad for parameter in committed.network.parameters())
    assert not committed.network.training and {p.dtype for p in committed.network.parameters()} == {torch.float32}


def test_a_file_of_another_hash_is_refused(tmp_path):
    content = bytearray(WEIGHTS.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ExperimentError, match=rf"is damaged or another file .*not {SHA256[:12]}.*: fetch it"):
        GapProxy.load(tmp_path / "a.pt")
    with pytest.raises(ExperimentError, match=r"cannot read .*none.pt \(No such file or directory\): fetch it"):
        GapProxy.load(tmp_path / "none.pt")


class Evil:
    def __reduce__(self):
        return math.exp, (1.0,)


def test_weights_of_another_network_are_refused(tmp_path):
    path, state = tmp_path / "a.pt", GapNetwork().state_dict()
    fewer = {name: value for name, value in state.items() if name != "mean"}
    wider = state | {"mean": torch.zeros(3)}
    for other in (
        fewer,
        wider,
        state | {"more": torch.zeros(1)},
        [],
        3.0,
        {"mean": 1.0},
        Evil(),
        state | {"mean": Evil()},
    ):
        torch.save(other, path)
        with pytest.raises(ExperimentError, match="does not hold the gap network's weights: train them again"):
            GapProxy.load(path, None)
    for content in (b"", b"no weights", WEIGHTS.read_bytes()[:1000]):
        path.write_bytes(content)
        with pytest.raises(ExperimentError, match="does not hold the gap network's weights: train them again"):
            GapProxy.load(path, None)
    torch.save(state | {"mean": torch.tensor([0.0, math.nan])}, path)
    with pytest.raises(ExperimentError, match="not finite"):
        GapProxy.load(path, None)
    torch.save(state, path)
    assert statistics.fmean(GapProxy.load(path, None)(molecules()).tolist()) != 0
