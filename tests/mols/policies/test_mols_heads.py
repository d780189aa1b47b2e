"""The heads of atoms by plain loops over their modules, masks, symmetries, P_B at first; sampling, estimates.

The fragments' are in test_mols_policies.py.
"""

from functools import cache
from itertools import chain, combinations, permutations

import numpy as np
import pytest
import torch
from atom_graphs import Graph, reachable, to_tensors

from mols.common.backward_loss import uniform_deviation, uniform_log_pb
from mols.environments.atom_vocabulary import AtomVocabulary
from mols.environments.atoms import AtomEnvironment, Graphs
from mols.environments.base import STOP, concatenate, rows_of
from mols.policies.heads import AtomHeads, FragmentHeads, heads_of
from mols.sampling import estimated_log_prob, sample_trajectories


@pytest.fixture(scope="module")
def environment():
    return AtomEnvironment()


@pytest.fixture(scope="module")
def walked(environment):
    """Every state of 8 random walks that go back now and then, a kind of move as likely as another; 0 to 7: s_0."""
    generator, states, passed = torch.Generator().manual_seed(0), environment.initial_states(8), []
    for _ in range(28):
        passed.append(states)
        weights, back = environment.legal_actions(states).double(), environment.backward_mask(states)
        weights[:, STOP] = weights[:, 1:].sum(1) == 0
        for part in weights.split(group_sizes(environment), 1):
            part /= part.sum(1, keepdim=True).clamp(min=1)
        states = environment.step(states, weights.multinomial(1, generator=generator).flatten())
        returns = (torch.rand(8, generator=generator) < 0.25) & back.any(1)
        before, _ = environment.backward_step(
            rows_of(passed[-1], returns), back[returns].double().multinomial(1, generator=generator).flatten()
        )
        for tensor, values in zip(states, before, strict=True):
            tensor[returns] = values
    return concatenate(passed)


def group_sizes(environment):
    """Numbers of actions that stop, add, set, join, type."""
    n_slots, n_pairs = environment.n_slots, environment.n_pairs
    sizes = [1, n_slots * environment.n_elements, n_slots * environment.n_values]
    return [*sizes, n_pairs, n_pairs * (environment.n_bonds - 1)]


def backward_group_sizes(environment):
    """Numbers of backward actions that remove, unset, open, make default."""
    return [environment.n_slots, 4 * environment.n_slots, environment.n_pairs, environment.n_pairs]


def by_hand(head, features):
    """A hidden layer with leaky ReLU, and its outputs, one row of features after another."""
    hidden = features @ head[0].weight.T + head[0].bias
    return (torch.where(hidden > 0, hidden, 0.01 * hidden) @ head[2].weight.T + head[2].bias).flatten()


def of_pairs(node):
    """(P, width) features of each pair of slots."""
    return torch.stack([node[i] + node[j] for i, j in combinations(range(len(node)), 2)])


def test_every_kind_of_move_is_legal_somewhere_and_there_are_holes(environment, walked):
    """So that the tests below see all of them."""
    for mask, sizes in (
        (environment.legal_actions(walked), group_sizes(environment)),
        (environment.backward_mask(walked), backward_group_sizes(environment)),
    ):
        assert all(part.any() and not part.all() for part in mask.split(sizes, 1))
    present = walked.element != environment.n_elements
    assert (present.int().diff(dim=1) > 0).any() and present.sum(1).unique().tolist() == list(range(9))


def test_forward_logits_are_the_heads_where_the_moves_are_legal_and_nowhere_else(
    environment, walked, new_policies, double
):
    policies = new_policies(environment)
    features, legal, head = policies.features(walked), environment.legal_actions(walked), policies.forward_head
    logits = policies.forward_logits(walked, features)
    assert logits.shape == legal.shape and torch.equal(logits > -torch.inf, legal)
    for row, (node, graph) in enumerate(zip(*features, strict=True)):
        outputs = [by_hand(head["stop"], graph)]
        outputs += [by_hand(head[name], node) for name in ("add", "set")]
        outputs += [by_hand(head[name], of_pairs(node)) for name in ("edge", "bond")]
        torch.testing.assert_close(logits[row], torch.cat(outputs).masked_fill(~legal[row], -torch.inf))


def test_backward_log_probs_are_the_softmax_of_the_heads_over_the_legal_moves(
    environment, walked, new_policies, double
):
    policies = new_policies(environment, scale=3.0)
    features, legal, head = policies.features(walked), environment.backward_mask(walked), policies.backward_head
    log_pb = policies.backward_log_probs(walked, features)
    assert torch.equal(log_pb, policies.backward_log_probs(walked))  # the features it would compute itself
    assert log_pb.shape == legal.shape and torch.equal(log_pb > -torch.inf, legal)
    assert environment.is_empty(walked)[:8].all() and (log_pb[:8] == -torch.inf).all()
    for row, node in enumerate(features.node):
        outputs = [by_hand(head[name], node) for name in ("remove", "unset")]
        outputs += [by_hand(head[name], of_pairs(node)) for name in ("open", "untype")]
        weight = torch.cat(outputs).exp() * legal[row]
        torch.testing.assert_close(log_pb[row].exp(), weight / weight.sum().clamp(min=1e-30))
    assert uniform_deviation(log_pb, legal) > 0.05


