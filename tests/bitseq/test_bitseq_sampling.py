"""Trajectories that are complete and distributed as P_F says, and its logits against a dense masked softmax."""

import bitseq_exact as exact
import numpy as np
import pytest
import torch
from each import each
from same import chi_square
from scipy import stats

from bitseq import evaluation
from bitseq.evaluation import all_states
from bitseq.policies.logits import MASKED
from bitseq.sampling import sample_trajectories, taken_log_pb

COEFFICIENTS = (1.0, 1 / 0.5)
SIZES = [(8, 2), (8, 4), (8, 8)]  # (n, k); the last has trajectories of one transition


def dense_logits(policies, environment, states, coefficient=1.0):
    """(M, L * V) logits of every action, -inf where the position is filled: no position is left out of the head."""
    hidden = policies.trunk(states)
    position, word = policies.forward_head["position"](hidden[:, 0]), policies.forward_head["word"](hidden[:, 1:])
    illegal = (states != environment.empty).unsqueeze(-1)
    return ((position.unsqueeze(-1) + word) / coefficient).masked_fill(illegal, -torch.inf).flatten(1)


def strings_p_value(batch, policies, environment, coefficient):
    """Of the chi-square test of the sampled strings against the exact distribution."""
    strings, _ = evaluation.true_distribution(environment)
    powers = environment.n_words ** np.arange(environment.length - 1, -1, -1)
    assert (strings.numpy() @ powers == np.arange(len(strings))).all()
    counts = np.bincount(batch.terminal_states.numpy() @ powers, minlength=len(strings))
    exact = evaluation.exact_distribution(policies, environment, coefficient).numpy()
    return stats.chi2.sf(*chi_square(counts, len(batch.terminal_states) * exact))


def actions_p_value(batch, policies, environment, coefficient=1.0, rand_action_prob=0.0):
    """Of the chi-square test of the actions taken in each state against the mixture of P_F and uniform ones."""
    states = all_states(environment)
    counts = np.zeros((len(states), environment.n_actions))
    np.add.at(counts, (exact.state_index(environment, batch.states).numpy(), batch.actions.numpy()), 1)
    legal = environment.forward_mask(states).repeat_interleave(environment.n_words, dim=1).numpy()
    assert not counts[~legal].any()
    with torch.no_grad():
        policy = dense_logits(policies, environment, states, coefficient).double().softmax(-1).nan_to_num(0).numpy()
    uniform = legal / np.maximum(legal.sum(1, keepdims=True), 1)
    mixture = (1 - rand_action_prob) * policy + rand_action_prob * uniform
    tests = [chi_square(row, row.sum() * mixed) for row, mixed in zip(counts, mixture, strict=True) if row.sum() >= 20]
    assert len(tests) > legal.any(1).sum() / 4  # of the states that are not full: those that were visited often
    return stats.chi2.sf(*np.sum(tests, axis=0))


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_transitions_are_complete_trajectories(strings, new_policies, n, k):
    environment = strings(n, k)
    length, n_words, empty = environment.length, environment.n_words, environment.empty
    policies = new_policies(environment, scale=3.0)
    batch = sample_trajectories(policies, environment, 200, np.random.default_rng(1), rand_action_prob=0.3)
    assert batch.n_trajectories == 200 and len(batch.actions) == 200 * length
    assert batch.visited.shape == (200 * (length + 1), length)
    assert torch.equal(batch.states, batch.visited[: 200 * length])
    assert torch.equal(batch.terminal_states, batch.visited[200 * length :])
    assert torch.equal(batch.next_states, batch.visited[batch.next_row])
    assert batch.trajectory_index.tolist() == [t for t in range(200) for _ in range(length)]
    assert batch.is_last.tolist() == ([False] * (length - 1) + [True]) * 200
    visited, actions, following = (t.tolist() for t in (batch.visited, batch.actions, batch.next_row))
    reached_once = set()
    for trajectory in range(200):
        state = [empty] * length
        for row in range(trajectory * length, (trajectory + 1) * length):
            position, word = divmod(actions[row], n_words)
            assert visited[row] == state
            assert state[position] == empty
            state[position] = word
            assert visited[following[row]] == state
            reached_once.add(following[row])
        assert empty not in state
        assert following[row] == 200 * length + trajectory
    assert len(reached_once) == 200 * length


