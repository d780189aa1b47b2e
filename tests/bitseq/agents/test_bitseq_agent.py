"""Which parameters one training step moves, on which loss and batch, for every objective and approach."""

import copy
import itertools
import math

import pytest
import torch
from each import each, each_approach, each_objective

from bitseq.common.algorithm import train_step, update_backward, update_forward
from bitseq.common.backward_loss import ema_update, trajectory_negative_log_likelihood
from bitseq.policies.backward import LearnedBackward
from bitseq.sampling import taken_log_pb

DQN = ("soft_dqn", "munchausen_dqn")
LEARNED = ("naive", "tlm", "pessimistic")

# What one step moves, whatever the approach, and what it moves besides, whatever the objective.
MOVED_BY_OBJECTIVE = {
    "tb": {"trunk", "forward_head", "log_z", "target"},
    "db": {"trunk", "forward_head", "log_flow", "target"},
    "subtb": {"trunk", "forward_head", "log_flow", "target"},
    "soft_dqn": {"trunk", "forward_head", "target"},
    "munchausen_dqn": {"trunk", "forward_head", "target"},
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
    groups["target"] = list(agent.target.policies.parameters())
    return groups


def snapshot(agent):
    return {name: [p.detach().clone() for p in group] for name, group in groups_of(agent).items()}


def moved(before, after):
    """Names of the groups in which anything changed."""
    return {name for name in before if not all(map(torch.equal, before[name], after[name]))}


def same(first, second):
    """Whether all weights of two agents are the same bits, targets included."""
    return moved(snapshot(first), snapshot(second)) == set()


def head(agent):
    return agent.policies.backward.head


def tilt(backward):
    with torch.no_grad():
        backward.head.bias.add_(torch.tensor([1.5, 0.5, -0.5, -1.5]))


def take_steps(agent, n_steps, after=lambda step: None):
    """Steps whose dropout does not depend on what drew from torch's generator before."""
    torch.manual_seed(11)
    for step in range(1, n_steps + 1):
        train_step(agent)
        after(step)


@pytest.fixture
def started(new_agent):
    """``started(objective, approach)``: an agent with a non-uniform P_B, after two steps, and a fresh batch."""

    def start(objective, approach, **overrides):
        options = {"uniform_initialisation": False} | ({"update_target_every": 1} if objective in DQN else {})
        agent = new_agent(objective, approach, **(options | overrides))
        for _ in range(2):
            train_step(agent)
        return agent, agent.sample()

    return start


# One step


@each("uniform_initialisation", [True, False])
@each_objective
@each_approach
def test_a_step_moves_exactly_the_groups_of_the_table(new_agent, objective, approach, uniform_initialisation):
    options = {"update_target_every": 1} if objective in DQN else {}
    agent = new_agent(objective, approach, uniform_initialisation=uniform_initialisation, **options)
    before = snapshot(agent)
    assert set(before) == MOVED_BY_OBJECTIVE[objective] | MOVED_BY_APPROACH[approach]
    train_step(agent)
    assert moved(before, snapshot(agent)) == MOVED_BY_OBJECTIVE[objective] | MOVED_BY_APPROACH[approach]


@each("objective", DQN)
@each_approach
def test_a_step_at_which_no_copy_is_due_leaves_the_targets(new_agent, objective, approach):
    agent = new_agent(objective, approach)
    before = snapshot(agent)
    train_step(agent)
    targets = {"target", "backward_target"}
    expected = (MOVED_BY_OBJECTIVE[objective] | MOVED_BY_APPROACH[approach]) - targets
    assert moved(before, snapshot(agent)) == expected


@each_objective
@each_approach
def test_the_two_updates_of_a_step_move_disjoint_parts(started, objective, approach):
    """P_B's own loss moves backward head, P_B's target and, but for TB, the trunk; P_F's objective moves the rest."""
    agent, batch = started(objective, approach)
    before = snapshot(agent)
    update_backward(agent, batch)
    between = snapshot(agent)
    update_forward(agent, batch)
    agent.update_model_target()
    learns, trunk = approach in ("tlm", "pessimistic"), {"trunk"} if objective != "tb" else set()
    assert moved(before, between) == (MOVED_BY_APPROACH[approach] | trunk if learns else set())
    by_forward = MOVED_BY_OBJECTIVE[objective] | ({"backward_head"} if approach == "naive" else set())
    assert moved(between, snapshot(agent)) == by_forward


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
        of_head.append(torch.autograd.grad(loss, list(head(agent).parameters())))
        values.append(loss.item())
    assert values[0] == values[1] and all(torch.equal(*pair) for pair in zip(*of_head, strict=True))


@each("head_only", [True, False])
@each("approach", ["tlm", "pessimistic"])
@each_objective
def test_backward_head_only_leaves_the_trunk_to_the_objective(started, objective, approach, head_only):
    """Whatever is the objective's default."""
    agent, batch = started(objective, approach, backward_head_only=head_only)
    (group,) = agent.backward_learner.optimizer.param_groups
    trunk = [] if head_only else list(agent.policies.trunk.parameters())
    assert [id(p) for p in group["params"]] == [id(p) for p in [*trunk, *head(agent).parameters()]]
    before = snapshot(agent)
    update_backward(agent, batch)
    between = snapshot(agent)
    assert moved(before, between) == MOVED_BY_APPROACH[approach] | (set() if head_only else {"trunk"})
    update_forward(agent, batch)
    agent.update_model_target()
    assert moved(between, snapshot(agent)) == MOVED_BY_OBJECTIVE[objective]


@each_objective
@each_approach
def test_groups_are_disjoint_and_the_optimisers_hold_them_whole(new_agent, objective, approach):
    agent = new_agent(objective, approach)
    groups = agent.policies.groups()
    ids = [id(p) for group in groups.values() for p in group]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in agent.policies.parameters() if p.requires_grad}
    assert set(ids) == {id(p) for p in agent.parameters()}

    def optimised(learner):
        held = [id(p) for group in learner.optimizer.param_groups for p in group["params"]]
        assert len(held) == len(set(held))
        names = {name for name, group in groups.items() if {id(p) for p in group} <= set(held)}
        assert len(held) == sum(len(groups[name]) for name in names)
        return names

    assert optimised(agent.forward_learner) == (set(groups) if approach == "naive" else set(groups) - {"backward_head"})
    if approach in ("tlm", "pessimistic"):
        trunk = {"trunk"} if objective != "tb" else set()
        assert optimised(agent.backward_learner) == {"backward_head"} | trunk
    else:
        assert agent.backward_learner is None


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