def test_policies_follow_the_names_of_the_slots(environment, walked, new_policies, double):
    """An action goes with its slots; a pair has no direction, so that it may go from (i, j) to (j, i)."""
    policies, n_slots = new_policies(environment, scale=3.0), environment.n_slots
    states = rows_of(walked, ~environment.is_empty(walked))
    new = torch.randperm(n_slots, generator=torch.Generator().manual_seed(5))
    assert (new.argsort()[environment.moves.pairs].diff(dim=0) < 0).any()
    element, attribute, bond = (tensor[:, new] for tensor in states)
    renamed = Graphs(element, attribute, bond[:, :, new])

    def square(part):
        """(M, P K) of pairs -> (M, S, S, K)."""
        both = part.new_zeros(len(part), n_slots, n_slots, part.shape[1] // environment.n_pairs)
        left, right = environment.moves.pairs
        both[:, left, right] = both[:, right, left] = part.unflatten(1, (environment.n_pairs, -1))
        return both

    def parts(some):
        features = policies.features(some)
        stop, add, put, edge, kind = policies.forward_logits(some, features).split(group_sizes(environment), 1)
        log_pb = policies.backward_log_probs(some, features)
        leaf, unset, ring, plain = log_pb.split(backward_group_sizes(environment), 1)
        of_slots = [part.unflatten(1, (n_slots, -1)) for part in (add, put, leaf, unset)]
        return stop, of_slots, [square(part) for part in (edge, kind, ring, plain)]

    (stop, of_slots, of_both), found = parts(states), parts(renamed)
    torch.testing.assert_close(found[0], stop)
    torch.testing.assert_close(found[1], [part[:, new] for part in of_slots])
    torch.testing.assert_close(found[2], [part[:, new][:, :, new] for part in of_both])


def test_a_learned_backward_policy_starts_at_uniform_and_elsewhere_at_random(environment, walked, new_policies):
    legal = environment.backward_mask(walked)
    log_pb = new_policies(environment, uniform_initialisation=True).backward_log_probs(walked)
    torch.testing.assert_close(log_pb, uniform_log_pb(legal), rtol=1e-6, atol=0)
    expected = [[1 / sum(row) if entry else 0.0 for entry in row] for row in legal.tolist()]
    torch.testing.assert_close(log_pb.exp(), torch.tensor(expected))
    assert uniform_deviation(new_policies(environment).backward_log_probs(walked), legal) > 0.02


def test_gradients_are_finite_and_reach_every_head(environment, walked, new_policies):
    """Of all states, of s_0 alone, whose row of P_B is empty, and of s_0 and an atom."""
    policies = new_policies(environment, approach="maxent")
    atom = environment.step(environment.initial_states(1), torch.tensor([1]))
    for states in (walked, environment.initial_states(2), concatenate([environment.initial_states(1), atom])):
        policies.zero_grad()
        features = policies.features(states)
        log_pb, logits = policies.backward_log_probs(states, features), policies.forward_logits(states, features)
        value = log_pb[log_pb > -torch.inf].square().sum() + policies.log_n(states, features).sum()
        value = value + logits.log_softmax(-1)[logits > -torch.inf].sum() + policies.log_flow(features).sum()
        assert torch.isfinite(value)
        with torch.autograd.set_detect_anomaly(True):
            value.backward()
        gradients = [p.grad for p in policies.parameters() if p.grad is not None]
        assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
        for head in chain(policies.forward_head.values(), policies.backward_head.values()):
            assert states is not walked or all(p.grad.abs().max() > 0 for p in head[2].parameters())


def test_an_environment_has_its_own_heads(environment, small):
    assert isinstance(heads_of(environment), AtomHeads) and isinstance(heads_of(small), FragmentHeads)


def test_transitions_can_be_followed_and_undone(environment, new_policies):
    batch = sample_trajectories(
        new_policies(environment), environment, 40, np.random.default_rng(2), rand_action_prob=0.2
    )
    states, following = (rows_of(batch.visited, rows) for rows in (batch.state_row, batch.next_row))
    assert environment.legal_actions(states).gather(1, batch.actions[:, None]).all()
    after = environment.step(states, batch.actions)
    assert all(torch.equal(*pair) for pair in zip(after, following, strict=True))
    moves = ~batch.is_stop
    assert torch.equal(batch.is_stop, batch.actions == STOP) and int(batch.is_stop.sum()) == 40
    legal = environment.backward_mask(rows_of(following, moves))
    assert legal.gather(1, batch.undo[moves][:, None]).all()
    back, redone = environment.backward_step(rows_of(following, moves), batch.undo[moves])
    assert all(torch.equal(*pair) for pair in zip(back, rows_of(states, moves), strict=True))
    assert torch.equal(redone, batch.actions[moves])
    first = torch.cat([torch.ones(1, dtype=torch.long), batch.trajectory_index.diff()]) == 1
    assert environment.is_empty(states)[first].all() and not environment.is_empty(following).any()
    assert torch.equal(batch.next_row[:-1][moves[:-1]], batch.state_row[1:][moves[:-1]])
    assert batch.trajectory_index.bincount().max() <= environment.max_length
    assert environment.forward_mask(batch.terminal_states).stop.all()


# Estimates of log P(x), where every state is known

PIECE = AtomVocabulary(
    elements=("C", "O"), charges=(0,), chiralities=(0,), hydrogens=(0,), no_implicit=(False, True), bonds=(1, 2)
)


@pytest.fixture(scope="module")
def graphs():
    """Every state of up to 3 atoms of a small vocabulary, those with holes too."""
    return reachable(AtomEnvironment(PIECE, 3), backwards=True)


@torch.no_grad()
def policy_table(policies, graphs, coefficient):
    """Key of each state -> probabilities of its actions."""
    states = to_tensors(graphs)
    logits = policies.forward_logits(states, policies.features(states)).double() / coefficient
    return dict(zip((graph.key() for graph in graphs), logits.softmax(-1).tolist(), strict=True))


@cache
def renamings(graph: Graph) -> list[tuple]:
    """The keys of a state under every order of the slots."""
    slots = range(graph.environment.n_slots)
    return [
        (
            tuple(sorted((new[i], atom) for i, atom in graph.atoms)),
            tuple(sorted((tuple(sorted((new[i], new[j]))), order) for (i, j), order in graph.bonds)),
        )
        for new in permutations(slots)
    ]


def symmetries(graph: Graph) -> int:
    """Number of orders of the atoms that leave a state as it is."""
    empty = graph.environment.n_slots - len(graph.atoms)
    return renamings(graph).count(graph.key()) // (1, 1, 2, 6)[empty]


def exact_sums(graphs, table):
    """Key -> sum over all backward trajectories from a state of P_F's probability of going back."""
    environment, redone = graphs[0].environment, {}
    moves = [(graph, number, before) for graph in graphs for number, before in graph.backward_moves().items()]
    states, numbers = to_tensors([graph for graph, *_ in moves]), torch.tensor([number for _, number, _ in moves])
    _, actions = environment.backward_step(states, numbers)
    for (graph, _, before), action in zip(moves, actions.tolist(), strict=True):
        redone.setdefault(graph.key(), []).append((before.key(), action))

    @cache
    def summed(key):
        return sum(summed(before) * table[before][action] for before, action in redone[key]) if key != ((), ()) else 1.0

    return {graph.key(): summed(graph.key()) for graph in graphs}


def visits(table, environment):
    """Key -> probability that a trajectory of P_F passes through a state."""
    rollout = reachable(environment, backwards=False)  # breadth first: no state before what leads to it
    visit = dict.fromkeys((graph.key() for graph in rollout), 0.0) | {((), ()): 1.0}
    for graph in rollout:
        for number, after in graph.forward_moves().items():
            if number != STOP:
                visit[after.key()] += visit[graph.key()] * table[graph.key()][number]
    return visit


@pytest.mark.parametrize(("approach", "coefficient"), [("uniform", 1.0), ("naive", 2.0)])
def test_estimates_converge_to_the_probability_of_the_molecule_times_its_symmetries(
    graphs, new_policies, approach, coefficient
):
    """P_F's of the graph in whatever slots; also estimated from states with holes."""
    environment = graphs[0].environment
    policies = new_policies(environment, scale=2.0, approach=approach)
    table = policy_table(policies, graphs, coefficient)
    of_graph = {}
    for (atoms, bonds), probability in visits(table, environment).items():
        name = min(renamings(Graph(environment, atoms, bonds)))
        of_graph[name] = of_graph.get(name, 0.0) + probability
    finished = [graph for graph in graphs if graph.is_finished()]
    sums, expected = exact_sums(graphs, table), []
    for graph in finished:
        expected.append(symmetries(graph) * of_graph[min(renamings(graph))])
        assert sums[graph.key()] == pytest.approx(expected[-1], rel=1e-4)
    assert {symmetries(graph) for graph in finished} > {1, 2}
    some = slice(None, None, max(1, len(finished) // 40))
    stops = [table[graph.key()][STOP] for graph in finished[some]]
    exact = (torch.tensor(expected[some], dtype=torch.float64) * torch.tensor(stops, dtype=torch.float64)).log()

    def error(rounds):
        options = {"rounds": rounds, "coefficient": coefficient}
        states = to_tensors(finished[some])
        return (estimated_log_prob(states, policies, environment, np.random.default_rng(5), **options) - exact).abs()

    of_many = error(2_000)
    assert of_many.max() < 0.1
    assert error(1).mean() > 3 * error(50).mean() > 9 * of_many.mean()
