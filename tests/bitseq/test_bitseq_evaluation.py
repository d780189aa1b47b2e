"""Estimated and exact probabilities of strings against enumeration, distances and rank correlation by hand."""

import math

import bitseq_exact as exact
import numpy as np
import pytest
import torch
from each import each
from torch import nn

from bitseq import evaluation
from bitseq.evaluation import all_states, estimated_log_prob, exact_distribution, true_distribution
from bitseq.policies.backward import FixedBackward
from bitseq.policies.logits import MASKED, ActionLogits
from bitseq.sampling import BELOW_ONE


class Tables(nn.Module):
    """P_F of a (S, L, V) table and P_B of a (S, L) table, in the place of the networks."""

    def __init__(self, environment, log_pf, log_pb=None):
        super().__init__()
        self.environment, self.log_pf, self.log_pb = environment, log_pf, log_pb

    def trunk(self, states):
        """(M, 1, 1) features that say nothing."""
        return torch.zeros(len(states), 1, 1)

    def forward_logits(self, states, hidden):
        """The logits of the table's rows."""
        assert len(hidden) == len(states)
        legal = states == self.environment.empty
        row = (legal.flatten().cumsum(0) - 1).clamp(min=0).view(legal.shape)
        words = self.log_pf[exact.state_index(self.environment, states)][legal]
        return ActionLogits(torch.zeros(legal.shape).masked_fill(~legal, MASKED), words, row)

    def log_probs_of(self, states, row, actions, coefficient):
        """log P_F of actions, and features that say nothing."""
        assert coefficient == 1.0
        index = exact.state_index(self.environment, states)[row]
        return self.log_pf[index].flatten(1).gather(1, actions[:, None]).squeeze(1), torch.zeros(len(states), 1, 1)

    def log_probs(self, states, hidden=None):
        """(M, L) of P_B."""
        return self.log_pb[exact.state_index(self.environment, states)]


def sums_over_trajectories(environment, log_prob_of_transitions, batch):
    """(V^L,) probability of every string: the sum over all trajectories to it, in the order of ``all_states``."""
    probability = exact.sum_by_trajectory(log_prob_of_transitions, batch).exp()
    states, found = all_states(environment), torch.zeros((environment.n_words + 1) ** environment.length)
    found = found.double().index_add(0, exact.state_index(environment, batch.terminal_states), probability.double())
    return found[(states != environment.empty).all(1)]


@pytest.mark.parametrize("coefficient", [1.0, 2.0])
def test_exact_distribution_is_the_sum_over_all_trajectories(tiny, new_policies, coefficient):
    policies, batch = new_policies(tiny, scale=3.0), exact.all_trajectories(tiny)
    with torch.no_grad():
        logits = policies.forward_logits(batch.states, policies.trunk(batch.states)).over(coefficient)
        expected = sums_over_trajectories(tiny, logits.log_prob(batch.actions), batch)
    found = exact_distribution(policies, tiny, coefficient)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    assert found.sum().item() == pytest.approx(1.0, abs=1e-12)
    other = exact_distribution(policies, tiny, coefficient + 1)
    assert (found - other).abs().sum() > 0.1


def test_exact_distribution_of_a_table_and_of_the_exact_policy(tiny):
    batch, log_pf = exact.all_trajectories(tiny), exact.random_policy(tiny, seed=2)
    taken = log_pf.flatten(1)[exact.state_index(tiny, batch.states), batch.actions]
    expected = sums_over_trajectories(tiny, taken, batch)
    torch.testing.assert_close(exact_distribution(Tables(tiny, log_pf), tiny), expected)
    _, true = true_distribution(tiny)
    assert (expected - true).abs().sum() > 0.1
    for kind in ("uniform", "random"):
        solution = exact.solve(tiny, exact.backward_table(tiny, kind))
        found = exact_distribution(Tables(tiny, solution.log_pf), tiny)
        torch.testing.assert_close(found, true, rtol=1e-10, atol=0)


@pytest.mark.parametrize("chunk", [1, 7])
def test_exact_distribution_does_not_depend_on_the_chunks(strings, new_policies, monkeypatch, chunk):
    environment = strings(8, 4)
    policies = new_policies(environment, scale=3.0)
    whole = exact_distribution(policies, environment)
    monkeypatch.setattr(evaluation, "CHUNK", chunk)
    torch.testing.assert_close(exact_distribution(policies, environment), whole, rtol=1e-4, atol=1e-9)


