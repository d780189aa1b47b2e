"""What is the grid's own in a step: replay, options, log Z, the references; see common/test_agents.py."""

import copy

import numpy as np
import pytest
import torch
from each import each, each_approach, each_objective
from every_agent import same, snapshot, started

from hypergrid.common.algorithm import train_step, update_backward, update_forward
from hypergrid.common.backward_loss import trajectory_negative_log_likelihood
from hypergrid.policies import LearnedBackward
from hypergrid.sampling import taken_log_pb

DQN = ("soft_dqn", "munchausen_dqn")

# What one step moves, whatever the approach, and what it moves besides, whatever the objective.


# One step


def test_log_z_has_its_own_learning_rate(new_agent):
    agent = new_agent("tb", "uniform", log_z_learning_rate=0.25, learning_rate=0.01)
    before = snapshot(agent)
    train_step(agent)
    after = snapshot(agent)
    assert (after["log_z"][0] - before["log_z"][0]).abs().item() == pytest.approx(0.25, rel=1e-3)  # Adam's first step
    largest = max(
        (a - b).abs().max().item() for a, b in zip(after["forward_head"], before["forward_head"], strict=True)
    )
    assert largest == pytest.approx(0.01, rel=1e-2)


# What is measured


def test_the_reward_and_the_modes_of_the_last_samples_by_hand(new_agent):
    agent = new_agent("db", "uniform", height=20, validation_samples=5)
    agent.sample()
    states = torch.tensor([[0, 0], [2, 2], [2, 3], [17, 2], [9, 9]])  # outer, mode, the same mode, another, between
    agent._histogram.push(agent.environment.index(states).numpy())
    metrics = agent.evaluate(1)
    assert metrics["modes_visited"] == 2
    assert metrics["mean_log_reward"] == pytest.approx(np.log([0.501, 2.501, 2.501, 2.501, 0.001]).mean(), abs=1e-5)


def test_exact_distances_are_due_at_the_first_row_after_each_interval_and_at_the_end(new_agent):
    agent = new_agent("db", "uniform", validation_interval=3, exact_interval=5, n_trajectories=16 * 14)
    assert [step for step in (3, 6, 9, 12, 14) if agent._exact_is_due(step)] == [6, 12, 14]


# What P_B the objective scores


# What P_B learns from


def negative_log_likelihood(agent, batch):
    log_pb = agent.policies.backward.log_probs(batch.visited)
    return trajectory_negative_log_likelihood(taken_log_pb(log_pb, batch), batch.n_trajectories).item()


@each_objective
def test_tlm_learns_from_the_current_batch(objective):
    agent, _ = started("hypergrid", objective, "tlm")
    for _ in range(3):
        batch = agent.sample()
        assert agent.backward_loss(batch).item() == pytest.approx(negative_log_likelihood(agent, batch), rel=1e-6)


@each("objective", DQN)
@each_approach
def test_q_loss_is_the_plain_loop(new_agent, objective, approach):
    """Every replayed transition by itself, with the target network away from the online one; its new priority too."""
    agent = new_agent(objective, approach, zero_initialisation=False, replay_importance_exponent=0.4)
    environment, policies, coefficient = agent.environment, agent.policies, {"soft_dqn": 1.0}.get(objective, 1 / 0.85)
    with torch.no_grad():
        agent.q_target[1].weight *= 6
        if approach == "tlm":
            agent.policies.backward_target.head.weight *= 6
    scored = policies.backward_target if approach == "tlm" else policies.backward

    def huber(state, action):
        here = torch.from_numpy(state.astype(np.int64))[None]
        legal = environment.forward_mask(here)[0]
        q = policies.forward_head(policies.trunk(here))[0, action].item()
        values = agent.q_target[1](agent.q_target[0](here))[0] / coefficient
        bonus = coefficient * (values[action] - values[legal].logsumexp(0)).item()
        if action == environment.stop_action:
            target = environment.log_reward(here).item()
        else:
            following = here.clone()
            following[0, action] += 1
            next_values = agent.q_target[1](agent.q_target[0](following))[0] / coefficient
            value = coefficient * next_values[environment.forward_mask(following)[0]].logsumexp(0).item()
            target = scored.log_probs(following)[0, action].item() + value
        error = abs(q - target - (0.15 * bonus if objective == "munchausen_dqn" else 0.0))
        return error**2 / 2 if error < 1 else error - 0.5

    batch = agent.sample()  # new transitions enter with their own loss
    replay = agent._replay
    expected = [(huber(*pair) + 1e-8) ** 0.5 for pair in zip(batch.states.numpy(), batch.actions.numpy(), strict=True)]
    np.testing.assert_allclose(replay._weight[: len(batch.actions)], expected, rtol=1e-3)
    drawn = copy.deepcopy(replay).draw(32, copy.deepcopy(agent.streams.replay))
    losses = [huber(state, action) for state, action in zip(*drawn[1:3], strict=True)]
    assert agent.forward_loss(None).item() == pytest.approx(np.mean(losses * drawn[3]), rel=1e-4)


