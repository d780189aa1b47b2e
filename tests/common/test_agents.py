"""What one step of every suite's agents moves, by which loss and batch, and which P_B the objective scores."""

import pytest
import torch
from each import APPROACHES, each
from every_agent import (
    AGENTS,
    BACKWARD,
    BACKWARD_RATE,
    OWN_LOSS,
    UNIFORM,
    copies_of,
    each_agent,
    each_agent_in_either_order,
    groups_of,
    moved,
    new_agent,
    same,
    snapshot,
    started,
    take_steps,
    tilt,
    value_of,
)

from hypergrid.common.algorithm import train_step, update_backward, update_forward
from hypergrid.common.backward_loss import ema_update

each_suite = each("suite", ["hypergrid", "bitseq", "mols"])


def moved_by_forward(suite, objective, approach, groups):
    """What P_F's objective moves."""
    own = {"tb": {"log_z"}, "db": {"log_flow"}, "subtb": {"log_flow"}}.get(objective, set())
    target = {"bitseq": {"target"}, "hypergrid": {"q_target"} if "dqn" in objective else set()}[suite]
    return {"trunk", "forward_head"} | own | target | (BACKWARD & groups.keys() if approach == "naive" else set())


def moved_by_backward(suite, objective, approach, groups, head_only=None):
    """What P_B's own loss moves; unless told otherwise, with TB the strings' trunk is P_F's."""
    if approach not in OWN_LOSS[suite]:
        return set()
    is_shared = "backward_trunk" not in groups
    if suite == "bitseq":
        is_shared = not (objective == "tb" if head_only is None else head_only)
    shared, target = {"trunk"} if is_shared else set(), {"backward_target"} if approach == "tlm" else set()
    return (BACKWARD & groups.keys()) | shared | target


# One step; of molecules, whose copies move in another order, see test_mols_agent.py


@each("options", [{}, UNIFORM])
@each("approach", APPROACHES)
@each_agent_in_either_order
def test_a_step_moves_exactly_the_groups_of_the_table(suite, objective, approach, options):
    every = {"update_target_every": 1} if suite == "bitseq" and "dqn" in objective else {}
    agent = new_agent(suite, objective, approach, **options.get(suite, {}), **every)
    before = snapshot(agent)
    expected = moved_by_forward(suite, objective, approach, before)
    expected |= moved_by_backward(suite, objective, approach, before)
    assert set(before) == expected
    train_step(agent)
    assert moved(before, snapshot(agent)) == expected


TRUNKS = [("hypergrid", {"tied_trunk": False}), *(("bitseq", {"backward_head_only": only}) for only in (True, False))]
CASES = [
    (*agent, options) for agent in AGENTS for suite, options in [(agent[0], {}), *TRUNKS] if suite == agent[0] != "mols"
]


@each("approach", APPROACHES)
@each("suite, objective, options", CASES)
def test_the_two_updates_of_a_step_move_disjoint_parts(suite, objective, approach, options):
    """But for a shared trunk: P_B's own loss moves P_B and its target, P_F's objective the rest."""
    agent, batch = started(suite, objective, approach, **options)
    before = snapshot(agent)
    update_backward(agent, batch)
    between = snapshot(agent)
    update_forward(agent, batch)
    agent.update_model_target()
    head_only = options.get("backward_head_only")
    assert moved(before, between) == moved_by_backward(suite, objective, approach, before, head_only)
    assert moved(between, snapshot(agent)) == moved_by_forward(suite, objective, approach, before)


@each("approach", APPROACHES)
@each("suite, objective, options", [(*agent, {}) for agent in AGENTS] + [("hypergrid", "db", {"tied_trunk": False})])
def test_groups_are_disjoint_and_the_optimisers_hold_them_whole(suite, objective, approach, options):
    agent = new_agent(suite, objective, approach, **options)
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

    assert optimised(agent.forward_learner) == groups.keys() - (set() if approach == "naive" else BACKWARD)
    if approach in OWN_LOSS[suite]:
        is_shared = "backward_trunk" not in groups and (suite, objective) != ("bitseq", "tb")
        assert optimised(agent.backward_learner) == (groups.keys() & BACKWARD) | ({"trunk"} if is_shared else set())
    else:
        assert agent.backward_learner is None


