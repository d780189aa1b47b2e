"""The graphs of atoms against plain-Python ones: masks, steps and their undoing, keys, valences, chirality."""

import itertools

import numpy as np
import pytest
import torch
from atom_graphs import Graph, reachable, to_tensors
from each import each

from mols.common.terminal import ExperimentError
from mols.environments.atom_moves import ATOM, ATTRIBUTE, BOND
from mols.environments.atom_vocabulary import CHARGE, CHIRALITY, HYDROGENS, NEUTRAL, AtomVocabulary
from mols.environments.atoms import AtomEnvironment, Graphs
from mols.environments.base import concatenate, rows_of
from mols.policies.graph_transformer import GraphTransformer

BARE = AtomVocabulary(charges=(0,), chiralities=(0,), hydrogens=(0,), no_implicit=(False,))
# Pieces of the vocabulary and numbers of atoms, small enough for all of their states.
PIECES = {
    "charges": (BARE._replace(elements=("N", "O"), charges=(0, 1, -1)), 3),
    "elements": (BARE._replace(elements=("C", "N", "F", "O"), bonds=(1, 2)), 3),
    "hydrogens": (BARE._replace(elements=("N", "O"), charges=(0, 1), hydrogens=(0, 1, 2, 3)), 2),
    "attributes": (AtomVocabulary(elements=("N",)), 2),
    "chirality": (BARE._replace(elements=("C",), chiralities=(0, 1, 2), bonds=(1, 2)), 4),
    "no hydrogens": (BARE._replace(elements=("C", "O"), no_implicit=(False, True)), 2),
    "one atom": (AtomVocabulary(), 1),
    "neutral": (NEUTRAL, 3),
}


@pytest.fixture(scope="module", params=PIECES)
def graphs(request):
    """Every state of up to 3 atoms or so, those with holes included."""
    vocabulary, max_atoms = PIECES[request.param]
    return reachable(AtomEnvironment(vocabulary, max_atoms), backwards=True)


@pytest.fixture(scope="module")
def environment(graphs):
    return graphs[0].environment


@pytest.fixture(scope="module")
def states(graphs):
    return to_tensors(graphs)


@pytest.fixture(scope="module")
def walked():
    """States of full size along walks that go back now and then: the environment and 24 graphs each of 40 times."""
    environment, rng = AtomEnvironment(), np.random.default_rng(0)
    graphs, passed = [Graph(environment) for _ in range(24)], []
    for _ in range(40):
        passed.append(list(graphs))
        for row, graph in enumerate(graphs):
            forward = {number: after for number, after in graph.forward_moves().items() if number}
            moves = graph.backward_moves() if not forward or (graph.atoms and rng.random() < 0.25) else forward
            kinds = rng.permutation([(1, 33), (97, 125), (125, 181), (33, 97)])  # each as likely, so that rings come
            chosen = next(([n for n in moves if low <= n < high] for low, high in kinds if moves is forward), [])
            graphs[row] = moves[rng.choice(chosen or list(moves))]
    return environment, passed


def assert_equal(found: Graphs, expected: Graphs):
    assert all(torch.equal(left, right) for left, right in zip(found, expected, strict=True))


def assert_masks(environment, graphs):
    states = to_tensors(graphs)
    forward, backward = environment.legal_actions(states), environment.backward_mask(states)
    assert forward.shape == (len(graphs), environment.n_actions)
    assert backward.shape == (len(graphs), environment.n_backward_actions)
    for row, graph in enumerate(graphs):
        assert set(forward[row].nonzero().flatten().tolist()) == set(graph.forward_moves())
        assert set(backward[row].nonzero().flatten().tolist()) == set(graph.backward_moves())


def moves_of(graphs, direction):
    """Rows, numbers and states after of every legal move but stop."""
    found = [
        (row, number, after)
        for row, graph in enumerate(graphs)
        for number, after in getattr(graph, f"{direction}_moves")().items()
        if direction == "backward" or number
    ]
    rows, numbers, after = zip(*found, strict=True)
    return torch.tensor(rows), torch.tensor(numbers), list(after)


