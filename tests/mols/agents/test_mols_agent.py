"""Which parameters one training step moves, by which loss and how far, for every objective and approach."""

import pytest
import torch
from each import each, each_algo, each_approach
from every_agent import moved, started

from mols.agents import base as learning
from mols.agents import dqn
from mols.common.algorithm import train_step, update_backward, update_forward
from mols.common.backward_loss import ema_update

DQN = ("soft_dqn", "dqn")
OWN_LOSS = ("maxent", "tlm", "pessimistic")  # approaches whose P_B has a loss and an optimiser of its own

# What one step moves, whatever the approach, and what it moves besides, whatever the objective.
MOVED_BY_ALGO = {
    "tb": {"trunk", "forward_head", "log_z"},
    "db": {"trunk", "forward_head", "log_flow"},
    "subtb": {"trunk", "forward_head", "log_flow"},
    "soft_dqn": {"trunk", "forward_head", "log_flow"},
    "dqn": {"trunk", "forward_head", "log_flow"},
}
MOVED_BY_APPROACH = {
    "uniform": set(),
    "naive": {"backward_head"},
    "maxent": {"backward_head", "log_n"},
    "tlm": {"backward_head"},
    "pessimistic": {"backward_head"},
}


def ema(names):
    return {f"EMA {name}" for name in names}


def q_target(algo):
    return {f"Q target {name}" for name in MOVED_BY_ALGO[algo]} if algo in DQN else set()


def groups_of(agent):
    """Every named parameter group of an agent, those of its copies included."""
    copies = {"EMA": agent.average, **({"Q target": agent.q_target} if hasattr(agent, "q_target") else {})}
    return agent.policies.groups() | {
        f"{copy} {name}": group for copy, policies in copies.items() for name, group in policies.groups().items()
    }


def snapshot(agent):
    return {name: [p.detach().clone() for p in group] for name, group in groups_of(agent).items()}


# One step


def assert_moves_by_the_table(agent, algo, approach):
    """Two steps move exactly the table's groups of an agent that has made none.

    The EMA model moves before P_F's update where P_B has its own, so that P_F's part follows a step later.
    """
    online = MOVED_BY_ALGO[algo] | MOVED_BY_APPROACH[approach]
    states = [snapshot(agent)]
    assert set(states[0]) == online | ema(online) | q_target(algo)
    for _ in range(2):
        train_step(agent)
        states.append(snapshot(agent))
    followed = {"trunk"} | MOVED_BY_APPROACH[approach] if approach in OWN_LOSS else online
    assert moved(states[0], states[1]) == online | ema(followed) | q_target(algo)
    assert moved(states[1], states[2]) == online | ema(online) | q_target(algo)


@each_algo
@each_approach
def test_a_step_moves_exactly_the_groups_of_the_table(new_agent, algo, approach):
    assert_moves_by_the_table(new_agent(algo, approach), algo, approach)


@pytest.mark.parametrize("algo", DQN)
def test_without_dueling_the_value_has_no_output_of_its_own(new_agent, algo):
    agent = new_agent(algo, "naive", not_dueling=True)
    before = snapshot(agent)
    train_step(agent)
    online = {"trunk", "forward_head", "backward_head"}
    target = {"Q target trunk", "Q target forward_head"}
    assert moved(before, snapshot(agent)) == online | ema(online) | target


@each_algo
@each_approach
def test_the_two_updates_of_a_step_move_disjoint_parts(algo, approach):
    """P_B's own loss moves trunk, backward head, log n and the EMA model; P_F's objective moves the rest.

    The Q target among it, whatever the approach.
    """
    agent, batch = started("mols", algo, approach)
    online = MOVED_BY_ALGO[algo] | MOVED_BY_APPROACH[approach]
    before = snapshot(agent)
    update_backward(agent, batch)
    between = snapshot(agent)
    update_forward(agent, batch)
    agent.update_model_target()
    after = snapshot(agent)
    if approach in OWN_LOSS:
        assert moved(before, between) == {"trunk"} | MOVED_BY_APPROACH[approach] | ema(online)
        assert moved(between, after) == MOVED_BY_ALGO[algo] | q_target(algo)
    else:
        assert moved(before, between) == set()
        assert moved(between, after) == online | ema(online) | q_target(algo)