@each_agent_in_either_order
def test_a_step_is_the_two_updates_in_the_order_of_the_setting(suite, objective):
    """train_step, against the updates by hand in either order."""
    orders = {"backward_first": (update_backward, update_forward), "forward_first": (update_forward, update_backward)}
    results = []
    for order, updates in orders.items():
        agent, by_hand = (new_agent(suite, objective, "tlm", update_order=order) for _ in range(2))
        take_steps(agent, 2)
        torch.manual_seed(11)
        for _ in range(2):
            batch = by_hand.sample()
            losses = {update: update(by_hand, batch) for update in updates}
            if losses[update_forward] is not None:
                by_hand.update_model_target()
        assert same(agent, by_hand)
        results.append(agent)
    assert not same(*results)


# Copies


@each("approach", APPROACHES)
@each_agent
def test_copies_start_as_the_online_networks_and_take_no_gradient(suite, objective, approach):
    agent = new_agent(suite, objective, approach)
    names = {"hypergrid": {"q_target"} if "dqn" in objective else set(), "bitseq": {"target"}}
    names["mols"] = {"average"} | ({"q_target"} if "dqn" in objective else set())
    has_own = suite != "mols" and approach == "tlm"
    assert copies_of(agent).keys() == names[suite] | ({"backward_target"} if has_own else set())
    for name, held in copies_of(agent).items():
        assert all(torch.equal(*pair) for pair in held), name
        assert not any(copy.requires_grad or copy.data_ptr() == online.data_ptr() for copy, online in held), name
    train_step(agent)
    assert all(copy.grad is None for held in copies_of(agent).values() for copy, _ in held)


@each("decay", [0.0, 0.75])
@each_agent
def test_a_copy_moves_by_the_decay(suite, objective, decay):
    """As an EMA once per step, after P_B's update or after both; the strings' DQN targets are plain copies."""
    if suite == "bitseq" and "dqn" in objective:
        return
    options = {"q_target_decay": decay} if suite == "mols" and "dqn" in objective else {}
    agent, batch = started(suite, objective, "tlm", target_decay=decay, **options)
    for update in (update_backward, update_forward):
        before = {name: [copy.clone() for copy, _ in held] for name, held in copies_of(agent).items()}
        update(agent, batch)
        if update is update_forward:
            agent.update_model_target()
        follow = {"backward_target", "average"} if update is update_backward else {"target", "q_target"}
        for name, held in copies_of(agent).items():
            if name in follow:
                ema_update(before[name], [online for _, online in held], decay)
            assert all(torch.equal(copy, old) for (copy, _), old in zip(held, before[name], strict=True)), name


# What P_B the objective scores


@each_agent
def test_the_objective_scores_and_reaches_the_backward_policy_of_the_table(suite, objective):
    """online, online detached: the loss follows the online head at once; target, fixed: it follows the copy alone.

    Of the DQN objectives too, whose transitions entered the buffer before the head moved. The gradient reaches the
    head, log P_B being computed afresh, for naive alone.
    """
    for approach in ("naive", "pessimistic", "tlm", *(["maxent"] if suite == "mols" else [])):
        agent, batch = started(suite, objective, approach)
        head = agent.policies.groups()["backward_head"]
        loss = value_of(agent, agent.forward_loss, batch)
        gradients = torch.autograd.grad(loss, head, allow_unused=True)
        if approach == "naive":
            assert all(gradient.abs().max() > 1e-6 for gradient in gradients)
        else:
            assert set(gradients) == {None}
        tilt(head)
        after = value_of(agent, agent.forward_loss, batch).item()
        if approach in ("naive", "pessimistic"):
            assert abs(after - loss.item()) > 1e-3
            continue
        assert after == loss.item()
        of_head = {id(p) for p in head}
        copies = copies_of(agent)
        tilt([copy for copy, online in copies.get("backward_target", copies.get("average")) if id(online) in of_head])
        assert abs(value_of(agent, agent.forward_loss, batch).item() - after) > 1e-3


