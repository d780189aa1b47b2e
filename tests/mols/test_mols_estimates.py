"""Estimates of log P(x) that converge to enumeration, also for trees whose slots have holes."""

import numpy as np
import pytest
import torch
from enumeration import renamings, symmetries
from torch import nn

from mols.agents.task import exact
from mols.environments.base import STOP, finished_states, rows_of
from mols.sampling import estimated_log_prob

COEFFICIENTS = (1.0, 2.0)


@torch.no_grad()
def policy_table(policies, states, coefficient=1.0):
    """(S, A) float64 probabilities of P_F."""
    logits = policies.forward_logits(states, policies.features(states)).double() / coefficient
    return logits.softmax(-1)


class Tables(nn.Module):
    """P_F of a (S, A) table and P_B of a (S, B) table of the states of an enumeration, in the place of the networks."""

    def __init__(self, enumeration, log_pf, log_pb):
        super().__init__()
        self.enumeration, self.log_pf, self.log_pb = enumeration, log_pf, log_pb

    def tables(self):
        return None

    def features(self, states, tables):
        return None

    def forward_logits(self, states, features):
        return self.log_pf[self.enumeration.rows_of(states)]

    def backward_log_probs(self, states, features=None):
        return self.log_pb[self.enumeration.rows_of(states)]


@pytest.fixture(scope="module")
def tilted(small, new_policies):
    return new_policies(small, scale=2.0)


def test_what_is_estimated_is_the_probability_of_the_tree_times_its_symmetries(small, reachable, with_holes, tilted):
    """In whatever slots: the sum over the states of a rollout that are the same tree, counted once per symmetry."""
    pf = policy_table(tilted, reachable.trees)
    exact, of_tree = (reachable.visits(pf) * pf[:, STOP]).tolist(), {}
    for state, probability in zip(reachable.plain, exact, strict=True):
        name = min(renamings(state))
        of_tree[name] = of_tree.get(name, 0.0) + probability
    pf = policy_table(tilted, with_holes.trees)
    sums = (with_holes.reversed_sums(pf) * pf[:, STOP])[with_holes.finished]
    finished = [state for state, is_end in zip(with_holes.plain, with_holes.finished.tolist(), strict=True) if is_end]
    counts = [symmetries(small, state) for state in finished]
    assert set(counts) == {1, 2}
    expected = [count * of_tree[min(renamings(state))] for state, count in zip(finished, counts, strict=True)]
    torch.testing.assert_close(sums, torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=0)


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
@pytest.mark.parametrize("approach", ["uniform", "naive"])
def test_estimates_converge_to_the_exact_probabilities_also_with_holes(
    small, with_holes, new_policies, approach, coefficient
):
    policies = new_policies(small, scale=2.0, approach=approach)
    present = with_holes.trees.fragment != small.n_fragments
    has_hole = (present.int().diff(dim=1) > 0).any(1)
    of_both = [(with_holes.finished & kind).nonzero().flatten() for kind in (has_hole, ~has_hole)]
    rows = torch.cat([kind[:: len(kind) // 20] for kind in of_both])
    finished = rows_of(with_holes.trees, rows)
    pf = policy_table(policies, with_holes.trees, coefficient)
    exact = (with_holes.reversed_sums(pf) * pf[:, STOP]).log()[rows]

    def error(rounds):
        options = {"rounds": rounds, "coefficient": coefficient}
        found = estimated_log_prob(finished, policies, small, np.random.default_rng(5), **options)
        assert found.shape == exact.shape
        return (found - exact).abs()

    of_many = error(2_000)
    assert of_many.max() < 0.1
    assert error(1).mean() > 3 * error(50).mean() > 9 * of_many.mean()
    wrong = policy_table(policies, with_holes.trees, 3 - coefficient)
    wrong = (with_holes.reversed_sums(wrong) * wrong[:, STOP]).log()[rows]
    assert (wrong - exact).abs().mean() > 0.2


@pytest.mark.parametrize("approach", ["uniform", "naive"])
def test_one_trajectory_of_the_exact_policy_gives_the_exact_probability(
    small, with_holes, new_policies, new_agent, double, approach
):
    """P_F(tau) / P_B(tau|x) = R(x) / Z on every backward trajectory, also through states with holes."""
    policies, reward = new_policies(small, scale=3.0, approach=approach), new_agent("tb", "tlm").task.reward
    with torch.no_grad():
        log_pb = policies.backward_log_probs(with_holes.trees)
    log_reward = 5 * reward(with_holes.trees).log()
    solution = with_holes.solve(log_pb, log_reward)
    tables = Tables(with_holes, solution.log_pf, solution.log_pb)
    finished, exact = rows_of(with_holes.trees, with_holes.finished), log_reward[with_holes.finished]
    for rounds in (1, 3):
        found = estimated_log_prob(finished, tables, small, np.random.default_rng(1), rounds=rounds)
        torch.testing.assert_close(found, exact - solution.log_flow[0], rtol=0, atol=1e-10)


def test_same_generator_state_gives_the_same_estimates_and_leaves_torchs_random_state_alone(
    small, with_holes, new_policies
):
    policies, state = new_policies(small), torch.get_rng_state()
    finished = rows_of(with_holes.trees, with_holes.finished)
    rngs = [np.random.default_rng(seed) for seed in (3, 3, 4)]
    once, again, other = (estimated_log_prob(finished, policies, small, rng, rounds=2) for rng in rngs)
    assert torch.equal(once, again) and not torch.equal(once, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert not once.requires_grad and all(parameter.grad is None for parameter in policies.parameters())


def test_the_weights_of_a_tree_in_z_add_up_to_one_over_its_symmetries(small, reachable):
    states, weight = finished_states(small)
    assert sorted(reachable.rows_of(states)) == reachable.finished.nonzero().flatten().tolist()
    of_tree = {}
    for row, part in zip(reachable.rows_of(states), weight.tolist(), strict=True):
        name = min(renamings(reachable.plain[row]))
        of_tree[name] = of_tree.get(name, 0.0) + part
    assert {symmetries(small, tree) for tree in of_tree} == {1, 2}
    assert of_tree == {tree: pytest.approx(1 / symmetries(small, tree)) for tree in of_tree}


def test_exact_numbers_are_those_of_the_solution(new_agent, reachable):
    task = new_agent("db", "uniform").task
    log_reward = task.score(reachable.trees, training=False).log_reward.double()
    solution = reachable.solve(reachable.backward_table("uniform"), log_reward)
    pf = solution.log_pf.exp()
    ends = reachable.visits(pf) * pf[:, STOP]
    found = exact(task)
    assert found.log_z == pytest.approx(solution.log_flow[0].item())
    assert found.mean_log_reward == pytest.approx((ends * log_reward).sum().item())


def test_what_is_too_large_is_not_listed(full):
    assert finished_states(full) is None
