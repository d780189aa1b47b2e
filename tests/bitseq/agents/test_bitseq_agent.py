"""What is the strings' own in a step: the trunk, learning rates, hard copies, dropout; see common/test_agents.py."""

import copy
import math

import pytest
import torch
from each import each, each_approach, each_objective
from every_agent import copies_of, moved, same, snapshot, started, tilt

from bitseq.common.algorithm import train_step, update_backward, update_forward

DQN = ("soft_dqn", "munchausen_dqn")
LEARNED = ("naive", "tlm", "pessimistic")

# One step


@each("objective", DQN)
@each_approach
def test_a_step_at_which_no_copy_is_due_leaves_the_targets(new_agent, objective, approach):
    agent = new_agent(objective, approach)
    before = snapshot(agent)
    train_step(agent)
    assert moved(before, snapshot(agent)) == before.keys() - {"target", "backward_target"}


def test_a_loss_that_steps_the_backward_head_alone_computes_no_gradient_of_the_trunk(new_agent):
    """And has the value, and the gradient of the head, that it has with one."""
    of_head, values = [], []
    for head_only in (False, True):
        agent = new_agent("tb", "tlm", backward_head_only=head_only, uniform_initialisation=False)
        torch.manual_seed(2)  # of dropout
        loss = agent.backward_loss(agent.sample())
        trunk = list(agent.policies.trunk.parameters())
        of_trunk = torch.autograd.grad(loss, trunk, allow_unused=True, retain_graph=True)
        assert all((gradient is None) == head_only for gradient in of_trunk)
        of_head.append(torch.autograd.grad(loss, list(agent.policies.backward.head.parameters())))
        values.append(loss.item())
    assert values[0] == values[1] and all(torch.equal(*pair) for pair in zip(*of_head, strict=True))


# Learning rates


def largest_move(before, after, name):
    return max((a - b).abs().max().item() for a, b in zip(after[name], before[name], strict=True))


@each("objective", ["db", "munchausen_dqn"])
@each("approach", ["tlm", "pessimistic"])
@each(
    "options,rate",
    [
        ({"backward_learning_rate": 0.02}, 0.02),
        ({"blr": 0.02}, 0.02),
        ({"lr": 0.02}, 0.02),
        ({"learning_rate": 0.05, "blr": 0.02}, 0.02),
        ({}, 1e-3),
    ],
)
def test_the_backward_policy_moves_at_its_own_learning_rate(new_agent, objective, approach, options, rate):
    """Adam's first step is as long as the learning rate; without the option that is P_F's."""
    agent = new_agent(objective, approach, **options)
    batch, before = agent.sample(), snapshot(agent)
    update_backward(agent, batch)
    after = snapshot(agent)
    assert largest_move(before, after, "backward_head") == pytest.approx(rate, rel=1e-2)
    update_forward(agent, batch)
    forward_rate = options.get("lr", options.get("learning_rate", 1e-3))
    assert largest_move(after, snapshot(agent), "forward_head") == pytest.approx(forward_rate, rel=1e-2)


def test_log_z_has_its_own_learning_rate(new_agent):
    """Each of its 64 parts moves by it, log Z by 64 times as much."""
    agent = new_agent("tb", "uniform", log_z_learning_rate=0.25, learning_rate=0.01)
    before, log_z = snapshot(agent), agent.policies.log_z.item()
    train_step(agent)
    after = snapshot(agent)
    assert len(after["log_z"][0]) == 64
    assert (after["log_z"][0] - before["log_z"][0]).abs().tolist() == pytest.approx([0.25] * 64, rel=1e-3)
    assert abs(agent.policies.log_z.item() - log_z) == pytest.approx(16.0, rel=1e-3)
    assert largest_move(before, after, "forward_head") == pytest.approx(0.01, rel=1e-2)


# What P_B the objective scores