def test_true_distribution_is_the_normalised_reward_of_every_string(tiny):
    found_strings, found = true_distribution(tiny)
    digits = [[]]
    for _ in range(tiny.length):
        digits = [[*state, word] for state in digits for word in range(tiny.n_words)]
    assert found_strings.tolist() == digits
    rewards = [math.exp(tiny.log_reward(torch.tensor([state])).item()) for state in digits]
    assert found.tolist() == pytest.approx([reward / sum(rewards) for reward in rewards])


def test_all_states_in_the_order_of_their_digits(tiny):
    digits = [[]]
    for _ in range(tiny.length):
        digits = [[*state, token] for state in digits for token in range(tiny.n_words + 1)]
    states = all_states(tiny)
    assert states.tolist() == digits and len(digits) == evaluation.n_states(tiny)
    assert torch.equal(exact.state_index(tiny, states), torch.arange(len(digits)))


def test_exact_distances_by_hand():
    learned, true = (torch.tensor(p, dtype=torch.float64) for p in ([0.5, 0.3, 0.2], [0.4, 0.4, 0.2]))
    found = evaluation.exact_distances(learned, true)
    assert found.keys() == {"exact_total_variation", "exact_kl"}
    assert found["exact_total_variation"] == pytest.approx(0.1)
    assert found["exact_kl"] == pytest.approx(0.4 * math.log(0.4 / 0.5) + 0.4 * math.log(0.4 / 0.3))
    assert evaluation.exact_distances(true, true) == {"exact_total_variation": 0.0, "exact_kl": 0.0}
    without = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)  # the last string: no probability
    assert evaluation.exact_distances(without, true)["exact_kl"] == math.inf
    assert evaluation.exact_distances(learned, without)["exact_kl"] == pytest.approx(0.5 * math.log(0.5 / 0.3))
    assert evaluation.exact_distances(without, without)["exact_kl"] == 0.0


