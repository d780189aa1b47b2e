"""What the paper proves: TLM's minimiser is Bayes' reversal, and the regret of P_F is a divergence."""

import bitseq_exact as exact
import pytest
import torch
from each import each

from bitseq.common import objectives
from bitseq.common.backward_loss import trajectory_negative_log_likelihood
from bitseq.evaluation import all_states
from bitseq.sampling import taken_log_pb


def taken_log_pf(environment, log_pf, batch):
    """(M,) of the (S, L, V) table."""
    return log_pf.flatten(1)[exact.state_index(environment, batch.states), batch.actions]


def taken_table(environment, log_pb, batch):
    """(M,) of the (S, L) table of log P_B, read at the states that the transitions reach."""
    return taken_log_pb(log_pb[exact.state_index(environment, batch.next_states)], batch.actions, environment.n_words)


def visit_probabilities(environment, probabilities):
    """(S,) probability that a trajectory of P_F passes through each state."""
    n_states = len(probabilities)
    visit = torch.zeros(n_states)
    visit[n_states - 1] = 1.0  # s_0: the empty mark is the largest digit
    for state in reversed(range(n_states)):  # so that a child's index is smaller than its parent's
        for position, word, child in exact.children(environment, state):
            visit[child] += visit[state] * probabilities[state, position, word]
    return visit


def test_minimiser_of_the_expected_tlm_loss_is_bayes_reversal(tiny):
    batch, states = exact.all_trajectories(tiny), all_states(tiny)
    log_pf = exact.random_policy(tiny, seed=11)
    probability = exact.sum_by_trajectory(taken_log_pf(tiny, log_pf, batch), batch).exp()
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-12)
    weight = probability[batch.trajectory_index]
    # The loss is linear in log P_B: its expectation is the loss of all transitions with the weight of their trajectory,
    # and those that take the same word back from the same state may be added up first.
    child, position = exact.state_index(tiny, batch.next_states), batch.actions // tiny.n_words
    flow = torch.zeros(states.shape).index_put((child, position), weight, accumulate=True)
    illegal = ~tiny.backward_mask(states)
    logits = torch.zeros(states.shape, requires_grad=True)

    def log_pb(of_logits):
        return of_logits.masked_fill(illegal, -1e30).log_softmax(-1)

    def expected_loss(of_logits):
        return trajectory_negative_log_likelihood(log_pb(of_logits)[~illegal] * flow[~illegal], n_trajectories=1)

    some = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
    taken = taken_table(tiny, log_pb(some), batch)
    whole = trajectory_negative_log_likelihood(taken * weight, n_trajectories=1)
    assert expected_loss(some).item() == pytest.approx(whole.item(), abs=1e-12)

    def loss():
        optimizer.zero_grad()
        value = expected_loss(logits)
        value.backward()
        return value

    optimizer = torch.optim.LBFGS(
        [logits], max_iter=1_000, tolerance_grad=1e-13, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )
    optimizer.step(loss)

    visit = visit_probabilities(tiny, log_pf.exp())
    full = ~tiny.forward_mask(states).any(1)
    assert visit[full].sum().item() == pytest.approx(1.0, abs=1e-12)
    reversal = torch.zeros(states.shape)
    for state in range(len(states)):
        for position, word, child in exact.children(tiny, state):
            reversal[child, position] = visit[state] * log_pf[state, position, word].exp() / visit[child]
    torch.testing.assert_close(log_pb(logits).exp().masked_fill(illegal, 0.0), reversal, atol=1e-5, rtol=0)
    uniform = 1 / (~illegal).sum(-1).clamp(min=1)
    assert (reversal.max(-1).values - uniform)[:-1].abs().max() > 0.1  # not the starting point


@each("kind", ["uniform", "maxent", "random"])
def test_regret_of_any_policy_is_its_divergence_from_the_backward_trajectories(tiny, kind):
    """KL(P_F(tau) || P_B(tau|x) R(x)/Z) by enumeration = log Z - soft value of P_F at s_0 by recursion."""
    batch, states = exact.all_trajectories(tiny), all_states(tiny)
    log_pb, log_pf = exact.backward_table(tiny, kind), exact.random_policy(tiny, seed=5)
    forward = exact.sum_by_trajectory(taken_log_pf(tiny, log_pf, batch), batch)
    backward = exact.sum_by_trajectory(taken_table(tiny, log_pb, batch), batch)
    backward = backward + tiny.log_reward(batch.terminal_states) - tiny.log_z
    assert backward.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    divergence = (forward.exp() * (forward - backward)).sum().item()

    value, optimal = tiny.log_reward(states), tiny.log_reward(states)  # of the full states; the others follow
    for state in range(len(states)):  # a child's index is smaller than its parent's
        moves = exact.children(tiny, state)
        if moves:
            positions, words, following = (torch.tensor(column) for column in zip(*moves, strict=True))
            chosen, reward = log_pf[state, positions, words], log_pb[following, positions]
            value[state] = (chosen.exp() * (reward + value[following] - chosen)).sum()
            optimal[state] = objectives.soft_value((reward + optimal[following])[None], coefficient=1.0)
    assert divergence > 0.1
    assert divergence == pytest.approx(tiny.log_z - value[-1].item(), abs=1e-12)
    assert optimal[-1].item() == pytest.approx(tiny.log_z, abs=1e-12)


@each("kind", ["uniform", "maxent", "random"])
def test_exact_policy_has_no_regret_and_samples_the_reward(tiny, kind):
    batch = exact.all_trajectories(tiny)
    solution = exact.solve(tiny, exact.backward_table(tiny, kind))
    forward = exact.sum_by_trajectory(taken_log_pf(tiny, solution.log_pf, batch), batch)
    backward = exact.sum_by_trajectory(taken_table(tiny, solution.log_pb, batch), batch)
    target = tiny.log_reward(batch.terminal_states) - tiny.log_z
    torch.testing.assert_close(forward, backward + target, atol=1e-12, rtol=0)
    terminal = exact.state_index(tiny, batch.terminal_states)
    sampled = torch.zeros(len(solution.log_flow)).index_add(0, terminal, forward.exp())
    full = ~tiny.forward_mask(all_states(tiny)).any(1)
    torch.testing.assert_close(sampled[full], (tiny.log_reward(all_states(tiny)[full]) - tiny.log_z).exp())
    assert sampled[~full].sum() == 0
