"""The trees of fragments against plain-Python graphs: masks, steps and their undoing, keys, numbers of trajectories."""

import csv
import hashlib
import itertools

import numpy as np
import pytest
import torch
from shared_data import SHARED, needs

from mols.common.terminal import ExperimentError
from mols.environments.base import concatenate, rows_of
from mols.environments.fragments import FragmentEnvironment, Trees
from mols.environments.vocabulary import FRAGMENTS, Fragment

SMALL = (Fragment("C", (0,)), Fragment("CC", (0, 1)), Fragment("CCC", (0, 1, 2)))


class Graph:
    """One state by plain Python: ``nodes`` slot -> fragment, ``ends`` (i, j) -> point or None, two for each edge."""

    def __init__(self, environment, nodes=(), ends=()):
        self.environment, self.nodes, self.ends = environment, dict(nodes), dict(ends)

    def key(self):
        return frozenset(self.nodes.items()), frozenset(self.ends.items())

    def copy(self):
        return Graph(self.environment, self.nodes, self.ends)

    def neighbours(self, i):
        return [j for here, j in self.ends if here == i]

    def n_points(self, i):
        return len(self.environment.vocabulary[self.nodes[i]].points)

    def forward_actions(self):
        """Number -> what it means, of every legal action."""
        n_slots, n_fragments, n_points = (
            getattr(self.environment, f"n_{what}") for what in ("slots", "fragments", "points")
        )
        found = {}
        if self.nodes and None not in self.ends.values():
            found[0] = ("stop",)
        for i in range(n_slots):
            room = (
                len(self.nodes) < n_slots and len(self.neighbours(i)) < self.n_points(i) if i in self.nodes else False
            )
            if room or (not self.nodes and i == 0):
                found |= {1 + i * n_fragments + f: ("add", i, f) for f in range(n_fragments)}
        for (i, j), point in self.ends.items():
            if point is None:
                used = [self.ends[i, k] for k in self.neighbours(i)]
                for a in range(self.n_points(i)):
                    if a not in used:
                        found[1 + n_slots * n_fragments + (i * n_slots + j) * n_points + a] = ("set", i, j, a)
        return found

    def backward_actions(self):
        """Number -> what it means, of every legal action."""
        n_slots = self.environment.n_slots
        found = {n_slots + i * n_slots + j: ("unset", i, j) for (i, j), point in self.ends.items() if point is not None}
        for i in self.nodes:
            touching = [point for edge, point in self.ends.items() if i in edge]
            if touching == [None, None] or not touching:
                found[i] = ("remove", i)
        return found

    def after(self, action, *where):
        """The state that an action leads to."""
        graph = self.copy()
        if action == "add":
            new = min(set(range(self.environment.n_slots)) - set(self.nodes))
            if self.nodes:
                graph.ends |= {(where[0], new): None, (new, where[0]): None}
            graph.nodes[new] = where[1]
        elif action == "set":
            graph.ends[where[:2]] = where[2]
        elif action == "unset":
            graph.ends[where] = None
        elif action == "remove":
            del graph.nodes[where[0]]
            graph.ends = {edge: point for edge, point in graph.ends.items() if where[0] not in edge}
        return graph

    def renamed(self, old, new):
        """The state with one node in another slot."""
        name = {i: i for i in self.nodes} | {old: new}
        nodes = {name[i]: f for i, f in self.nodes.items()}
        return Graph(self.environment, nodes, {(name[i], name[j]): point for (i, j), point in self.ends.items()})


def reachable(environment, backwards):
    """Every state that can be reached from s_0; with backward moves in between, those with holes too."""
    first = Graph(environment)
    found, queue = {first.key(): first}, [first]
    while queue:
        graph = queue.pop()
        moves = [*graph.forward_actions().values(), *(graph.backward_actions().values() if backwards else ())]
        for move in moves:
            after = graph.after(*move)
            if after.key() not in found:
                found[after.key()] = after
                queue.append(after)
    return list(found.values())