def built(environment, *moves):
    """The state that moves lead to, None where one of them is illegal.

    A move is ("add", slot, symbol), ("set", slot, attribute, value), ("edge", i, j) or (order, i, j).
    """
    states, vocabulary = environment.initial_states(1), environment.vocabulary
    for kind, i, *rest in moves:
        if kind == "add":
            row = (ATOM, i, 0, vocabulary.elements.index(rest[0]))
        elif kind == "set":
            row = (ATTRIBUTE, i, rest[0], vocabulary.attributes[rest[0]].index(rest[1]))
        else:
            row = (BOND, i, rest[0], 1 if kind == "edge" else kind)
        action = environment.moves.forward.T.tolist().index(list(row))
        if not environment.legal_actions(states)[0, action]:
            return None
        states = environment.step(states, torch.tensor([action]))
    return states


def test_numbers_of_actions():
    environment = AtomEnvironment()
    assert (environment.n_actions, environment.n_backward_actions) == (1 + 8 * 4 + 8 * 8 + 28 + 28 * 2, 8 + 8 * 4 + 56)
    assert environment.n_node_kinds == 4 * 3 * 3 * 4 * 2
    mask = environment.forward_mask(environment.initial_states(5))
    assert [tuple(part.shape) for part in mask] == [(5,), (5, 8), (5, 8, 8), (5, 28), (5, 28, 2)]


def test_number_of_reachable_states():
    carbon = AtomEnvironment(BARE._replace(elements=("C",), bonds=(1,)), 3)
    assert len(reachable(carbon, backwards=False)) == 1 + 1 + 1 + 2 + 1  # chains with atom 0 or 1 in the middle, a ring
    fluorine = AtomEnvironment(AtomVocabulary(elements=("F",)), 1)
    assert len(reachable(fluorine, backwards=False)) == 1 + 2 * (1 + 1 + 2)  # no hydrogens or one; a charge without any


def test_masks_are_the_legal_moves(environment, graphs):
    assert_masks(environment, graphs)


def test_masks_along_walks_of_full_size(walked):
    environment, passed = walked
    for graphs in passed:
        assert_masks(environment, graphs)
    every = [graph for graphs in passed for graph in graphs]
    assert max(len(graph.atoms) for graph in every) == 8
    assert sum(len(graph.bonds) >= len(graph.atoms) + 1 for graph in every) > 20  # two rings
    assert sum(any(atom.values[CHIRALITY] for _, atom in graph.atoms) for graph in every) > 20


def test_step_is_the_move(environment, graphs, states):
    rows, numbers, after = moves_of(graphs, "forward")
    before = rows_of(states, rows)
    copy = Graphs(*(tensor.clone() for tensor in before))
    assert_equal(environment.step(before, numbers), to_tensors(after))
    assert_equal(before, copy)
    assert_equal(environment.step(states, torch.zeros(len(graphs), dtype=torch.long)), states)


def test_backward_step_is_the_move(environment, graphs, states):
    rows, numbers, after = moves_of(graphs, "backward")
    before = rows_of(states, rows)
    copy = Graphs(*(tensor.clone() for tensor in before))
    found, forward = environment.backward_step(before, numbers)
    assert_equal(found, to_tensors(after))
    assert_equal(before, copy)
    for row, number, parent, action in zip(rows.tolist(), numbers.tolist(), after, forward.tolist(), strict=True):
        child, again = graphs[row], parent.forward_moves()[action]
        if number < environment.n_slots:
            new = min(set(range(environment.n_slots)) - {i for i, _ in parent.atoms})
            child = child.renamed(number, new)
        assert again.key() == child.key()


def test_forward_then_undo_returns(environment, graphs, states):
    rows, numbers, _ = moves_of(graphs, "forward")
    before = rows_of(states, rows)
    backward, child = environment.undo(before, numbers), environment.step(before, numbers)
    assert environment.backward_mask(child).gather(1, backward[:, None]).all()
    parent, forward = environment.backward_step(child, backward)
    assert_equal(parent, before)
    assert torch.equal(forward, numbers)
    assert (environment.undo(states, torch.zeros(len(graphs), dtype=torch.long)) == -1).all()


