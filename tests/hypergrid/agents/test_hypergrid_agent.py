"""Which parameters one training step moves, on which loss and batch, for every objective and approach."""

import copy

import numpy as np
import pytest
import torch
from each import each, each_approach, each_objective

from hypergrid.common.algorithm import train_step, update_backward, update_forward
from hypergrid.common.backward_loss import ema_update, trajectory_negative_log_likelihood
from hypergrid.policies import LearnedBackward
from hypergrid.sampling import taken_log_pb

DQN = ("soft_dqn", "munchausen_dqn")

# What one step moves, whatever the approach, and what it moves besides, whatever the objective.
MOVED_BY_OBJECTIVE = {
    "tb": {"trunk", "forward_head", "log_z"},
    "db": {"trunk", "forward_head", "log_flow"},
    "subtb": {"trunk", "forward_head", "log_flow"},
    "soft_dqn": {"trunk", "forward_head", "q_target"},
    "munchausen_dqn": {"trunk", "forward_head", "q_target"},
}
MOVED_BY_APPROACH = {
    "uniform": set(),
    "naive": {"backward_head"},
    "maxent": set(),
    "tlm": {"backward_head", "backward_target"},
    "pessimistic": {"backward_head"},
}


def groups_of(agent):
    """Every named parameter group of an agent, its targets included."""
    groups = dict(agent.policies.groups())
    if agent.policies.backward_target is not None:
        groups["backward_target"] = list(agent.policies.backward_target.parameters())
    if hasattr(agent, "q_target"):
        groups["q_target"] = [p for module in agent.q_target for p in module.parameters()]
    return groups


def snapshot(agent):
    return {name: [p.detach().clone() for p in group] for name, group in groups_of(agent).items()}


def moved(before, after):
    """Names of the groups in which anything changed."""
    return {name for name in before if not all(map(torch.equal, before[name], after[name]))}


def same_weights(first, second):
    a, b = first.policies.state_dict(), second.policies.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def head(agent):
    return agent.policies.backward.head


@pytest.fixture
def started(new_agent):
    """``started(objective, approach)``: an agent with a non-uniform P_B, after two steps, and a fresh batch."""

    def start(objective, approach, **overrides):
        agent = new_agent(objective, approach, **({"zero_initialisation": False} | overrides))
        for _ in range(2):
            train_step(agent)
        return agent, agent.sample()

    return start


# One step


@each("zero_initialisation", [True, False])
@each_objective
@each_approach
def test_a_step_moves_exactly_the_groups_of_the_table(new_agent, objective, approach, zero_initialisation):
    agent = new_agent(objective, approach, zero_initialisation=zero_initialisation)
    before = snapshot(agent)
    assert set(before) == MOVED_BY_OBJECTIVE[objective] | MOVED_BY_APPROACH[approach]
    train_step(agent)
    assert moved(before, snapshot(agent)) == MOVED_BY_OBJECTIVE[objective] | MOVED_BY_APPROACH[approach]


@each_objective
@each_approach
def test_the_two_updates_of_a_step_move_disjoint_parts(started, objective, approach):
    """P_B's own loss moves trunk, backward head and P_B's target alone; P_F's objective moves the rest."""
    agent, batch = started(objective, approach)
    before = snapshot(agent)
    update_backward(agent, batch)
    between = snapshot(agent)
    update_forward(agent, batch)
    agent.update_model_target()
    learns = approach in ("tlm", "pessimistic")
    assert moved(before, between) == (MOVED_BY_APPROACH[approach] | {"trunk"} if learns else set())
    by_forward = MOVED_BY_OBJECTIVE[objective] | ({"backward_head"} if approach == "naive" else set())
    assert moved(between, snapshot(agent)) == by_forward


@each("approach", ["tlm", "pessimistic"])
@each_objective
def test_an_untied_backward_policy_leaves_the_forward_trunk_alone(started, objective, approach):
    agent, batch = started(objective, approach, tied_trunk=False)
    before = snapshot(agent)
    update_backward(agent, batch)
    target = {"backward_target"} if approach == "tlm" else set()
    assert moved(before, snapshot(agent)) == {"backward_trunk", "backward_head"} | target
    between = snapshot(agent)
    update_forward(agent, batch)
    agent.update_model_target()
    assert moved(between, snapshot(agent)) == MOVED_BY_OBJECTIVE[objective]


@each_objective
def test_naive_trains_an_untied_trunk_through_the_objective(started, objective):
    agent, batch = started(objective, "naive", tied_trunk=False)
    before = snapshot(agent)
    update_forward(agent, batch)
    agent.update_model_target()
    assert moved(before, snapshot(agent)) == MOVED_BY_OBJECTIVE[objective] | {"backward_head", "backward_trunk"}