@each("coefficient", COEFFICIENTS)
@each("n,k", SIZES)
def test_strings_follow_the_exact_distribution(strings, new_policies, n, k, coefficient):
    environment = strings(n, k)
    policies = new_policies(environment, scale=4.0)
    batch = sample_trajectories(policies, environment, 20_000, np.random.default_rng(6), coefficient=coefficient)
    assert strings_p_value(batch, policies, environment, coefficient) > 1e-4
    for wrong in {1.0, 0.9 * coefficient, 1 / coefficient} - {coefficient}:  # and a wrong coefficient is noticed
        assert strings_p_value(batch, policies, environment, wrong) < 1e-4


@each("rand_action_prob", [0.0, 0.5, 1.0])
@each("coefficient", COEFFICIENTS)
@each("n,k", SIZES)
def test_actions_of_every_state_follow_the_network_and_the_exploration(
    strings, new_policies, n, k, coefficient, rand_action_prob
):
    environment = strings(n, k)
    policies = new_policies(environment, scale=1.5)
    options = {"coefficient": coefficient, "rand_action_prob": rand_action_prob}
    batch = sample_trajectories(policies, environment, 20_000, np.random.default_rng(9), **options)
    assert actions_p_value(batch, policies, environment, **options) > 1e-4
    options["rand_action_prob"] = 0.25  # and a wrong share is noticed
    assert actions_p_value(batch, policies, environment, **options) < 1e-4


def test_same_generator_state_gives_the_same_trajectories(strings, new_policies):
    environment = strings(8, 2)
    policies = new_policies(environment)

    def sample(seed):
        return sample_trajectories(policies, environment, 32, np.random.default_rng(seed), rand_action_prob=0.1)

    assert all(torch.equal(a, b) for a, b in zip(sample(3), sample(3), strict=True))
    assert not torch.equal(sample(3).actions, sample(4).actions)
    rng = np.random.default_rng(3)
    first, second = (sample_trajectories(policies, environment, 32, rng) for _ in range(2))
    assert not torch.equal(first.actions, second.actions)  # the stream has moved on


def test_what_is_drawn_leaves_torchs_random_state_and_the_mode_alone(strings, new_policies):
    environment = strings(8, 2)
    policies, state = new_policies(environment), torch.get_rng_state()
    batch = sample_trajectories(policies, environment, 4, np.random.default_rng(3))
    assert torch.equal(torch.get_rng_state(), state)  # no dropout in eval mode
    assert not policies.training and not batch.visited.requires_grad
    sample_trajectories(policies.train(), environment, 4, np.random.default_rng(3))
    assert policies.training


def test_an_action_with_no_probability_is_never_taken(strings, new_policies):
    environment = strings(8, 2)
    policies = new_policies(environment, scale=0.0)
    with torch.no_grad():
        policies.forward_head["position"].bias.copy_(torch.tensor([-2_000.0, 0.0, -1_000.0, -3_000.0]))
        policies.forward_head["word"].bias.copy_(torch.tensor([-1_000.0, -1_000.0, 0.0, -1_000.0]))
    batch = sample_trajectories(policies, environment, 50, np.random.default_rng(1))
    assert batch.actions.tolist() == [1 * 4 + 2, 2 * 4 + 2, 0 * 4 + 2, 3 * 4 + 2] * 50


def test_taken_log_pb_is_that_of_the_position_of_the_action():
    log_pb = torch.tensor([[-0.1, -0.2, -0.3], [-0.4, -0.5, -0.6], [-0.7, -0.8, -0.9]])
    found = taken_log_pb(log_pb, torch.tensor([0 * 4 + 3, 2 * 4 + 0, 1 * 4 + 1]), n_words=4)
    assert found.tolist() == pytest.approx([-0.1, -0.6, -0.8])


@pytest.fixture(params=COEFFICIENTS)
def coefficient(request):
    return request.param


@pytest.fixture(params=SIZES, ids=lambda size: "n={}, k={}".format(*size))
def small(request, double, strings, new_policies):
    """An environment, policies away from uniform, and all its states, the full ones among them."""
    environment = strings(*request.param)
    return environment, new_policies(environment, scale=3.0), all_states(environment)