def test_backward_then_forward_returns_up_to_the_slot_of_a_leaf(environment, graphs, states):
    rows, numbers, _ = moves_of(graphs, "backward")
    before = rows_of(states, rows)
    parent, forward = environment.backward_step(before, numbers)
    assert environment.legal_actions(parent).gather(1, forward[:, None]).all()
    again, undo = environment.step(parent, forward), environment.undo(parent, forward)
    same = (again.element == before.element).all(1)
    same &= (again.bond == before.bond).flatten(1).all(1)
    assert_equal(rows_of(again, same), rows_of(before, same))
    assert torch.equal(undo[same], numbers[same])
    assert (numbers[~same] < environment.n_slots).all() and (undo[~same] < numbers[~same]).all()


def test_no_move_of_a_full_size_walk_is_without_its_undoing(walked):
    environment, passed = walked
    states = concatenate([to_tensors(graphs) for graphs in passed])
    row, action = environment.legal_actions(states).nonzero(as_tuple=True)
    row, action = row[action > 0], action[action > 0]
    before = rows_of(states, row)
    child, backward = environment.step(before, action), environment.undo(before, action)
    assert environment.backward_mask(child).gather(1, backward[:, None]).all()
    parent, forward = environment.backward_step(child, backward)
    assert_equal(parent, before)
    assert torch.equal(forward, action)
    assert len(environment.keys(child).unique()) > 5_000


def test_going_back_never_disconnects_and_never_ends_before_the_start(walked):
    environment, passed = walked
    states, rng = concatenate([to_tensors(graphs) for graphs in passed]), np.random.default_rng(1)
    for _ in range(environment.max_length - 1):
        states = rows_of(states, ~environment.is_empty(states))
        legal = environment.backward_mask(states)
        assert legal.any(1).all()
        actions = (legal * torch.from_numpy(rng.random(legal.shape))).argmax(1)
        parents, forward = environment.backward_step(states, actions)
        assert environment.legal_actions(parents).gather(1, forward[:, None]).all()
        assert (components(environment, parents) <= 1).all()
        states = parents
    assert environment.is_empty(states).all()


def components(environment, states):
    """(M,) connected components: the eigenvalues 0 of the Laplacian, less those of empty slots."""
    joined = (states.bond > 0).double()
    laplacian = torch.diag_embed(joined.sum(2)) - joined
    empty = environment.n_slots - environment.n_nodes(states)
    return (torch.linalg.eigvalsh(laplacian) < 1e-6).sum(1) - empty


def test_there_is_always_a_move(walked):
    environment, passed = walked
    assert environment.legal_actions(to_tensors([graph for graphs in passed for graph in graphs])).any(1).all()


NITRO = [("add", 0, "C"), ("add", 0, "N"), ("add", 1, "O"), ("add", 1, "O"), (2, 1, 2)]


def test_five_valent_nitrogen_on_the_way():
    environment = AtomEnvironment()
    four, five = built(environment, *NITRO), built(environment, *NITRO, (2, 1, 3))
    assert not environment.forward_mask(four).stop and environment.forward_mask(five).stop
    assert built(environment, *NITRO, ("set", 1, CHARGE, 1), ("set", 3, CHARGE, -1)) is not None
    assert built(environment, *NITRO, (2, 1, 3), ("set", 1, CHARGE, 1)) is None  # which has four
    assert built(environment, *NITRO, ("set", 1, HYDROGENS, 1)) is not None  # N(=O) has five
    single = NITRO[:-1]
    assert built(environment, *single, ("set", 1, HYDROGENS, 1)) is not None
    assert built(environment, *single, ("set", 1, HYDROGENS, 2)) is None  # no double bond to oxygen yet
    assert built(environment, *single, ("add", 1, "C"), ("add", 1, "C")) is None
    assert built(environment, *single, ("add", 1, "C"), (2, 0, 1)) is None  # five, with a double bond to carbon
    assert built(environment, *single, ("add", 1, "C"), (2, 1, 2)) is not None  # or to oxygen
    neutral = AtomEnvironment(AtomVocabulary(charges=(0, -1)))
    assert built(neutral, *single) is not None and built(neutral, *NITRO) is None


