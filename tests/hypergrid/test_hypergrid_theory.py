"""What the paper proves: TLM's minimiser is Bayes' reversal, and the regret of P_F is a divergence."""

import hypergrid_exact as exact
import numpy as np
import pytest
import torch

from hypergrid import evaluation
from hypergrid.common import objectives
from hypergrid.common.backward_loss import trajectory_negative_log_likelihood
from hypergrid.sampling import taken_log_pb


def visit_probabilities(environment, probabilities):
    """(S,) probability that a trajectory of P_F passes through each state."""
    visit = torch.zeros(environment.n_states)
    visit[0] = 1.0
    for state in range(environment.n_states):  # a child's index is larger than its parent's
        for action, child in exact.children(environment, state):
            visit[child] += visit[state] * probabilities[state, action]
    return visit


def test_minimiser_of_the_expected_tlm_loss_is_bayes_reversal(tiny):
    batch = exact.all_trajectories(tiny)
    log_pf = exact.random_policy(tiny, seed=11)
    probability = exact.sum_by_trajectory(log_pf[batch.state_row, batch.actions], batch).exp()
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-12)
    weight = probability[batch.trajectory_index]
    illegal = ~tiny.backward_mask(batch.visited)
    logits = torch.zeros(tiny.n_states, tiny.ndim, requires_grad=True)

    def log_pb():
        return logits.masked_fill(illegal, -1e30).log_softmax(-1)

    def loss():
        optimizer.zero_grad()
        # The loss is linear in log P_B: its expectation is the loss of the weighted transitions of all trajectories.
        value = trajectory_negative_log_likelihood(taken_log_pb(log_pb(), batch) * weight, n_trajectories=1)
        value.backward()
        return value

    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )
    optimizer.step(loss)

    visit = visit_probabilities(tiny, log_pf.exp())
    reversal = torch.zeros(tiny.n_states, tiny.ndim)
    for state in range(tiny.n_states):
        for action, child in exact.children(tiny, state):
            reversal[child, action] = visit[state] * log_pf[state, action].exp() / visit[child]
    torch.testing.assert_close(log_pb().exp().masked_fill(illegal, 0.0), reversal, atol=1e-5, rtol=0)
    uniform = 1 / (~illegal).sum(-1).clamp(min=1)
    assert (reversal.max(-1).values - uniform).abs().max() > 0.1  # not the starting point


@pytest.mark.parametrize("kind", ["uniform", "maxent", "random"])
def test_regret_of_any_policy_is_its_divergence_from_the_backward_trajectories(tiny, kind):
    """KL(P_F(tau) || P_B(tau|x) R(x)/Z) by enumeration = log Z - soft value of P_F at s_0 by recursion."""
    batch = exact.all_trajectories(tiny)
    log_pb = exact.backward_table(tiny, kind)
    log_pf = exact.random_policy(tiny, seed=5)
    forward = exact.sum_by_trajectory(log_pf[batch.state_row, batch.actions], batch)
    backward = exact.sum_by_trajectory(taken_log_pb(log_pb, batch), batch)
    backward = backward + tiny.log_reward(batch.terminal_states) - tiny.log_z
    assert backward.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    divergence = (forward.exp() * (forward - backward)).sum().item()

    value, optimal = torch.zeros(tiny.n_states), torch.zeros(tiny.n_states)
    for state in reversed(range(tiny.n_states)):
        following, best = torch.full((tiny.ndim + 1,), -1e9), torch.full((tiny.ndim + 1,), -1e9)
        following[-1] = best[-1] = tiny.log_rewards[state]
        for action, child in exact.children(tiny, state):
            following[action] = log_pb[child, action] + value[child]
            best[action] = log_pb[child, action] + optimal[child]
        legal = log_pf[state].isfinite()
        value[state] = (log_pf[state].exp()[legal] * (following - log_pf[state])[legal]).sum()
        optimal[state] = objectives.soft_value(best[None], coefficient=1.0)
    assert divergence > 0.1
    assert divergence == pytest.approx(tiny.log_z - value[0].item(), abs=1e-12)
    assert optimal[0].item() == pytest.approx(tiny.log_z, abs=1e-12)


@pytest.mark.parametrize("kind", ["uniform", "maxent", "random"])
def test_exact_policy_samples_the_reward(tiny, kind):
    solution = exact.solve(tiny, exact.backward_table(tiny, kind))
    terminal = evaluation.terminal_distribution(solution.log_pf.exp().numpy(), tiny)
    np.testing.assert_allclose(terminal, tiny.true_distribution, atol=1e-12)


def test_terminal_distribution_is_the_sum_over_all_trajectories(tiny):
    batch = exact.all_trajectories(tiny)
    log_pf = exact.random_policy(tiny, seed=2)
    probability = exact.sum_by_trajectory(log_pf[batch.state_row, batch.actions], batch).exp()
    summed = np.zeros(tiny.n_states)
    np.add.at(summed, tiny.index(batch.terminal_states).numpy(), probability.numpy())
    terminal = evaluation.terminal_distribution(log_pf.exp().numpy(), tiny)
    np.testing.assert_allclose(terminal, summed, atol=1e-14)
    assert np.abs(summed - tiny.true_distribution).sum() > 0.1
