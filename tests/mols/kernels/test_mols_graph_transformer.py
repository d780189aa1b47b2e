"""The graph transformer against plain loops over tokens and edges, and what its batches must not change."""

import math

import pytest
import torch
from each import each
from torch.nn.functional import leaky_relu

from mols.environments.base import concatenate, rows_of
from mols.environments.fragments import Trees
from mols.policies import graph_transformer
from mols.policies.graph_transformer import GraphTransformer

WIDTH, HEADS, CONDITIONS = 6, 2, 5  # all different
VIRTUAL = "virtual"  # the token that is not a slot


def network_of(environment, n_layers=2, n_heads=HEADS, seed=1, kernels="compiled"):
    """Random weights, far from the initial ones, so that no bias or scale is without effect."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        sizes = {"width": WIDTH, "n_layers": n_layers, "n_heads": n_heads, "kernels": kernels}
        network = GraphTransformer((environment.n_fragments,), 1 + environment.n_points, CONDITIONS, **sizes)
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return network


@pytest.fixture(scope="module")
def conditions():
    return torch.linspace(-1, 1, CONDITIONS, dtype=torch.float64)


class Slow:
    """The network's definition for one graph: tokens by slot, messages edge by edge."""

    def __init__(self, network, fragment, ends, conditions):
        self.network, self.ends, self.condition = network, ends, network.condition(conditions)
        self.nodes = [i for i, kind in enumerate(fragment) if kind != network.n_node_kinds]
        self.names = [VIRTUAL, *(self.nodes or [0])]
        kinds = network.node_values.weight
        self.tokens = {i: network.node(leaky_relu(kinds[fragment[i]])) for i in self.names[1:]}
        self.tokens[VIRTUAL] = self.condition
        self.edge = {(t, s): self.embedding(t, s) for t in self.names for s in self.sources(t)}

    def sources(self, target):
        """Whom a token hears: itself, the virtual node, and those that an edge joins it to; the virtual node, all."""
        if target == VIRTUAL:
            return self.names
        return [target, VIRTUAL, *(j for j in self.nodes if self.ends[target][j])]

    def embedding(self, target, source):
        if target == source:
            feature = self.network.special_edges[1]
        elif VIRTUAL in (target, source):
            feature = self.network.special_edges[0]
        else:
            here, there = self.ends[target][source] - 1, self.ends[source][target] - 1
            feature = self.network.here.weight[here] + self.network.there.weight[there]
        return self.network.edge(leaky_relu(feature))

    def features(self):
        """Of the nodes by slot, and of the graph."""
        for layer in self.network.layers:
            self.apply(layer)
        mean = sum(self.tokens[i] for i in self.names[1:]) / len(self.names[1:])
        return {i: self.tokens[i] for i in self.names[1:]}, torch.cat([mean, self.tokens[VIRTUAL]])

    def normed(self):
        """Mean 0 and variance 1 over all numbers of all tokens."""
        numbers = torch.cat([self.tokens[i] for i in self.names])
        mean = numbers.sum() / len(numbers)
        variance = ((numbers - mean) ** 2).sum() / len(numbers)
        return {i: (self.tokens[i] - mean) / (variance + 1e-5).sqrt() for i in self.names}

    def apply(self, layer):
        normed = self.normed()
        inputs = {}
        for t in self.names:
            received = sum(torch.relu(normed[s] + self.edge[t, s]) for s in self.sources(t)) + 1e-7
            inputs[t] = torch.cat([normed[t], layer.message(received + normed[t])])
        scale, shift = layer.condition(self.condition).chunk(2)
        for t in self.names:
            self.tokens[t] = self.tokens[t] + layer.out(self.attended(layer, t, inputs)) * scale + shift
        normed = self.normed()
        for t in self.names:
            self.tokens[t] = self.tokens[t] + layer.down(leaky_relu(layer.up(normed[t])))

    def attended(self, layer, t, inputs):
        projected = {i: layer.query_key_value_skip(inputs[i]).view(4, layer.n_heads, WIDTH) for i in inputs}
        edge = {s: layer.edge(self.edge[t, s]).view(layer.n_heads, WIDTH) for s in self.sources(t)}
        heads = []
        for h in range(layer.n_heads):
            query, skip = projected[t][0, h], projected[t][3, h]
            scores = {s: query @ (projected[s][1, h] + edge[s][h]) / math.sqrt(WIDTH) for s in self.sources(t)}
            total = sum(score.exp() for score in scores.values())
            heads.append(sum(scores[s].exp() / total * (projected[s][2, h] + edge[s][h]) for s in scores) + skip)
        return torch.cat(heads)