@pytest.mark.parametrize(("objective", "n_learned"), [("db", 5), ("munchausen_dqn", 3)])
def test_the_backward_learning_rate_decays_for_tlm_alone(new_agent, objective, n_learned):
    """Once per step that it learns from: not before learning starts."""
    options = {"start_learning": 2} if objective in DQN else {}
    for approach, factor in (("tlm", 0.9), ("pessimistic", 1.0)):
        agent = new_agent(objective, approach, backward_learning_rate=0.02, gamma=0.9, **options)
        take_steps(agent, 5)
        (group,) = agent.backward_learner.optimizer.param_groups
        assert group["lr"] == pytest.approx(0.02 * factor**n_learned)
        assert [group["lr"] for group in agent.forward_learner.optimizer.param_groups] == [1e-3]


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


def value_of(agent, loss, batch):
    """A loss on the batch, always with the same dropout; the replay stream and its priorities stay."""
    torch.manual_seed(5)
    state = agent.streams.replay.bit_generator.state
    replay = copy.deepcopy(getattr(agent, "_replay", None))
    value = loss(batch)
    agent.streams.replay.bit_generator.state = state
    if replay is not None:
        agent._replay = replay
    return value


def forward_value(agent, batch):
    return value_of(agent, agent.forward_loss, batch)