@each("tied_trunk", [True, False])
@each_objective
@each_approach
def test_groups_are_disjoint_and_cover_everything(new_agent, objective, approach, tied_trunk):
    agent = new_agent(objective, approach, tied_trunk=tied_trunk)
    groups = agent.policies.groups()
    ids = [id(p) for group in groups.values() for p in group]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in agent.policies.parameters() if p.requires_grad}
    assert set(ids) == {id(p) for p in agent.parameters()}
    of_backward = {"backward_head", "backward_trunk"}

    def optimised(learner):
        held = [id(p) for group in learner.optimizer.param_groups for p in group["params"]]
        assert len(held) == len(set(held))
        return {name for name, group in groups.items() if {id(p) for p in group} <= set(held)}, len(held)

    names, n_held = optimised(agent.forward_learner)
    assert names == (set(groups) if approach == "naive" else set(groups) - of_backward)
    assert n_held == sum(len(groups[name]) for name in names)
    if approach in ("tlm", "pessimistic"):
        names, n_held = optimised(agent.backward_learner)
        assert names == {"backward_head", "trunk" if tied_trunk else "backward_trunk"}
        assert n_held == sum(len(groups[name]) for name in names)
    else:
        assert agent.backward_learner is None


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


# What P_B the objective scores


def forward_value(agent, batch):
    """The objective on the batch, without moving the replay stream or its priorities."""
    state = agent.streams.replay.bit_generator.state
    replay = copy.deepcopy(getattr(agent, "_replay", None))
    loss = agent.forward_loss(batch)
    agent.streams.replay.bit_generator.state = state
    if replay is not None:
        agent._replay = replay
    return loss


def tilt(backward):
    with torch.no_grad():
        backward.head.bias.add_(torch.tensor([1.0, -1.0]))


@each_objective
def test_the_objective_scores_the_backward_policy_of_the_table(started, objective):
    """online or online detached: the loss follows the online head at once; target: it follows the target alone."""
    for approach, follows_online in (("naive", True), ("pessimistic", True), ("tlm", False)):
        agent, batch = started(objective, approach)
        before = forward_value(agent, batch).item()
        tilt(agent.policies.backward)
        after = forward_value(agent, batch).item()
        assert (abs(after - before) > 1e-3) if follows_online else (after == before)
    tilt(agent.policies.backward_target)
    assert abs(forward_value(agent, batch).item() - before) > 1e-3


@each_objective
def test_the_objective_reaches_the_backward_head_for_naive_alone(started, objective):
    """log P_B is recomputed with its gradient when it is learned from, the DQN objectives included."""
    for approach in ("naive", "tlm", "pessimistic"):
        agent, batch = started(objective, approach)
        gradients = torch.autograd.grad(forward_value(agent, batch), list(head(agent).parameters()), allow_unused=True)
        if approach == "naive":
            assert all(gradient.abs().max() > 1e-6 for gradient in gradients)
        else:
            assert gradients == (None, None)


def test_targets_take_no_gradient_and_stay_in_evaluation_mode(started):
    agent, _ = started("munchausen_dqn", "tlm")
    for module in (agent.policies.backward_target, *agent.q_target):
        assert not module.training
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())


@each_objective
def test_targets_start_as_copies(new_agent, objective):
    agent = new_agent(objective, "tlm", zero_initialisation=False)
    pairs = [(agent.policies.backward_target, agent.policies.backward)]
    if objective in DQN:
        pairs += zip(agent.q_target, (agent.policies.trunk, agent.policies.forward_head), strict=True)
    for target, online in pairs:
        assert all(map(torch.equal, target.parameters(), online.parameters()))
        assert not {id(p) for p in target.parameters()} & {id(p) for p in online.parameters()}


@pytest.mark.parametrize("decay", [0.0, 0.75, 0.9])
def test_targets_move_once_per_step_by_the_decay(started, decay):
    agent, batch = started("munchausen_dqn", "tlm", target_decay=decay)
    expected = [p.clone() for p in agent.policies.backward_target.parameters()]
    update_backward(agent, batch)
    ema_update(expected, agent.policies.backward.parameters(), decay)
    assert all(map(torch.equal, agent.policies.backward_target.parameters(), expected))
    expected = [p.clone() for module in agent.q_target for p in module.parameters()]
    update_forward(agent, batch)
    agent.update_model_target()
    online = [*agent.policies.trunk.parameters(), *agent.policies.forward_head.parameters()]
    ema_update(expected, online, decay)
    found = [p for module in agent.q_target for p in module.parameters()]
    assert all(map(torch.equal, found, expected))
    assert all(map(torch.equal, found, online)) == (decay == 0.0)


# What P_B learns from


def negative_log_likelihood(agent, batch):
    log_pb = agent.policies.backward.log_probs(batch.visited)
    return trajectory_negative_log_likelihood(taken_log_pb(log_pb, batch), batch.n_trajectories).item()