def test_chirality_holds_bonds_fast():
    environment = AtomEnvironment()
    centre = [("add", 0, "C"), ("add", 0, "N"), ("add", 0, "O")]
    assert built(environment, *centre, ("set", 0, CHIRALITY, 1)) is None  # of two bonds
    centre += [("add", 0, "F")]
    assert built(environment, *centre, (2, 0, 1), ("set", 0, CHIRALITY, 1)) is None  # not all of them single
    chiral = [*centre, ("set", 0, CHIRALITY, 1)]
    assert built(environment, *chiral) is not None
    for move in [("add", 0, "C"), (2, 0, 1)]:
        assert built(environment, *centre, move) is not None and built(environment, *chiral, move) is None
    ring = [("add", 1, "C"), ("edge", 0, 4)]
    assert built(environment, *centre, *ring) is not None and built(environment, *chiral, *ring) is None
    states = built(environment, *centre, *ring, ("set", 0, CHIRALITY, 2))
    assert environment.backward_mask(states).nonzero()[:, 1].tolist() == [8 + CHIRALITY, 40 + 9]  # and open 1-4


def test_keys_differ_exactly_where_states_do(environment, graphs, states):
    keys = environment.keys(states)
    assert len(keys.unique()) == len(graphs)
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(0))
    assert torch.equal(environment.keys(rows_of(states, order)), keys[order])
    assert torch.equal(AtomEnvironment(environment.vocabulary, environment.n_slots).keys(states), keys)


def test_node_kinds_are_atoms_with_their_attributes(environment, graphs, states):
    kinds = environment.node_kinds(states).tolist()
    atoms = {kind: set() for row in kinds for kind in row}
    for graph, row in zip(graphs, kinds, strict=True):
        for i, kind in enumerate(row):
            atoms[kind].add(dict(graph.atoms).get(i))
    assert all(len(same) == 1 for same in atoms.values())
    assert len(set.union(*atoms.values())) == len(atoms)
    assert atoms[environment.n_node_kinds] == {None} and max(atoms) == environment.n_node_kinds


def test_kinds_are_numbered_as_the_network_takes_them_apart(environment, graphs, states):
    """A node's embedding is that of its element plus those of its attributes' values."""
    trunk = GraphTransformer(environment.n_node_values, environment.n_bonds, 4, width=4, n_layers=0, n_heads=1)
    weight, kinds = trunk.node_values.weight, environment.node_kinds(states).tolist()
    atoms = {row[i]: atom for graph, row in zip(graphs, kinds, strict=True) for i, atom in graph.atoms}
    columns = (environment.vocabulary.elements, *environment.vocabulary.attributes)
    first = [sum(map(len, columns[:number])) for number in range(len(columns))]
    for kind, atom in atoms.items():
        given = zip(first, columns, (atom.symbol, *atom.values), strict=True)
        expected = sum(weight[start + values.index(value)] for start, values, value in given)
        torch.testing.assert_close((trunk.made_of @ weight)[kind], expected)


def test_sizes(environment, graphs, states):
    assert environment.n_nodes(states).tolist() == [len(graph.atoms) for graph in graphs]
    assert environment.is_empty(states).tolist() == [not graph.atoms for graph in graphs]
    assert (environment.room(states) >= 0).all()


def test_no_trajectory_is_longer(environment, graphs):
    assert max(map(depth, graphs)) + 1 <= environment.max_length


def test_backward_trajectories_are_the_forward_ones_once_for_each_symmetry():
    environment = AtomEnvironment(BARE._replace(elements=("N", "O"), charges=(0, 1), bonds=(1, 2)), 3)
    queue = reachable(environment, backwards=False)
    visits, classes = {queue[0].key(): 1.0}, {}
    for graph in sorted(queue, key=depth):  # P_F is uniform over the legal actions
        visit, moves = visits.pop(graph.key()), graph.forward_moves()
        same = renamings(graph)
        classes[min(same)] = classes.get(min(same), 0.0) + visit
        for number, after in moves.items():
            if number:
                visits[after.key()] = visits.get(after.key(), 0.0) + visit / len(moves)
    known = {environment.keys(environment.initial_states(1)).item(): 1.0}
    for graph in queue[1:]:
        n_symmetries = renamings(graph).count((graph.atoms, graph.bonds))
        found = sum_over_backward_trajectories(environment, to_tensors([graph]), known)
        assert found == pytest.approx(n_symmetries * classes[min(renamings(graph))], rel=1e-12)