def to_trees(graphs):
    """The states as tensors, entry by entry."""
    environment = graphs[0].environment
    states = environment.initial_states(len(graphs))
    for row, graph in enumerate(graphs):
        for i, fragment in graph.nodes.items():
            states.fragment[row, i] = fragment
        for (i, j), point in graph.ends.items():
            states.attachment[row, i, j] = 1 if point is None else 2 + point
    return states


def moves_of(graphs, direction):
    """(row, number, meaning) of every legal action of every state."""
    return [
        (row, number, meaning)
        for row, graph in enumerate(graphs)
        for number, meaning in getattr(graph, f"{direction}_actions")().items()
    ]


def assert_equal(found: Trees, expected: Trees):
    assert torch.equal(found.fragment, expected.fragment)
    assert torch.equal(found.attachment, expected.attachment)


def assert_masks(environment, graphs):
    states = to_trees(graphs)
    forward, backward = environment.legal_actions(states), environment.backward_mask(states)
    assert forward.shape == (len(graphs), environment.n_actions)
    assert backward.shape == (len(graphs), environment.n_backward_actions)
    for row, graph in enumerate(graphs):
        assert set(forward[row].nonzero().flatten().tolist()) == set(graph.forward_actions())
        assert set(backward[row].nonzero().flatten().tolist()) == set(graph.backward_actions())


@pytest.fixture(scope="module")
def environment():
    return FragmentEnvironment(SMALL, max_fragments=3)


@pytest.fixture(scope="module")
def graphs(environment):
    """Every state of up to 3 fragments, those with holes included."""
    return reachable(environment, backwards=True)


@pytest.fixture(scope="module")
def states(graphs):
    return to_trees(graphs)


@pytest.fixture(scope="module")
def forward_moves(graphs):
    """Rows, action numbers and meanings of every forward move."""
    rows, numbers, meanings = zip(*moves_of(graphs, "forward"), strict=True)
    return torch.tensor(rows), torch.tensor(numbers), meanings


@pytest.fixture(scope="module")
def backward_moves(graphs):
    """Rows, action numbers and meanings of every backward move."""
    rows, numbers, meanings = zip(*moves_of(graphs, "backward"), strict=True)
    return torch.tensor(rows), torch.tensor(numbers), meanings


@needs("seh_fragments.csv")
def test_vocabulary_is_the_published_table():
    with (SHARED / "seh_fragments.csv").open(newline="") as file:
        published = [(row["smiles"], row["attachment_atoms"]) for row in csv.DictReader(file)]
    assert [(smiles, " ".join(map(str, points))) for smiles, points in FRAGMENTS] == published


def test_vocabulary_has_not_changed():
    text = "\n".join(f"{smiles} {points}" for smiles, points in FRAGMENTS)
    assert (len(FRAGMENTS), sum(len(points) for _, points in FRAGMENTS)) == (72, 127)
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "c029abfffeecc7e9bfda606b674efff58c16180570eccf5c1f4a440179b06300"
    )


def test_number_of_reachable_states(environment, graphs):
    pairs = (2 + 3 + 4) ** 2  # each end unset or at one of 1, 2, 3 points
    triples = (7 + 13) * pairs  # the two ends in the middle at 2 or 3 points
    assert len(reachable(environment, backwards=False)) == 1 + 3 + pairs + 2 * triples
    # With holes, any slots; but two fragments of one point each, to which no third is joined, are not in slots 1 and 2.
    assert len(graphs) == 1 + 3 * 3 + 3 * pairs - 2 * 2 + 3 * triples


def test_masks_are_the_legal_moves(environment, graphs):
    assert_masks(environment, graphs)