def test_action_logits_are_the_dense_masked_softmax(small, coefficient):
    environment, policies, states = small
    logits = policies.forward_logits(states, policies.trunk(states)).over(coefficient)
    dense = dense_logits(policies, environment, states, coefficient)
    full = (states != environment.empty).all(1)
    assert full.any() and not full.all()
    torch.testing.assert_close(logits.logsumexp()[~full], dense.logsumexp(-1)[~full])
    row, action = dense.isfinite().nonzero(as_tuple=True)
    of_those = type(logits)(logits.position[row], logits.word, logits.row[row])
    torch.testing.assert_close(of_those.of(action), dense[row, action])
    torch.testing.assert_close(of_those.log_prob(action), dense.log_softmax(-1)[row, action])
    by_position = dense.view(len(states), environment.length, environment.n_words)
    legal = states == environment.empty
    torch.testing.assert_close(logits.of_positions()[legal], by_position.logsumexp(-1)[legal])
    torch.testing.assert_close(logits.joint()[legal], by_position[legal])
    probabilities = logits.joint().flatten(1).softmax(-1)[~full]
    torch.testing.assert_close(probabilities, dense.softmax(-1)[~full])
    row, position = legal.nonzero(as_tuple=True)
    words = type(logits)(logits.position[row], logits.word, logits.row[row]).words_at(position)
    torch.testing.assert_close(words.log_softmax(-1), by_position[row, position].log_softmax(-1))


def test_gradients_of_action_logits_are_those_of_the_dense_masked_softmax(small, coefficient):
    environment, policies, states = small
    open_states = states[(states == environment.empty).any(1)]
    actions = dense_logits(policies, environment, open_states).argmax(1)
    direction = torch.randn(len(open_states), generator=torch.Generator().manual_seed(2))
    logits = policies.forward_logits(open_states, policies.trunk(open_states)).over(coefficient)
    dense = dense_logits(policies, environment, open_states, coefficient).log_softmax(-1)
    parameters = [*policies.trunk.parameters(), *policies.forward_head.parameters()]
    found = torch.autograd.grad(logits.log_prob(actions) @ direction, parameters)
    expected = torch.autograd.grad(dense.gather(1, actions[:, None]).squeeze(1) @ direction, parameters)
    for gradient, their_gradient in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, their_gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("alone", [True, False], ids=["full states alone", "with others"])
def test_full_states_are_masked_finite_and_without_nan_gradients(strings, new_policies, coefficient, alone):
    environment = strings(8, 2)
    policies, states = new_policies(environment, scale=3.0), all_states(environment)
    full = (states != environment.empty).all(1)
    states, full = (states[full], full[full]) if alone else (states, full)
    logits = policies.forward_logits(states, policies.trunk(states)).over(coefficient)
    assert torch.isfinite(logits.position).all() and torch.isfinite(logits.joint()).all()
    assert (logits.logsumexp()[full] == MASKED / coefficient).all()
    actions = torch.arange(len(states)) % environment.n_actions
    assert torch.isfinite(logits.log_prob(actions)[full]).all()
    (logits.log_prob(actions).sum() + logits.logsumexp()[~full].sum()).backward()
    gradients = [p.grad for p in (*policies.trunk.parameters(), *policies.forward_head.parameters())]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_a_full_state_leaves_the_rows_of_the_others_alone(strings, new_policies):
    environment = strings(8, 2)
    policies = new_policies(environment, scale=3.0)
    states = torch.tensor([[0, 4, 1, 4], [1, 2, 3, 0], [4, 4, 4, 4], [3, 3, 3, 3], [4, 0, 0, 0]])
    actions = torch.tensor([1 * 4 + 2, 0, 3 * 4 + 3, 0, 0 * 4 + 1])
    others = torch.tensor([0, 2, 4])
    both = policies.forward_logits(states, policies.trunk(states))
    alone = policies.forward_logits(states[others], policies.trunk(states[others]))
    torch.testing.assert_close(both.log_prob(actions)[others], alone.log_prob(actions[others]))
    assert len(both.word) == 2 + 4 + 1  # words are computed at the empty positions alone


def test_over_one_changes_nothing_and_over_two_halves(strings, new_policies):
    environment = strings(8, 2)
    policies, states = new_policies(environment), environment.initial_states(2)
    logits = policies.forward_logits(states, policies.trunk(states))
    assert logits.over(1.0) is logits
    torch.testing.assert_close(logits.over(2.0).joint(), logits.joint() / 2)