@each("approach", LEARNED)
@each_objective
def test_the_backward_policy_is_read_at_the_child_under_the_childs_mask(new_agent, objective, approach):
    """By one pass per transition; the parent's features, or the parent's mask, give other values."""
    agent = new_agent(objective, approach, uniform_initialisation=False, dropout=0, batch_size=4)
    policy = agent.policies.backward_target if approach == "tlm" else agent.policies.backward
    tilt(list(policy.head.parameters()))
    batch = agent.sample()

    def log_pb(features, mask, position):
        logits = policy.head(policy.trunk(features[None])[0, 0])
        return (logits[position] - logits[mask].logsumexp(0)).item()

    positions = (batch.actions // agent.environment.n_words).tolist()
    expected, at_parent = [], []
    for row, position in enumerate(positions):
        parent = batch.states[row]
        child = parent.clone()
        child[position] = batch.actions[row] % agent.environment.n_words
        filled = child != agent.environment.empty
        expected.append(log_pb(child, filled, position))
        at_parent.append(log_pb(parent, filled, position))
    found = agent.scored_log_pb(batch.next_states, batch.actions)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.tolist() != pytest.approx(at_parent, abs=1e-3)
    hidden = agent.policies.trunk(batch.visited)[batch.next_row]
    if approach != "tlm":
        assert agent.scored_log_pb(batch.next_states, batch.actions, hidden).tolist() == pytest.approx(
            expected, abs=1e-5
        )


@each_objective
def test_the_fixed_backward_policies_score_one_over_the_number_of_words(objective):
    for approach in ("uniform", "maxent"):
        agent, batch = started("bitseq", objective, approach)
        found = agent.scored_log_pb(batch.next_states, batch.actions).view(batch.n_trajectories, -1)
        torch.testing.assert_close(found, -torch.tensor([1.0, 2.0, 3.0, 4.0]).log().expand_as(found))


# Targets


def target_modules(agent):
    return [module for target in (agent.policies.backward_target, agent.target.policies) for module in target.modules()]


@pytest.mark.parametrize("objective", ["db", "munchausen_dqn"])
def test_targets_never_have_dropout(new_agent, objective):
    """From the start, through training, evaluation and a restored checkpoint; the online networks have it."""
    agent, restored = (new_agent(objective, "tlm", corr_every=0) for _ in range(2))

    def check(some):
        assert not any(module.training for module in target_modules(some))
        assert some.policies.training and all(module.training for module in some.policies.trunk.modules())

    check(agent)
    for step in (1, 2):
        train_step(agent)
        check(agent)
        agent.evaluate(step)
        check(agent)
    restored.load_state_dict(copy.deepcopy(agent.state_dict()))
    check(restored)
    assert same(agent, restored)
    agent.policies.eval()
    agent.policies.train()
    check(agent)
    assert all(p.grad is None for module in target_modules(agent) for p in module.parameters())


@pytest.mark.parametrize("objective", DQN)
def test_target_networks_draw_nothing(new_agent, objective):
    """Two passes of each target agree with dropout at one half, which moves every online pass."""
    agent = new_agent(objective, "tlm", uniform_initialisation=False, dropout=0.5)
    batch = agent.sample()
    passes = (
        lambda: agent._target_logits(batch.states).of(batch.actions),
        lambda: agent.policies.backward_target.log_probs(batch.next_states),
    )
    state = torch.get_rng_state()
    assert all(torch.equal(once(), once()) for once in passes)
    assert torch.equal(torch.get_rng_state(), state)
    online = agent.policies.backward.log_probs
    assert not torch.equal(online(batch.next_states), online(batch.next_states))


@each("objective", DQN)
@each_approach
def test_the_target_of_the_whole_model_is_qs_with_p_b(approach, objective):
    """One hard copy every update_target_every steps, after both updates."""
    options = {"update_order": "forward_first"} if approach in ("tlm", "pessimistic") else {}
    agent, _ = started("bitseq", objective, approach, update_target_every=4, **options)
    online, target = zip(*((now, held) for held, now in copies_of(agent)["target"]), strict=True)
    train_step(agent)  # the fourth batch: three steps and the one that `started` samples
    assert all(map(torch.equal, target, online))
    before = [p.clone() for p in target]
    train_step(agent)
    assert all(map(torch.equal, target, before)) and not all(map(torch.equal, target, online))


@pytest.mark.parametrize("start_learning", [0, 4])
@pytest.mark.parametrize("objective", DQN)
def test_hard_copies_at_every_third_step_exactly(new_agent, objective, start_learning):
    """P_B's right after P_B's step, Q's right after Q's; in between both stay as they are."""
    agent = new_agent(objective, "tlm", update_target_every=3, start_learning=start_learning)
    policies = agent.policies

    def flat(*modules):
        return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])

    for step in range(1, 8):
        batch = agent.sample()
        due = step % 3 == 0 and step > start_learning
        before = flat(policies.backward_target), flat(agent.target.policies)
        update_backward(agent, batch)
        after = flat(policies.backward_target)
        assert torch.equal(after, flat(policies.backward) if due else before[0])
        if update_forward(agent, batch) is not None:
            agent.update_model_target()
        online = flat(policies.trunk, policies.forward_head, policies.backward.head)
        assert torch.equal(flat(agent.target.policies), online if due else before[1])
        assert torch.equal(flat(policies.backward_target), after)
        assert not torch.equal(before[1], flat(agent.target.policies)) or not due