@each("algo", ["tb", "dqn"])
@each_approach
def test_a_step_is_algorithm_1(new_agent, algo, approach, monkeypatch):
    """Sample, P_B, EMA model, P_F, Q target; the EMA model moves once, after P_F where P_B has no update of its own."""
    agent, calls = new_agent(algo, approach), []
    for name in ("sample", "backward_loss", "forward_loss"):
        method = getattr(agent, name)
        setattr(agent, name, lambda *args, name=name, method=method: calls.append(name) or method(*args))
    move_towards = learning.move_towards

    def recorded(target, online, decay):
        is_average = target is agent.average
        calls.append("EMA" if is_average else "Q target")
        assert online is agent.policies and (is_average or target is agent.q_target)
        expected, online_now = [p.clone() for p in target.parameters()], dict(online.named_parameters())
        now = [online_now[name] for name, _ in target.named_parameters()]
        ema_update(expected, now, 0.95 if is_average else 0.9)
        move_towards(target, online, decay)
        assert all(map(torch.equal, target.parameters(), expected))

    for module in (learning, dqn):
        monkeypatch.setattr(module, "move_towards", recorded)
    train_step(agent)
    train_step(agent)
    own = ["sample", "backward_loss", "EMA", "forward_loss"]
    step = own if approach in OWN_LOSS else ["sample", "backward_loss", "forward_loss", "EMA"]
    assert calls == 2 * (step + (["Q target"] if algo == "dqn" else []))


# Clipping comes before the step


@each("clipping", [0.0, 1e-2, 1e6])
@each("which", ["forward", "backward"])
def test_gradients_are_clipped_before_the_step(new_agent, which, clipping):
    """Adam's running mean after its first step is a tenth of the gradient that it was given."""
    agent = new_agent("db", "tlm", rand_pb_init=True, weight_decay=0, gradient_clipping=clipping)
    batch = agent.sample()
    learner, loss, update = {
        "forward": (agent.forward_learner, agent.forward_loss, update_forward),
        "backward": (agent.backward_learner, agent.backward_loss, update_backward),
    }[which]
    parameters = [p for group in learner.optimizer.param_groups for p in group["params"]]
    raw = torch.cat([g.flatten() for g in torch.autograd.grad(loss(batch), parameters)])
    assert raw.norm() > 0.1
    update(agent, batch)
    given = 10 * torch.cat([learner.optimizer.state[p]["exp_avg"].flatten() for p in parameters])
    expected = raw * min(1.0, clipping / raw.norm().item()) if clipping else raw
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-7)


# What P_B the objective scores


@pytest.mark.parametrize("algo", ["tb", "dqn"])
def test_uniform_backward_policy_is_scored_by_the_number_of_legal_moves(algo):
    agent, batch = started("mols", algo, "uniform")
    found = agent.scored_log_pb(batch.transitions, agent.policies.features(batch.transitions.visited))
    legal = agent.environment.backward_mask(batch.transitions.visited).sum(1).tolist()
    rows = zip(batch.transitions.next_row.tolist(), batch.transitions.is_stop.tolist(), strict=True)
    expected = [1.0 if is_stop else 1 / legal[row] for row, is_stop in rows]
    assert found.exp().tolist() == pytest.approx(expected)


# What P_B learns from


@each("algo,own", [("tb", {}), ("db", {}), ("soft_dqn", {}), ("dqn", {"m_alpha": 0.5})])
@each("not_dueling", [False, True])
def test_log_z_is_estimated_by_the_averaged_model(new_agent, algo, own, not_dueling):
    """TB's parameter, log F(s_0), or V(s_0) = c log sum exp(Q / c)."""
    is_dqn = "dqn" in algo
    agent = new_agent(algo, "tlm", **own, **({"not_dueling": not_dueling} if is_dqn else {}))
    with torch.no_grad():
        for parameter in agent.average.parameters():
            parameter.add_(0.1)
    initial = agent.environment.initial_states(1)
    features = agent.average.features(initial)
    if is_dqn and not_dueling:
        coefficient, values = {"soft_dqn": 1.0, "dqn": 2.0}[algo], agent.average.forward_logits(initial, features)[0]
        expected = coefficient * (values[values.isfinite()] / coefficient).logsumexp(0)
    else:
        expected = agent.average.log_z if algo == "tb" else agent.average.log_flow(features)[0]
    torch.testing.assert_close(agent.estimated_log_z().squeeze(), expected.squeeze(), atol=1e-4, rtol=0)