def slow_features(network, states, conditions):
    """The (M, S, width) and (M, 2 width) features of M states, one by one."""
    node, graph = torch.zeros(*states.fragment.shape, WIDTH), []
    rows = zip(states.fragment.tolist(), states.attachment.tolist(), strict=True)
    for row, (fragment, ends) in enumerate(rows):
        of_nodes, of_graph = Slow(network, fragment, ends, conditions).features()
        graph.append(of_graph)
        for slot, feature in of_nodes.items():
            node = node.index_put((torch.tensor(row), torch.tensor(slot)), feature)
    return node, torch.stack(graph)


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def has_hole(environment, states):
    """(M,) an empty slot before the last node."""
    present = states.fragment != environment.n_fragments
    return (present.int().diff(dim=1) > 0).any(1)


@pytest.fixture
def batch(request, small, full, wandered, double):
    """Small and full-size states of every size, the empty one and some with holes among them."""
    environment = {"small": small, "full": full}[request.param]
    states = wandered(environment, 40, 39) if request.param == "full" else wandered(environment, 20, 9)
    assert has_hole(environment, states).any() and environment.is_empty(states).any()
    assert set(environment.n_nodes(states).tolist()) == set(range(environment.n_slots + 1))
    return environment, states


both = pytest.mark.parametrize("batch", ["small", "full"], indirect=True)


@both
@each("kernels", ["torch", "compiled"])
@each("n_layers,n_heads", [(1, 1), (2, 3)])
def test_features_and_gradients_are_those_of_the_plain_loops(batch, conditions, n_layers, n_heads, kernels):
    environment, states = batch
    network = network_of(environment, n_layers, n_heads, kernels=kernels)
    found, expected = network(*states, network.tables(conditions)), slow_features(network, states, conditions)
    assert_same(found, expected)
    for name, (ours, theirs) in gradients(network, found, expected).items():
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)
        assert ours.abs().max() > 1e-6, name


def gradients(network, *features):
    """Of the parameters by name, those of a random sum of each of some features."""
    generator, found = torch.Generator().manual_seed(2), []
    directions = [torch.randn(feature.shape, generator=generator) for feature in features[0]]
    for feature_set in features:
        value = sum((feature * direction).sum() for feature, direction in zip(feature_set, directions, strict=True))
        found.append(torch.autograd.grad(value, list(network.parameters()), retain_graph=True))
    return dict(zip(dict(network.named_parameters()), zip(*found, strict=True), strict=True))


@pytest.mark.parametrize(
    ("dtype", "of_value", "of_gradient"), [(torch.float64, 1e-13, 1e-12), (torch.float32, 1e-5, 0.01)]
)
def test_the_compiled_layers_are_torch_geometrics_at_full_width(full, wandered, dtype, of_value, of_gradient):
    """In value and gradient, with one set of parameters; a ReLU whose input rounds to another sign moves a gradient."""
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            sizes = {"width": 128, "n_layers": 3, "n_heads": 2}
            network = GraphTransformer((full.n_fragments,), 1 + full.n_points, CONDITIONS, **sizes)
        states, conditions, features = wandered(full, 40, 39), torch.linspace(-1, 1, CONDITIONS), []
        for network.kernels in ("torch", "compiled"):
            features.append(network(*states, network.tables(conditions)))
        pairs = [(of_value, *pair) for pair in zip(*features, strict=True)]
        pairs += [(of_gradient, *pair) for pair in gradients(network, *features).values()]
        for tolerance, theirs, ours in pairs:
            assert (ours - theirs).norm() <= tolerance * theirs.norm()
    finally:
        torch.set_default_dtype(torch.float32)


@each("kernels", ["torch", "compiled"])
def test_bfloat16_multiplies_matrices_of_the_layers_alone(kernels, full, wandered):
    """Features and gradients stay float32 and near; the tables, which are made once for all graphs, are the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        sizes = {"width": 64, "n_layers": 3, "n_heads": 2, "kernels": kernels}
        network = GraphTransformer((full.n_fragments,), 1 + full.n_points, CONDITIONS, **sizes)
    states, conditions, features = wandered(full, 40, 39), torch.linspace(-1, 1, CONDITIONS), []
    for network.precision in ("float32", "bfloat16"):
        tables = network.tables(conditions)
        features.append(network(*states, tables))
        assert tables.node.dtype == tables.condition.dtype == torch.float32
    for exact, found in zip(*features, strict=True):
        assert found.dtype == torch.float32 and 1e-4 < (found - exact).norm() / exact.norm() < 0.02
    pairs = list(gradients(network, *features).values())
    cosine = torch.cosine_similarity(*(torch.cat([pair[i].flatten() for pair in pairs]) for i in (0, 1)), dim=0)
    assert 0.99 < cosine < 1 and all(found.dtype == torch.float32 for _, found in pairs)


def test_automatic_kernels_are_compiled_on_a_cpu_in_float32(small):
    network = network_of(small, kernels="auto")
    assert network.is_compiled and not network.double().is_compiled and not network.float().to("meta").is_compiled
    network = network_of(small, kernels="torch")
    assert not network.is_compiled


def test_layers_of_either_form_have_the_parameters_that_checkpoints_have(small):
    """And torch-geometric's none of their own, after a call either."""
    network = network_of(small, n_layers=1, kernels="torch")
    network(*small.initial_states(1), network.tables(torch.zeros(CONDITIONS)))
    maps = ["message", "query_key_value_skip", "edge", "out", "condition", "up", "down"]
    names = [f"{name}.{part}" for name in maps for part in ("weight", "bias")]
    assert [*network.layers[0].state_dict()] == [name for name in names if name != "edge.bias"]