# Dropout


@each("probability", [0.0, 0.5])
@each_objective
def test_rollouts_and_losses_have_dropout(new_agent, objective, probability):
    """Torch's generator moves what is sampled and what is learned, exactly when there is dropout."""
    agent = new_agent(objective, "tlm", dropout=probability, uniform_initialisation=False)

    def varies(once):
        streams = [getattr(agent.streams, name).bit_generator for name in ("sampling", "replay")]
        states, replay = [stream.state for stream in streams], copy.deepcopy(getattr(agent, "_replay", None))
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            found.append(once())
            for stream, state in zip(streams, states, strict=True):
                stream.state = state
            if replay is not None:
                agent._replay = copy.deepcopy(replay)
        return not torch.equal(*found)

    batch = agent.sample()
    assert varies(lambda: agent.sample().actions) == (probability > 0)
    assert varies(lambda: agent.backward_loss(batch).detach()) == (probability > 0)
    assert varies(lambda: agent.forward_loss(batch).detach()) == (probability > 0)


def test_the_sampled_policy_is_the_softmax_of_q_over_c(new_agent):
    """Munchausen samples softmax(Q / c): its exact distribution is compared with 20,000 of its own samples."""
    options = {"m_alpha": 0.6, "batch_size": 20_000, "rand_action_prob": 0, "dropout": 0}
    agent = new_agent("munchausen_dqn", "uniform", **options)
    assert agent.coefficient == pytest.approx(2.5)
    with torch.no_grad():
        for parameter in agent.policies.forward_head.parameters():
            parameter *= 4
    strings = agent.sample().terminal_states
    number = (strings * 4 ** torch.arange(3, -1, -1)).sum(1)
    sampled = torch.bincount(number, minlength=256).double() / len(strings)

    def distance(coefficient):
        exact = exact_by_recursion(agent, coefficient)
        return math.fsum((exact - sampled).abs().tolist()) / 2

    assert distance(2.5) < 0.06
    assert distance(1.0) > 0.2


def exact_by_recursion(agent, coefficient):
    """(256,) probability of each string under softmax(Q / coefficient), all states of a depth at once."""
    environment, visit = agent.environment, {(4, 4, 4, 4): 1.0}
    with torch.no_grad():
        for _ in range(environment.length):
            following = {}
            states = torch.tensor(list(visit))
            hidden = agent.policies.trunk(states)
            joint = agent.policies.forward_logits(states, hidden).joint().flatten(1).double()
            for (state, mass), probabilities in zip(
                visit.items(), (joint / coefficient).softmax(-1).tolist(), strict=True
            ):
                for action, probability in enumerate(probabilities):
                    position, word = divmod(action, environment.n_words)
                    if state[position] == environment.empty:
                        child = (*state[:position], word, *state[position + 1 :])
                        following[child] = following.get(child, 0.0) + mass * probability
            visit = following
    return torch.tensor([visit[key] for key in sorted(visit)], dtype=torch.float64)