@each("chunk", [256, 100])
@each("kind", ["uniform", "random"])
def test_one_trajectory_of_the_exact_policy_gives_the_exact_probability(tiny, monkeypatch, kind, chunk):
    """P_F(tau) / P_B(tau|x) = R(x) / Z on every trajectory, whichever is drawn."""
    monkeypatch.setattr(evaluation, "CHUNK", chunk)
    solution = exact.solve(tiny, exact.backward_table(tiny, kind))
    tables, rng = Tables(tiny, solution.log_pf, solution.log_pb), np.random.default_rng(1)
    every_string, true = true_distribution(tiny)
    for rounds in (1, 3):
        found = estimated_log_prob(every_string, tables, tables, tiny, rng, rounds=rounds)
        torch.testing.assert_close(found, true.log(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("coefficient", [1.0, 2.0])
@pytest.mark.parametrize("learned", [False, True], ids=["uniform", "learned"])
def test_estimates_converge_to_the_exact_distribution(strings, new_policies, learned, coefficient):
    environment = strings(8, 2)
    policies = new_policies(environment, seed=8)  # far enough from uniform for the last line
    backward = policies.backward if learned else FixedBackward("uniform", environment.empty)
    some = true_distribution(environment)[0][::17]
    options = {"rounds": 1_500, "coefficient": coefficient}
    found = estimated_log_prob(some, policies, backward, environment, np.random.default_rng(5), **options)
    error = (found - exact_distribution(policies, environment, coefficient).log()[::17]).abs()
    assert error.max() < 0.1 and error.mean() < 0.04  # seen: 0.07 and 0.03, half of that with four times the rounds
    wrong = exact_distribution(policies, environment, 1.0 if coefficient > 1 else 1.5).log()[::17]
    assert (found - wrong).abs().mean() > 0.5


@each("chunk", [256, 4])
@each("learned", [False, True])
@each("rounds", [1, 3])
def test_estimates_are_the_formula_on_the_trajectories_drawn(
    double, strings, new_policies, monkeypatch, rounds, learned, chunk
):
    """Each trajectory replayed state by state, then log mean exp over the rounds of a string."""
    monkeypatch.setattr(evaluation, "CHUNK", chunk)
    environment, coefficient = strings(8, 2), 1.25
    policies = new_policies(environment, scale=2.0)
    backward = policies.backward if learned else FixedBackward("uniform", environment.empty)
    some = true_distribution(environment)[0][[3, 77, 130, 201, 255]]
    found = estimated_log_prob(
        some, policies, backward, environment, np.random.default_rng(8), rounds=rounds, coefficient=coefficient
    )
    rows = rounds * some.tolist()
    uniform = np.random.default_rng(8).random((environment.length, len(rows)))
    ratios = [
        replayed(policies, backward, environment, string, uniform[:, column], coefficient)
        for column, string in enumerate(rows)
    ]
    by_string = [[ratios[r * 5 + s] for r in range(rounds)] for s in range(5)]
    expected = [math.log(sum(math.exp(ratio) for ratio in of_string) / rounds) for of_string in by_string]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


@torch.no_grad()
def replayed(policies, backward, environment, string, uniform, coefficient):
    """log P_F(tau) - log P_B(tau|x) of the one trajectory that the random numbers pick."""
    state, total = list(string), 0.0
    for number in uniform:
        child = torch.tensor([state])
        log_pb = backward.log_probs(child)[0].tolist()
        position, summed = 0, math.exp(log_pb[0])
        while summed <= number * sum(math.exp(value) for value in log_pb) * BELOW_ONE:
            position += 1
            summed += math.exp(log_pb[position])
        word, state[position] = state[position], environment.empty
        parent = torch.tensor([state])
        hidden = policies.trunk(parent)
        of_position = policies.forward_head["position"](hidden[0, 0])[:, None]
        logits = (of_position + policies.forward_head["word"](hidden[0, 1:])) / coefficient
        logits = logits.masked_fill((parent[0] != environment.empty)[:, None], -torch.inf)
        total += logits.flatten().log_softmax(0)[position * environment.n_words + word].item() - log_pb[position]
    assert state == [environment.empty] * environment.length
    return total


@pytest.mark.parametrize("learned", [False, True], ids=["uniform", "learned"])
def test_a_state_in_which_trajectories_meet_takes_one_pass(strings, new_policies, monkeypatch, learned):
    environment, seen = strings(8, 2), []
    policies = new_policies(environment)
    backward = policies.backward if learned else FixedBackward("uniform", environment.empty)
    read = policies.trunk.read
    monkeypatch.setattr(
        policies.trunk, "read", lambda states, positions: seen.append(states) or read(states, positions)
    )
    some = true_distribution(environment)[0][:4]
    estimated_log_prob(some, policies, backward, environment, np.random.default_rng(1), rounds=50)
    assert len(seen) == 4  # levels
    for states in seen:
        assert len(states.unique(dim=0)) == len(states)
    assert len(seen[-1]) == 1 and len(seen[0]) <= 4 * 4 < 4 * 50


def test_estimates_take_no_gradient_and_leave_mode_and_torchs_random_state(strings, new_policies):
    environment = strings(8, 2)
    policies = new_policies(environment, dropout=0.5)
    uniform, some = FixedBackward("uniform", environment.empty), environment.test_states
    expected = estimated_log_prob(some, policies, uniform, environment, np.random.default_rng(2), rounds=2)
    policies.train()
    state = torch.get_rng_state()
    found = estimated_log_prob(some, policies, uniform, environment, np.random.default_rng(2), rounds=2)
    assert torch.equal(found, expected)  # without dropout, although the policies are in training
    assert not found.requires_grad and policies.training
    assert torch.equal(torch.get_rng_state(), state)


def rank_correlation(left, right):
    """Pearson's correlation of ranks; equal values share the mean of their ranks."""

    def ranks(values):
        return [sum(v < value for v in values) + (values.count(value) + 1) / 2 for value in values]

    a, b = (np.array(ranks(values)) for values in (left, right))
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum())


def test_spearman_by_hand_with_ties():
    rng = np.random.default_rng(6)
    for _ in range(20):
        left, right = rng.normal(size=40).round(1), rng.integers(-6, 1, size=40) * 2.0
        found = evaluation.spearman(torch.from_numpy(left), torch.from_numpy(right))
        assert found == pytest.approx(rank_correlation(left.tolist(), right.tolist()), abs=1e-12)
    increasing = torch.arange(5.0)
    assert evaluation.spearman(increasing, increasing**3) == pytest.approx(1.0)
    assert evaluation.spearman(increasing, -increasing.exp()) == pytest.approx(-1.0)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_mode_restores_the_mode_also_after_an_exception(strings, new_policies, training):
    policies = new_policies(strings(8, 2), approach="tlm").train(training)
    with evaluation.evaluation_mode(policies):
        assert not any(module.training for module in policies.modules())
        assert not torch.is_grad_enabled()
        assert not policies.trunk(torch.zeros(1, 4, dtype=torch.long)).requires_grad
    assert policies.training == policies.trunk.training == training and torch.is_grad_enabled()

    def fail():
        with evaluation.evaluation_mode(policies):
            raise RuntimeError("in evaluation")

    with pytest.raises(RuntimeError, match="in evaluation"):
        fail()
    assert policies.training == policies.trunk.training == training and torch.is_grad_enabled()
    assert not policies.backward_target.training