@each_objective
def test_the_objective_scores_the_backward_policy_of_the_table(started, objective):
    """online or online detached: the loss follows the online head at once; target: it follows the target alone.

    Of the DQN objectives too, whose transitions entered the buffer before the head moved.
    """
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
    """log P_B is recomputed with its gradient when it is learned from, by the DQN objectives too."""
    for approach in LEARNED:
        agent, batch = started(objective, approach)
        gradients = torch.autograd.grad(forward_value(agent, batch), list(head(agent).parameters()), allow_unused=True)
        if approach == "naive":
            assert all(gradient.abs().max() > 1e-6 for gradient in gradients)
        else:
            assert gradients == (None, None)


@each("approach", LEARNED)
@each_objective
def test_the_backward_policy_is_read_at_the_child_under_the_childs_mask(new_agent, objective, approach):
    """By one pass per transition; the parent's features, or the parent's mask, give other values."""
    agent = new_agent(objective, approach, uniform_initialisation=False, dropout=0, batch_size=4)
    policy = agent.policies.backward_target if approach == "tlm" else agent.policies.backward
    tilt(policy)
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
        assert agent.scored_log_pb(batch.next_states, batch.actions, hidden).tolist() == pytest.approx(expected, 1e-5)


@each_objective
def test_the_fixed_backward_policies_score_one_over_the_number_of_words(started, objective):
    for approach in ("uniform", "maxent"):
        agent, batch = started(objective, approach)
        found = agent.scored_log_pb(batch.next_states, batch.actions).view(batch.n_trajectories, -1)
        torch.testing.assert_close(found, -torch.tensor([1.0, 2.0, 3.0, 4.0]).log().expand_as(found))


# Targets


def parts_of(agent):
    """(online, target) parameters of every part that the target of the whole model has."""
    online, target = agent.policies.groups(), agent.target.policies.groups()
    return [(online[name], target[name]) for name in ("trunk", "forward_head", "backward_head") if name in online]


@each_objective
def test_targets_start_as_copies(new_agent, objective):
    agent = new_agent(objective, "tlm", uniform_initialisation=False)
    target = agent.target.policies
    pairs = [(agent.policies.backward_target, agent.policies.backward), (target.backward, agent.policies.backward)]
    pairs.append((target.forward_head, agent.policies.forward_head))
    assert target.backward.trunk is target.trunk
    assert {id(p) for p in target.parameters()} == {id(p) for _, t in parts_of(agent) for p in t}
    for target, online in pairs:
        assert all(map(torch.equal, target.parameters(), online.parameters()))
        assert not {id(p) for p in target.parameters()} & {id(p) for p in online.parameters()}
        assert not any(p.requires_grad for p in target.parameters())


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


@each("decay", [0.0, 0.75, 0.9])
@each("objective", ["tb", "db", "subtb"])
def test_the_backward_target_moves_once_per_step_by_the_decay(started, objective, decay):
    agent, batch = started(objective, "tlm", target_decay=decay)
    expected = [p.clone() for p in agent.policies.backward_target.parameters()]
    update_backward(agent, batch)
    ema_update(expected, agent.policies.backward.parameters(), decay)
    found = list(agent.policies.backward_target.parameters())
    assert all(map(torch.equal, found, expected))
    online = list(agent.policies.backward.parameters())
    assert all(map(torch.equal, found, online)) == (decay == 0.0)
    update_forward(agent, batch)
    assert all(map(torch.equal, agent.policies.backward_target.parameters(), expected))


@each("order", ["backward_first", "forward_first"])
@each("decay", [0.0, 0.75, 0.9])
@each("objective", ["tb", "db", "subtb"])
@each_approach
def test_the_target_of_the_whole_model_moves_once_per_step_after_both_updates(
    started, objective, approach, decay, order
):
    """By the weight of P_B's target, P_F and P_B alike, whichever policy a step updates first."""
    options = {"update_order": order} if approach in ("tlm", "pessimistic") else {}
    agent, _ = started(objective, approach, target_decay=decay, **options)
    online, target = (list(itertools.chain(*parts)) for parts in zip(*parts_of(agent), strict=True))
    expected = [p.clone() for p in target]
    train_step(agent)
    ema_update(expected, online, decay)
    assert all(map(torch.equal, target, expected))
    assert all(map(torch.equal, target, online)) == (decay == 0.0)


