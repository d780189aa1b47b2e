"""Heads by hand, masks by brute force, P_B normalised and uniform at first, disjoint groups and frozen copies."""

import math

import pytest
import torch
from each import each, each_algo, each_approach

from mols.common.algorithm import parameters_of
from mols.common.backward_loss import APPROACHES, uniform_deviation, uniform_log_pb
from mols.environments.base import concatenate, rows_of
from mols.environments.fragments import Trees
from mols.policies.model import frozen_copy, move_towards, thermometer

LEARNED = [name for name, row in APPROACHES.items() if row.policy != "uniform"]


@pytest.fixture(scope="module")
def some_rows(with_holes):
    """s_0, the single fragments, and every 23rd of the states, those with holes too."""
    return [*range(10), *range(10, len(with_holes.plain), 23)]


@pytest.fixture
def some(with_holes, some_rows, double):
    return rows_of(with_holes.trees, torch.tensor(some_rows))


def by_hand(head, *features):
    """A hidden layer with leaky ReLU, and its outputs."""
    hidden = head[0].weight @ torch.cat(features) + head[0].bias
    return head[2].weight @ torch.where(hidden > 0, hidden, 0.01 * hidden) + head[2].bias


def test_forward_logits_are_the_heads_where_the_moves_are_legal_and_nowhere_else(
    small, with_holes, some, some_rows, new_policies, plain_moves
):
    policies = new_policies(small)
    features = policies.features(some)
    logits = policies.forward_logits(some, features)
    assert logits.shape == (len(some_rows), small.n_actions)
    head = policies.forward_head
    for number, row in enumerate(some_rows):
        node, graph = features.node[number], features.graph[number]
        legal = [action for action, *_ in plain_moves.forward(small, with_holes.plain[row])]
        legal += [0] if with_holes.finished[row] else []
        assert logits[number].isfinite().nonzero().flatten().tolist() == sorted(legal)
        for action in legal:
            if action == 0:
                expected = by_hand(head["stop"], graph)[0]
            elif action < small.first_set:
                slot, fragment = divmod(action - 1, small.n_fragments)
                expected = by_hand(head["add"], node[slot])[fragment]
            else:
                end, point = divmod(action - small.first_set, small.n_points)
                expected = by_hand(head["set"], node[end // small.n_slots], node[end % small.n_slots])[point]
            torch.testing.assert_close(logits[number, action], expected)
    torch.testing.assert_close(logits.log_softmax(-1).logsumexp(-1), torch.zeros(len(some_rows)))


def test_backward_log_probs_are_the_softmax_of_the_heads_over_the_legal_moves(
    small, with_holes, some, some_rows, new_policies, plain_moves
):
    policies = new_policies(small, scale=3.0)
    features = policies.features(some)
    log_pb = policies.backward_log_probs(some, features)
    assert torch.equal(log_pb, policies.backward_log_probs(some))  # the features it would compute itself
    assert log_pb.shape == (len(some_rows), small.n_backward_actions)
    assert with_holes.plain[0] == (((3,) * 3), ((0,) * 3,) * 3) and (log_pb[0] == -torch.inf).all()  # s_0
    for number, row in enumerate(some_rows[1:], start=1):
        node, outputs = features.node[number], {}
        for action, _ in plain_moves.backward(small, with_holes.plain[row]):
            here, there = divmod(action - small.n_slots, small.n_slots)
            remove = action < small.n_slots
            head = policies.backward_head["remove" if remove else "unset"]
            outputs[action] = by_hand(head, *([node[action]] if remove else [node[here], node[there]])).exp().item()
        assert log_pb[number].isfinite().nonzero().flatten().tolist() == sorted(outputs)
        expected = [outputs.get(action, 0.0) / sum(outputs.values()) for action in range(small.n_backward_actions)]
        assert log_pb[number].exp().tolist() == pytest.approx(expected, abs=1e-12)
    assert uniform_deviation(log_pb, small.backward_mask(some)) > 0.05


def test_logits_and_probabilities_of_full_size(full, wandered, new_policies):
    states, policies = wandered(full, 40, 39), new_policies(full)
    features = policies.features(states)
    logits, log_pb = policies.forward_logits(states, features), policies.backward_log_probs(states, features)
    assert torch.equal(logits > -torch.inf, full.legal_actions(states))
    legal, initial = full.backward_mask(states), full.is_empty(states)
    assert torch.equal(log_pb > -torch.inf, legal) and initial.any()
    torch.testing.assert_close(log_pb.exp().sum(1), (~initial).float())


def test_features_of_other_states_change_the_policies(small, some, new_policies):
    """What is given is what is read."""
    policies = new_policies(small)
    features = policies.features(some)
    other = type(features)(*(torch.randn(f.shape, generator=torch.Generator().manual_seed(1)) for f in features))
    legal = small.backward_mask(some)
    several = legal.sum(1) > 1
    moved = policies.backward_log_probs(some, other) - policies.backward_log_probs(some, features)
    assert (moved[several][legal[several]].abs() > 1e-8).all()
    assert not torch.equal(policies.forward_logits(some, other), policies.forward_logits(some, features))


def test_policies_follow_the_names_of_the_slots(full, wandered, new_policies, double):
    """The probability of an action goes with its slots: also where there are holes."""
    states, policies, n_slots = wandered(full, 40, 39), new_policies(full), full.n_slots
    states = rows_of(states, ~full.is_empty(states))
    new = torch.randperm(n_slots, generator=torch.Generator().manual_seed(5))
    renamed = Trees(states.fragment[:, new], states.attachment[:, new][:, :, new])

    def parts(some):
        features = policies.features(some)
        logits, log_pb = policies.forward_logits(some, features), policies.backward_log_probs(some, features)
        adds, sets = logits[:, 1 : full.first_set], logits[:, full.first_set :]
        by_slot = adds.unflatten(1, (n_slots, -1)), log_pb[:, :n_slots]
        by_end = sets.unflatten(1, (n_slots, n_slots, -1)), log_pb[:, n_slots:].unflatten(1, (n_slots, n_slots))
        return logits[:, 0], by_slot, by_end, policies.log_flow(features)

    (stop, by_slot, by_end, log_flow), found = parts(states), parts(renamed)
    torch.testing.assert_close(found[0], stop)
    torch.testing.assert_close(found[1], tuple(part[:, new] for part in by_slot))
    torch.testing.assert_close(found[2], tuple(part[:, new][:, :, new] for part in by_end))
    torch.testing.assert_close(found[3], log_flow)


def test_log_flow_and_log_n_are_outputs_of_the_graph_and_log_n_is_0_at_the_empty_tree(small, some, new_policies):
    policies = new_policies(small, approach="maxent")
    features = policies.features(some)
    log_flow, log_n = policies.log_flow(features), policies.log_n(some, features)
    assert log_flow.tolist() == pytest.approx([by_hand(policies.log_flow_head, g).item() for g in features.graph])
    expected = [0.0] + [by_hand(policies.log_n_head, g).item() for g in features.graph[1:]]
    assert small.is_empty(some).tolist() == [True] + [False] * (len(expected) - 1)
    assert log_n.tolist() == pytest.approx(expected) and log_flow[0] != 0


def test_uniform_backward_policy_is_one_over_the_number_of_legal_moves(
    small, with_holes, some, some_rows, new_policies, plain_moves
):
    log_pb = new_policies(small, approach="uniform").backward_log_probs(some)
    for number, row in enumerate(some_rows):
        legal = [action for action, _ in plain_moves.backward(small, with_holes.plain[row])]
        expected = [-math.log(len(legal)) if action in legal else -math.inf for action in range(12)]
        assert log_pb[number].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("approach", LEARNED)
def test_a_learned_backward_policy_starts_at_uniform_and_elsewhere_with_rand_pb_init(new_agent, some, approach):
    for rand_pb_init in (False, True):
        agent = new_agent("db", approach, rand_pb_init=rand_pb_init)
        legal = agent.environment.backward_mask(some)
        for policies in (agent.policies, agent.average):
            log_pb = policies.backward_log_probs(some)
            if rand_pb_init:
                assert uniform_deviation(log_pb, legal) > 0.02
            else:
                assert torch.equal(log_pb[legal], uniform_log_pb(legal)[legal])
            for head in policies.backward_head.values():
                assert (head[2].weight == 0).all() == (head[2].bias == 0).all() == (not rand_pb_init)
                assert (head[0].weight != 0).all()


def test_no_gradient_is_nan_at_the_empty_tree(small, some, new_policies):
    """Of a batch with s_0, and of s_0 alone, whose row of P_B is empty: nowhere on the way back through the heads."""
    policies = new_policies(small, approach="maxent")
    for states in (some, concatenate([small.initial_states(1)] * 2), rows_of(some, torch.tensor([0, 1]))):
        policies.zero_grad()
        features = policies.features(states)
        log_pb, logits = policies.backward_log_probs(states, features), policies.forward_logits(states, features)
        value = log_pb[log_pb > -torch.inf].sum() + policies.log_n(states, features).sum()
        value = value + logits.log_softmax(-1)[logits > -torch.inf].sum() + policies.log_flow(features).sum()
        assert torch.isfinite(value)
        with torch.autograd.set_detect_anomaly(True):
            value.backward()
        gradients = [p.grad for p in policies.parameters() if p.grad is not None]
        assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


@each_algo
@each_approach
def test_groups_are_disjoint_complete_and_named(new_agent, algo, approach):
    policies = new_agent(algo, approach).policies
    groups = policies.groups()
    expected = {"trunk", "forward_head", "log_z" if algo == "tb" else "log_flow"}
    expected |= {"backward_head"} if approach in LEARNED else set()
    expected |= {"log_n"} if approach == "maxent" else set()
    assert set(groups) == expected
    members = [id(parameter) for group in groups.values() for parameter in group]
    assert all(groups.values()) and len(set(members)) == len(members)
    assert (
        set(members) == {id(p) for p in policies.parameters() if p.requires_grad} == set(map(id, policies.parameters()))
    )


def test_parameters_of_takes_the_groups_that_exist_in_the_order_of_the_names(new_agent):
    groups = new_agent("tb", "tlm").policies.groups()
    found = parameters_of(groups, ["log_z", "log_flow", "backward_head"])
    assert [id(p) for p in found] == [id(p) for p in [*groups["log_z"], *groups["backward_head"]]]


def test_frozen_copy_has_the_values_takes_no_gradient_and_shares_only_the_environment(small, some, new_policies):
    policies = new_policies(small, has_log_z=True)
    copy = frozen_copy(policies)
    assert copy.environment is policies.environment
    online = dict(policies.named_parameters())
    assert online.keys() == dict(copy.named_parameters()).keys()
    for name, parameter in copy.named_parameters():
        assert torch.equal(parameter, online[name]) and parameter.data_ptr() != online[name].data_ptr()
        assert not parameter.requires_grad and online[name].requires_grad
    with torch.no_grad():
        for parameter in policies.parameters():
            parameter += 1.0
    assert not torch.equal(copy.backward_log_probs(some), policies.backward_log_probs(some))
    assert not any(module.training for module in copy.modules())


def test_a_frozen_copy_lacks_the_heads_that_it_is_to_lack_and_follows_in_the_others(small, new_policies):
    policies = new_policies(small, approach="maxent")
    copy = frozen_copy(policies, without=("backward_head", "log_n_head"))
    assert copy.groups().keys() == {"trunk", "forward_head", "log_flow"}
    assert policies.groups().keys() == {"trunk", "forward_head", "log_flow", "backward_head", "log_n"}
    with torch.no_grad():
        for parameter in policies.parameters():
            parameter += 1.0
    move_towards(copy, policies, 0.75)
    for name, group in copy.groups().items():
        for parameter, online in zip(group, policies.groups()[name], strict=True):
            torch.testing.assert_close(parameter, online - 0.75)


@pytest.mark.parametrize("decay", [0.0, 0.95])
def test_move_towards_keeps_the_decays_share_of_the_old_parameters(small, new_policies, decay):
    online, target = new_policies(small, seed=1), frozen_copy(new_policies(small, seed=2))
    before, now = ([p.detach().clone() for p in policies.parameters()] for policies in (target, online))
    move_towards(target, online, decay)
    for moved, old, new, still in zip(target.parameters(), before, now, online.parameters(), strict=True):
        torch.testing.assert_close(moved, decay * old + (1 - decay) * new)
        assert torch.equal(new, still)


@each("temperature", [0.0, 0.25, 1.0, 10.0, 10.75, 31.5, 32.0, 64.0])
def test_thermometer_is_that_many_ones_and_a_fraction(temperature):
    numbers = thermometer(temperature)
    assert numbers.tolist() == [min(max(temperature - step, 0.0), 1.0) for step in range(32)]
    assert numbers.sum() == min(temperature, 32.0)


def test_log_z_is_a_network_of_the_conditions(small, new_policies):
    policies, other = (new_policies(small, has_log_z=True, temperature=t) for t in (10.0, 9.0))
    values = thermometer(10.0)
    for layer in policies.log_z_network[::2]:
        values = layer.weight @ values + layer.bias
        values = torch.where(values > 0, values, 0.01 * values) if layer is not policies.log_z_network[-1] else values
    assert policies.log_z.shape == () and policies.log_z.item() == pytest.approx(values.item(), rel=1e-5)
    assert len(policies.log_z_network[::2]) == 3 and other.log_z != policies.log_z


def test_same_seed_same_weights_and_torchs_random_state_plays_no_part(new_agent):
    first = new_agent("tb", "naive", seed=3).policies.state_dict()
    torch.manual_seed(99)
    again, other = (new_agent("tb", "naive", seed=seed).policies.state_dict() for seed in (3, 4))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["trunk.special_edges"], other["trunk.special_edges"])