@each_objective
def test_tlm_learns_from_the_current_batch(started, objective):
    agent, _ = started(objective, "tlm")
    for _ in range(3):
        batch = agent.sample()
        assert agent.backward_loss(batch).item() == pytest.approx(negative_log_likelihood(agent, batch), rel=1e-6)


@each_objective
def test_pessimistic_learns_from_each_of_the_last_twenty_batches(new_agent, objective):
    agent = new_agent(objective, "pessimistic", zero_initialisation=False)
    batches = [agent.sample() for _ in range(25)]
    expected = {negative_log_likelihood(agent, batch) for batch in batches[-20:]}
    seen = {agent.backward_loss(batches[-1]).item() for _ in range(400)}
    assert seen == expected and len(expected) == 20


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
    assert not any(same_weights(base, agent) for agent in changed)


@pytest.mark.parametrize(("field", "value"), [("m_alpha", 0.5), ("m_l0", -0.1)])
def test_munchausen_options_have_an_effect(new_agent, field, value):
    agents = [new_agent("munchausen_dqn", "uniform"), new_agent("munchausen_dqn", "uniform", **{field: value})]
    for agent in agents:
        train_step(agent)
    assert not same_weights(*agents)


def test_munchausen_without_its_bonus_is_soft_dqn(new_agent):
    soft, munchausen = new_agent("soft_dqn", "tlm"), new_agent("munchausen_dqn", "tlm", m_alpha=0.0)
    for _ in range(3):
        assert train_step(soft) == train_step(munchausen)
    assert same_weights(soft, munchausen)


# Optimisation


def test_clipping_is_configured_for_both_losses(new_agent):
    agent = new_agent("db", "tlm", gradient_clipping=1e-3)
    batch = agent.sample()
    for update, learner in ((update_backward, agent.backward_learner), (update_forward, agent.forward_learner)):
        update(agent, batch)
        gradients = [p.grad for group in learner.optimizer.param_groups for p in group["params"]]
        assert torch.stack([gradient.norm() for gradient in gradients]).norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert new_agent("db", "tlm").forward_learner.max_norm == 0.0


def test_the_backward_learning_rate_decays_for_tlm_alone(new_agent):
    for approach, factor in (("tlm", 0.9), ("pessimistic", 1.0)):
        agent = new_agent("db", approach, backward_learning_rate=0.02, backward_learning_rate_decay=0.9)
        for _ in range(5):
            train_step(agent)
        (group,) = agent.backward_learner.optimizer.param_groups
        assert group["lr"] == pytest.approx(0.02 * factor**5)
        assert agent.forward_learner.optimizer.param_groups[0]["lr"] == 1e-3


def test_the_other_order_is_a_setting(new_agent):
    orders = [new_agent("db", "tlm", update_order=order) for order in ("backward_first", "forward_first")]
    for agent in orders:
        train_step(agent)
    assert not same_weights(*orders)


# Initialisation and evaluation


@pytest.mark.parametrize("approach", ["naive", "tlm", "pessimistic"])
def test_zero_initialisation_starts_at_uniform(new_agent, approach):
    for zero_initialisation in (True, False):
        agent = new_agent("db", approach, zero_initialisation=zero_initialisation)
        agent.sample()
        deviation = agent.evaluate(1)["pb_deviation"]
        assert (deviation < 1e-6) if zero_initialisation else (deviation > 1e-3)
        for _ in range(3):
            train_step(agent)
        assert agent.evaluate(4)["pb_deviation"] > 1e-4


@each_objective
def test_uniform_never_deviates_and_maxent_always_does(new_agent, objective):
    for approach, expected in (("uniform", 0.0), ("maxent", None)):
        agent = new_agent(objective, approach)
        for _ in range(3):
            train_step(agent)
        deviation = agent.evaluate(3)["pb_deviation"]
        assert (deviation == expected) if expected is not None else (deviation > 0.01)


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


@pytest.mark.parametrize("objective", ["tb", "munchausen_dqn"])
@pytest.mark.parametrize("approach", ["tlm", "pessimistic"])
def test_evaluation_leaves_no_trace(new_agent, objective, approach):
    """Evaluated at every step or never: bitwise the same weights, targets, modes and streams."""
    options = {"validation_interval": 1, "exact_interval": 1}
    watched, alone = (new_agent(objective, approach, **options) for _ in range(2))
    for step in range(1, 11):
        train_step(watched)
        torch_state = torch.get_rng_state()
        assert "exact_total_variation" in watched.evaluate(step)
        assert torch.equal(torch.get_rng_state(), torch_state)
        train_step(alone)
    assert same_weights(watched, alone)
    assert moved(snapshot(watched), snapshot(alone)) == set()
    assert watched.policies.training == alone.policies.training
    for name in ("sampling", "replay"):
        states = [getattr(agent.streams, name).bit_generator.state for agent in (watched, alone)]
        assert states[0] == states[1]


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