def test_parts_of_the_forward_mask(environment, graphs, states):
    mask = environment.forward_mask(states)
    for row, graph in enumerate(graphs):
        legal = graph.forward_actions().values()
        assert mask.stop[row].item() == (("stop",) in legal)
        for f in range(environment.n_fragments):
            assert {("add", i, f) for i in mask.add[row].nonzero().flatten().tolist()} == {
                move for move in legal if move[0] == "add" and move[2] == f
            }
        found = {("set", *index) for index in mask.set[row].nonzero().tolist()}
        assert found == {move for move in legal if move[0] == "set"}


def test_masks_along_walks_of_full_size():
    environment, rng = FragmentEnvironment(), np.random.default_rng(0)
    graphs = [Graph(environment) for _ in range(16)]
    for step in range(48):
        assert_masks(environment, graphs)
        for row, graph in enumerate(graphs):
            forward = [move for move in graph.forward_actions().values() if move != ("stop",)]
            kind = {"add", "set"} if step % 3 else {"add"}  # mostly growing, so that trees get full
            forward = [move for move in forward if move[0] in kind] or forward
            moves = list(graph.backward_actions().values()) if not forward or rng.random() < 0.3 else forward
            if moves:
                graphs[row] = graph.after(*moves[rng.integers(len(moves))])
    assert max(len(graph.nodes) for graph in graphs) == 8


def test_step_is_the_move(environment, graphs, states, forward_moves):
    rows, numbers, meanings = forward_moves
    expected = [graphs[row].after(*meaning) for row, meaning in zip(rows.tolist(), meanings, strict=True)]
    before = rows_of(states, rows)
    copy = Trees(*(tensor.clone() for tensor in before))
    assert_equal(environment.step(before, numbers), to_trees(expected))
    assert_equal(before, copy)


def test_backward_step_is_the_move(environment, graphs, states, backward_moves):
    rows, numbers, meanings = backward_moves
    before = rows_of(states, rows)
    copy = Trees(*(tensor.clone() for tensor in before))
    found, forward = environment.backward_step(before, numbers)
    expected = [graphs[row].after(*meaning) for row, meaning in zip(rows.tolist(), meanings, strict=True)]
    assert_equal(found, to_trees(expected))
    assert_equal(before, copy)
    for row, number, parent, meaning in zip(rows.tolist(), forward.tolist(), expected, meanings, strict=True):
        graph, undone = graphs[row], parent.forward_actions()[number]
        if meaning[0] == "remove":
            old, new = meaning[1], min(set(range(3)) - set(parent.nodes))
            assert parent.after(*undone).key() == graph.renamed(old, new).key()
        else:
            assert parent.after(*undone).key() == graph.key()


def test_forward_then_undo_returns(environment, states, forward_moves):
    rows, numbers, _ = forward_moves
    before = rows_of(states, rows)
    backward, after = environment.undo(before, numbers), environment.step(before, numbers)
    assert torch.equal(backward == -1, numbers == 0)
    moves = numbers != 0
    child = rows_of(after, moves)
    assert environment.backward_mask(child).gather(1, backward[moves][:, None]).all()
    parent, forward = environment.backward_step(child, backward[moves])
    assert_equal(parent, rows_of(before, moves))
    assert torch.equal(forward, numbers[moves])


def test_backward_then_forward_returns_up_to_the_slot_of_a_leaf(environment, states, backward_moves):
    rows, numbers, _ = backward_moves
    before = rows_of(states, rows)
    parent, forward = environment.backward_step(before, numbers)
    assert environment.legal_actions(parent).gather(1, forward[:, None]).all()
    again = environment.step(parent, forward)
    same = (again.fragment == before.fragment).all(1)
    assert_equal(rows_of(again, same), rows_of(before, same))
    undo = environment.undo(parent, forward)
    assert torch.equal(undo[same], numbers[same])
    assert (numbers[~same] < environment.n_slots).all() and (undo[~same] < numbers[~same]).all()


def test_batches_of_none(environment, states):
    none = rows_of(states, torch.zeros(len(states.fragment), dtype=torch.bool))
    nothing = torch.zeros(0, dtype=torch.long)
    assert len(environment.step(none, nothing).fragment) == len(environment.undo(none, nothing)) == 0
    assert len(environment.backward_step(none, nothing)[1]) == len(environment.keys(none)) == 0
    assert environment.legal_actions(none).shape == (0, environment.n_actions)