@each("objective", DQN)
@each_approach
def test_the_target_of_the_whole_model_is_qs_with_p_b(started, approach, objective):
    """One hard copy every update_target_every steps, after both updates."""
    options = {"update_order": "forward_first"} if approach in ("tlm", "pessimistic") else {}
    agent, _ = started(objective, approach, update_target_every=4, **options)
    online, target = (list(itertools.chain(*parts)) for parts in zip(*parts_of(agent), strict=True))
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


# What P_B learns from


def negative_log_likelihood(agent, batch):
    log_pb = agent.policies.backward.log_probs(batch.next_states)
    taken = taken_log_pb(log_pb, batch.actions, agent.environment.n_words)
    return trajectory_negative_log_likelihood(taken, batch.n_trajectories).item()


@each_objective
def test_tlm_learns_from_the_current_batch(started, objective):
    agent, _ = started(objective, "tlm", dropout=0)
    seen = []
    for _ in range(3):
        batch = agent.sample()
        seen.append(agent.backward_loss(batch).item())
        assert seen[-1] == pytest.approx(negative_log_likelihood(agent, batch), rel=1e-6)
    assert len(set(seen)) == 3


@pytest.mark.parametrize("objective", ["tb", "munchausen_dqn"])
def test_pessimistic_learns_from_each_of_the_last_twenty_batches(new_agent, objective):
    agent = new_agent(objective, "pessimistic", uniform_initialisation=False, dropout=0, batch_size=4)
    batches = [agent.sample() for _ in range(25)]
    expected = {negative_log_likelihood(agent, batch) for batch in batches[-20:]}
    seen = {agent.backward_loss(batches[-1]).item() for _ in range(250)}
    assert seen == expected and len(expected) == 20


def test_munchausen_without_its_bonus_is_soft_dqn(new_agent):
    soft, munchausen = new_agent("soft_dqn", "tlm"), new_agent("munchausen_dqn", "tlm", m_alpha=0.0)
    for agent in (soft, munchausen):
        take_steps(agent, 3)
    assert same(soft, munchausen)
    with_bonus = new_agent("munchausen_dqn", "tlm")
    take_steps(with_bonus, 3)
    assert not same(soft, with_bonus)


@each_objective
def test_a_step_is_algorithm_1_or_the_other_order(new_agent, objective):
    """train_step, against the updates by hand in either order."""
    orders = {"backward_first": (update_backward, update_forward), "forward_first": (update_forward, update_backward)}
    results = []
    for order, updates in orders.items():
        agent, by_hand = (new_agent(objective, "tlm", update_order=order) for _ in range(2))
        take_steps(agent, 2)
        torch.manual_seed(11)
        for _ in range(2):
            batch = by_hand.sample()
            for update in updates:
                learned = update(by_hand, batch)
            if learned is not None:
                by_hand.update_model_target()
        assert same(agent, by_hand)
        results.append(agent)
    assert not same(*results)


@pytest.mark.parametrize("approach", LEARNED)
def test_a_learned_backward_policy_starts_at_uniform_when_asked_to(new_agent, approach):
    for uniform_initialisation in (True, False):
        agent = new_agent("db", approach, uniform_initialisation=uniform_initialisation, corr_every=0, exact_every=0)
        agent.sample()
        deviation = agent.evaluate(1)["pb_deviation"]
        assert (deviation < 1e-6) if uniform_initialisation else (deviation > 1e-2)
        take_steps(agent, 3)
        assert agent.evaluate(4)["pb_deviation"] > 1e-3


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


def test_the_backward_policy_learns_from_the_likelihood(new_agent):
    """Both likelihood approaches lower their own loss; a sign error would raise it."""
    for approach in ("tlm", "pessimistic"):
        agent = new_agent("db", approach, uniform_initialisation=False, backward_learning_rate=0.01, dropout=0)
        assert isinstance(agent.policies.backward, LearnedBackward)
        batch = agent.sample()
        before = negative_log_likelihood(agent, batch)
        for _ in range(5):
            update_backward(agent, batch)
        assert negative_log_likelihood(agent, batch) < before - 0.05