def depth(graph):
    """Moves that lead to a state."""
    attributes = sum(bool(value) for _, atom in graph.atoms for value in atom.values)
    rings = len(graph.bonds) - max(len(graph.atoms) - 1, 0)
    return len(graph.atoms) + attributes + rings + sum(order > 1 for _, order in graph.bonds)


def renamings(graph):
    """The state, whose atoms are in the lowest slots, under every order of these."""
    found = []
    for order in itertools.permutations(range(len(graph.atoms))):
        atoms = tuple(sorted((order[i], atom) for i, atom in graph.atoms))
        found.append((atoms, tuple(sorted((tuple(sorted((order[i], order[j]))), o) for (i, j), o in graph.bonds))))
    return found


def sum_over_backward_trajectories(environment, state, known):
    """The sum, over all backward trajectories from one state, of the uniform P_F's probability of going back."""
    key = environment.keys(state).item()
    if key not in known:
        backward = environment.backward_mask(state)[0].nonzero().squeeze(1)
        parents, forward = environment.backward_step(rows_of(state, [0] * len(backward)), backward)
        legal = environment.legal_actions(parents)
        known[key] = sum(
            sum_over_backward_trajectories(environment, rows_of(parents, [row]), known) / legal[row].sum().item()
            for row in range(len(backward))
            if legal[row, forward[row]]
        )
    return known[key]


def test_batches_of_none(environment, states):
    none = rows_of(states, torch.zeros(len(states.element), dtype=torch.bool))
    nothing = torch.zeros(0, dtype=torch.long)
    assert len(environment.step(none, nothing).element) == len(environment.undo(none, nothing)) == 0
    assert len(environment.backward_step(none, nothing)[1]) == len(environment.keys(none)) == 0
    assert environment.legal_actions(none).shape == (0, environment.n_actions)
    assert environment.backward_mask(none).shape == (0, environment.n_backward_actions)


def test_the_trunk_reads_the_states_whatever_their_slots(walked):
    environment, passed = walked
    torch.manual_seed(0)
    sizes = {"width": 16, "n_layers": 2, "n_heads": 2}
    trunk = GraphTransformer(environment.n_node_values, environment.n_bonds, 4, **sizes).double()
    states, conditions = to_tensors(passed[30]), torch.ones(4, dtype=torch.double)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    renamed = Graphs(states.element[:, order], states.attribute[:, order], states.bond[:, order][:, :, order])
    found = [trunk(environment.node_kinds(one), one.bond, trunk.tables(conditions)) for one in (states, renamed)]
    filled = ~environment.is_empty(states)
    assert filled.sum() > 12
    torch.testing.assert_close(found[0].graph[filled], found[1].graph[filled])
    torch.testing.assert_close(found[0].node[filled][:, order], found[1].node[filled])
    assert len(found[0].graph.round(decimals=6).unique(dim=0)) == len(environment.keys(states).unique())


@each(
    "vocabulary,max_atoms,message",
    [
        (AtomVocabulary(), 0, "choose 1 or more"),
        (AtomVocabulary(elements=("C", "S")), 8, "valence of S"),
        (AtomVocabulary(charges=(0, 2)), 8, "valence of C at charges"),
        (AtomVocabulary(charges=(1, 0)), 8, "first values must be the defaults"),
        (AtomVocabulary(hydrogens=()), 8, "first values must be the defaults"),
        (AtomVocabulary(bonds=(2, 1)), 8, "first values must be the defaults"),
    ],
)
def test_refusals(vocabulary, max_atoms, message):
    with pytest.raises(ExperimentError, match=message):
        AtomEnvironment(vocabulary, max_atoms)