def test_a_kind_of_node_is_the_sum_of_its_attributes_embeddings(double):
    """As the loops have it, and its gradient; the stand-in has an embedding of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = GraphTransformer((3, 1, 2), 2, CONDITIONS, width=WIDTH, n_layers=1, n_heads=HEADS)
    assert (network.n_node_kinds, network.node_values.weight.shape) == (6, (3 + 1 + 2 + 1, WIDTH))
    value, none = network.node_values.weight, torch.zeros(CONDITIONS)
    kinds = [value[a] + value[3] + value[4 + c] for a in range(3) for c in range(2)] + [value[6]]
    expected = torch.stack([network.node(leaky_relu(kind)) for kind in kinds])
    found = network.tables(none).node
    assert_same([found], [expected])
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    assert_same(*(torch.autograd.grad((each * direction).sum(), [value]) for each in (found, expected)))


@both
def test_features_follow_the_slots(batch, conditions):
    """Any naming of the slots, those that are empty too; the empty graph's stand-in is in slot 0 whatever its name."""
    environment, states = batch
    states = rows_of(states, ~environment.is_empty(states))
    network = network_of(environment)
    node, graph = network(*states, network.tables(conditions))
    for seed in range(4):
        new = torch.randperm(environment.n_slots, generator=torch.Generator().manual_seed(seed))
        renamed = Trees(states.fragment[:, new], states.attachment[:, new][:, :, new])
        assert_same(network(*renamed, network.tables(conditions)), (node[:, new], graph))


@both
def test_features_of_a_batch_are_those_of_its_states_one_by_one_in_any_order(batch, conditions):
    environment, states = batch
    network = network_of(environment)
    whole = network(*states, network.tables(conditions))
    for row in range(len(states.fragment)):
        one = rows_of(states, torch.tensor([row]))
        assert_same(network(*one, network.tables(conditions)), [feature[row : row + 1] for feature in whole])
    order = torch.randperm(len(states.fragment), generator=torch.Generator().manual_seed(1))
    assert_same(network(*rows_of(states, order), network.tables(conditions)), [feature[order] for feature in whole])


@both
@each("chunk", [1, 2, 5])
def test_features_do_not_depend_on_the_chunks(batch, conditions, monkeypatch, chunk):
    environment, states = batch
    network = network_of(environment)
    whole = network(*states, network.tables(conditions))
    passes, encode = [], network.encode
    monkeypatch.setattr(graph_transformer, "CHUNK", chunk)
    monkeypatch.setattr(network, "encode", lambda nodes, *rest: passes.append(len(nodes)) or encode(nodes, *rest))
    assert_same(network(*states, network.tables(conditions)), whole)
    assert max(passes) <= chunk and sum(passes) == len(states.fragment)


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_as_many_graphs_as_a_chunk_and_one_more_or_less(small, reachable, conditions, double, beyond, monkeypatch):
    monkeypatch.setattr(graph_transformer, "CHUNK", 100)
    states = rows_of(reachable.trees, torch.arange(2000, 2000 + 2 * graph_transformer.CHUNK + beyond))
    network = network_of(small)
    assert small.n_nodes(states).eq(3).all()  # of one size
    half = torch.arange(len(states.fragment)) < 100
    tables = network.tables(conditions)
    parts = [network(*rows_of(states, rows), tables) for rows in (half, ~half)]
    assert_same(network(*states, tables), [torch.cat(feature) for feature in zip(*parts, strict=True)])


def test_the_empty_graph_has_one_stand_in_node_and_empty_slots_are_zero(small, wandered, conditions, double):
    network = network_of(small)
    states = concatenate([small.initial_states(2), wandered(small, 20, 9)])
    node, graph = network(*states, network.tables(conditions))
    present = states.fragment != small.n_fragments
    present[:, 0] |= ~present.any(1)
    assert (node[~present] == 0).all() and (node[present].abs().max(-1).values > 1e-3).all()
    assert torch.equal(graph[0, :WIDTH], node[0, 0])  # the mean of one
    with torch.no_grad():
        network.node_values.weight[small.n_fragments] += 1.0
    moved = (network(*states, network.tables(conditions)).graph != graph).any(1)
    assert torch.equal(moved, small.is_empty(states))


def test_every_feature_follows_the_conditions(small, reachable, conditions, double):
    network, states = network_of(small), rows_of(reachable.trees, torch.arange(0, 3000, 100))
    node, graph = network(*states, network.tables(conditions))
    other_node, other_graph = network(*states, network.tables(conditions + 0.1))
    present = states.fragment != small.n_fragments
    assert ((other_node - node).abs().amax(-1)[present] > 1e-4).all()
    assert ((other_graph - graph).abs() > 1e-8).all()