@pytest.mark.parametrize("objective", DQN)
def test_a_drawn_transition_gets_the_loss_of_the_step_that_drew_it(new_agent, objective):
    agent = new_agent(objective, "uniform", replay_batch_size=1)
    agent.sample()
    position = copy.deepcopy(agent._replay).draw(1, copy.deepcopy(agent.streams.replay))[0][0]
    agent._replay.update(np.arange(len(agent._replay)), 0.0)
    agent._replay.update(np.array([position]), 1e6)  # drawn for certain
    loss = agent.forward_loss(None).item()
    assert agent._replay._weight[position] == pytest.approx((loss + 1e-8) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("objective", DQN)
def test_replay_options_have_an_effect(new_agent, objective):
    """Both exponents, the capacity and the batch size change what is learned."""
    base = new_agent(objective, "uniform")
    changed = [
        new_agent(objective, "uniform", **{field: value})
        for field, value in {
            "replay_priority_exponent": 0.0,
            "replay_importance_exponent": 0.5,
            "replay_capacity": 50,
            "replay_batch_size": 16,
            "huber_delta": 0.1,
        }.items()
    ]
    for agent in (base, *changed):
        for _ in range(4):
            train_step(agent)
    assert not any(same(base, agent) for agent in changed)


@pytest.mark.parametrize(("field", "value"), [("m_alpha", 0.5), ("m_l0", -0.1)])
def test_munchausen_options_have_an_effect(new_agent, field, value):
    agents = [new_agent("munchausen_dqn", "uniform"), new_agent("munchausen_dqn", "uniform", **{field: value})]
    for agent in agents:
        train_step(agent)
    assert not same(*agents)


# Optimisation


def test_clipping_is_configured_for_both_losses(new_agent):
    agent = new_agent("db", "tlm", gradient_clipping=1e-3)
    batch = agent.sample()
    for update, learner in ((update_backward, agent.backward_learner), (update_forward, agent.forward_learner)):
        update(agent, batch)
        gradients = [p.grad for group in learner.optimizer.param_groups for p in group["params"]]
        assert torch.stack([gradient.norm() for gradient in gradients]).norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert new_agent("db", "tlm").forward_learner.max_norm == 0.0


# Initialisation and evaluation


def test_backward_probabilities_are_masked_and_normalised(new_policies, grid):
    environment, policies = grid(2, 4), new_policies(2, 4, zero_initialisation=False)
    assert isinstance(policies.backward, LearnedBackward)
    states = environment.states_at(torch.arange(environment.n_states))
    probabilities = policies.backward.log_probs(states).exp()[1:]
    assert not probabilities[~environment.backward_mask(states)[1:]].any()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(environment.n_states - 1))
    hidden = policies.trunk(states)
    torch.testing.assert_close(policies.backward.log_probs(states, hidden), policies.backward.log_probs(states))


def test_embedding_sum_is_the_dense_network(new_policies):
    policies = new_policies(3, 5, n_layers=3)
    trunk = policies.trunk
    states = torch.randint(5, (50, 3), generator=torch.Generator().manual_seed(1))
    hidden = torch.nn.functional.one_hot(states, 5).flatten(1).float() @ trunk.table + trunk.bias
    for layer in trunk.layers:
        hidden = layer(hidden.relu())
    torch.testing.assert_close(trunk(states), hidden.relu(), atol=1e-6, rtol=1e-5)


@each_objective
def test_evaluation_reports_log_z(new_agent, objective):
    """The model's own log Z: TB's parameter, log F(s_0), or V(s_0) of the values that the policy is made from."""
    agent = new_agent(objective, "uniform")
    train_step(agent)
    state = torch.zeros(1, 2, dtype=torch.long)
    hidden = agent.policies.trunk(state)
    if objective == "tb":
        expected = agent.policies.log_z.item()
    elif objective in DQN:
        q = agent.policies.forward_logits(state, hidden)[0] / agent.coefficient
        expected = agent.coefficient * q.logsumexp(0).item()
    else:
        expected = agent.policies.log_flow_head(hidden).item()
    error = agent.evaluate(1)["log_z_error"]
    assert error == pytest.approx(abs(expected - agent.environment.log_z), abs=1e-5)


def test_exact_distances_are_those_of_the_policy_that_samples(new_agent):
    """Munchausen samples softmax(Q / c): the exact distribution is compared with 40,000 of its own samples."""
    agent = new_agent("munchausen_dqn", "uniform", height=4, n_envs=40_000)
    with torch.no_grad():
        agent.policies.forward_head.weight *= 20
    agent.sample()
    exact, sampled = agent.exact_distribution(), agent.empirical_distribution()
    assert np.abs(exact - sampled).sum() / 2 < 0.012
    agent.coefficient = 1.0
    assert np.abs(agent.exact_distribution() - sampled).sum() / 2 > 0.02


@pytest.mark.parametrize("name", ["perfect", "uniform"])
def test_references_sample_without_learning(new_agent, name):
    agent = new_agent(name, None, n_envs=20_000)
    assert train_step(agent) == {"pb_loss": None, "loss": None}
    sampled, true = agent.empirical_distribution(), agent.environment.true_distribution
    expected = true if name == "perfect" else agent.exact_distribution()
    assert np.abs(sampled - expected).sum() / 2 < 0.05
    if name == "uniform":
        probabilities = agent.policies.forward_head(agent.policies.trunk(torch.zeros(1, 2, dtype=torch.long)))
        assert probabilities.softmax(-1)[0].tolist() == pytest.approx([1 / 3] * 3)