def test_sizes(environment, graphs, states):
    assert environment.n_nodes(states).tolist() == [len(graph.nodes) for graph in graphs]
    assert environment.is_empty(states).tolist() == [not graph.nodes for graph in graphs]


def test_keys_differ_exactly_where_states_do(environment, graphs, states):
    keys = environment.keys(states)
    assert len(keys.unique()) == len(graphs)
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(0))
    twice = concatenate([states, rows_of(states, order)])
    assert torch.equal(environment.keys(twice), torch.cat([keys, keys[order]]))
    assert torch.equal(FragmentEnvironment(SMALL, 3).keys(states), keys)


def test_the_longest_trajectory():
    environment = FragmentEnvironment(SMALL[2:], max_fragments=4)
    states, rng = environment.initial_states(32), np.random.default_rng(1)
    for _ in range(environment.max_length - 1):
        legal = environment.legal_actions(states)
        legal[:, 0] = False
        assert legal.any(1).all()
        weights = legal * torch.from_numpy(rng.random(legal.shape))
        states = environment.step(states, weights.argmax(1))
    assert environment.legal_actions(states).sum(1).eq(1).all() and environment.forward_mask(states).stop.all()


def test_one_slot_holds_one_fragment():
    environment = FragmentEnvironment(SMALL, max_fragments=1)
    assert environment.legal_actions(environment.initial_states(1)).tolist() == [[False] + [True] * 3 + [False] * 3]
    state = environment.step(environment.initial_states(1), torch.tensor([3]))
    assert environment.legal_actions(state).tolist() == [[True] + [False] * 6]
    assert environment.backward_mask(state).tolist() == [[True, False]]


def test_no_slot_is_refused():
    with pytest.raises(ExperimentError, match="choose 1 or more"):
        FragmentEnvironment(SMALL, max_fragments=0)


def n_trajectories(environment, state: Trees, known: dict[int, int]) -> int:
    """Number of ways from s_0 to one state: the sum over its parents."""
    key = environment.keys(state).item()
    if key not in known:
        parents, _ = environment.backward_step(*_every_backward_action(environment, state))
        rows = [rows_of(parents, [row]) for row in range(len(parents.fragment))]
        known[key] = sum(n_trajectories(environment, row, known) for row in rows)
    return known[key]


def _every_backward_action(environment, state):
    actions = environment.backward_mask(state)[0].nonzero().flatten()
    return rows_of(state, torch.zeros(len(actions), dtype=torch.long)), actions


def n_orders(graph):
    """Number of orders of a state's nodes and set ends in which it can come about, by trying all."""
    events = [*graph.nodes, *(edge for edge, point in graph.ends.items() if point is not None)]
    count = 0
    for order in itertools.permutations(events):
        seen, fits = [], True
        for event in order:
            if isinstance(event, tuple):
                fits &= event[0] in seen and event[1] in seen
            else:
                nodes = [node for node in seen if not isinstance(node, tuple)]
                fits &= not nodes or any(node in nodes for node in graph.neighbours(event))
            seen.append(event)
        count += fits
    return count


def test_number_of_trajectories_is_the_number_of_orders(environment, graphs):
    known = {environment.keys(environment.initial_states(1)).item(): 1}
    by_shape = {}
    for graph in graphs:  # one of each shape: how many ends are set, and where
        if graph.nodes:
            shape = frozenset((edge, point is None) for edge, point in graph.ends.items()), len(graph.nodes)
            by_shape.setdefault(shape, graph)
    found = [n_trajectories(environment, to_trees([graph]), known) for graph in by_shape.values()]
    assert found == [n_orders(graph) for graph in by_shape.values()]
    assert len(found) == 61 and set(found) == {1, 2, 4, 6, 12, 16, 40, 160}