# What P_B learns from


@each("suite, objective", [(suite, name) for suite, name in AGENTS if name in ("tb", "munchausen_dqn", "dqn")])
def test_pessimistic_learns_from_each_of_the_last_twenty_batches_and_tlm_from_the_current_one(suite, objective):
    options = {"hypergrid": {}, "bitseq": {"dropout": 0, "batch_size": 4}, "mols": {"batch_size": 3}}[suite]
    agent, twin = (new_agent(suite, objective, approach, **options) for approach in ("pessimistic", "tlm"))
    batches = [agent.sample() for _ in range(25)]
    twin.sample()  # so that it learns
    expected = [twin.backward_loss(batch).item() for batch in batches]  # a twin: the same weights
    assert len(set(expected)) == 25
    seen = {agent.backward_loss(batches[-1]).item() for _ in range(250)}
    assert seen == set(expected[5:])


@each_suite
def test_the_backward_policy_learns_its_own_loss(suite):
    """A sign error would raise it."""
    options = {BACKWARD_RATE[suite]: 0.01} | ({"dropout": 0} if suite == "bitseq" else {})
    for approach in OWN_LOSS[suite]:
        agent = new_agent(suite, "db", approach, **options)
        batch = agent.sample()
        values = [update_backward(agent, batch) for _ in range(6)]
        assert values[-1] < values[0] - 0.05, approach


@each(
    "suite, objective, n_learned", [(s, o, n) for s in ("hypergrid", "bitseq") for o, n in [("db", 5), ("soft_dqn", 3)]]
)
def test_the_backward_learning_rate_decays_for_tlm_alone(suite, objective, n_learned):
    """Once per step that it learns from: not before learning starts."""
    decay = {"hypergrid": "backward_learning_rate_decay", "bitseq": "gamma"}[suite]
    options = {"backward_learning_rate": 0.02} | ({"start_learning": 2} if "dqn" in objective else {})
    for approach, factor in (("tlm", 0.9), ("pessimistic", 1.0)):
        agent = new_agent(suite, objective, approach, **options, **{decay: 0.9})
        take_steps(agent, 5)
        (group,) = agent.backward_learner.optimizer.param_groups
        assert group["lr"] == pytest.approx(0.02 * factor**n_learned)
        assert [group["lr"] for group in agent.forward_learner.optimizer.param_groups] == [1e-3]


@each("approach", ["naive", "tlm", "pessimistic"])
@each_suite
def test_a_learned_backward_policy_starts_at_uniform_when_asked_to(suite, approach):
    always = {BACKWARD_RATE[suite]: 0.01} | ({} if suite == "hypergrid" else {"corr_every": 0})
    for options in (UNIFORM[suite], {}):
        agent = new_agent(suite, "db", approach, **options, **always)
        agent.sample()
        deviation = agent.evaluate(1)["pb_deviation"]
        assert (deviation < 1e-6) if options else (deviation > 1e-3)
        take_steps(agent, 3)
        assert agent.evaluate(4)["pb_deviation"] > 1e-4


@each(
    "suite, names",
    [
        ("hypergrid", ("soft_dqn", "munchausen_dqn")),
        ("bitseq", ("soft_dqn", "munchausen_dqn")),
        ("mols", ("soft_dqn", "dqn")),
    ],
)
def test_munchausen_without_its_bonus_is_soft_dqn(suite, names):
    soft, munchausen, with_bonus = (
        new_agent(suite, name, "tlm", **options)
        for name, options in ((names[0], {}), (names[1], {"m_alpha": 0.0}), (names[1], {}))
    )
    for agent in (soft, munchausen, with_bonus):
        take_steps(agent, 3)
    assert same(soft, munchausen) and not same(soft, with_bonus)
    assert groups_of(soft).keys() == groups_of(with_bonus).keys()
