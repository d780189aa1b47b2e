"""Heads by hand, P_B against brute-force counts of histories, disjoint groups, log Z's parts and frozen targets."""

import math

import bitseq_exact as exact
import pytest
import torch
from each import each, each_approach, each_objective

from bitseq import evaluation
from bitseq.common.algorithm import parameters_of, train_step
from bitseq.common.backward_loss import APPROACHES, uniform_deviation
from bitseq.evaluation import all_states
from bitseq.policies.backward import FixedBackward, LearnedBackward
from bitseq.policies.forms import form_of
from bitseq.policies.logits import MASKED

LEARNED = [name for name, row in APPROACHES.items() if row.policy == "learned"]
SIZES = [(8, 2), (8, 4), (8, 8)]


@pytest.fixture(params=SIZES, ids=lambda size: "n={}, k={}".format(*size))
def environment(request, double, strings):
    return strings(*request.param)


@pytest.fixture(params=LEARNED)
def learned(request) -> str:
    return request.param


def test_forward_logits_are_a_position_logit_of_the_begin_token_plus_a_word_logit_of_the_position(
    environment, new_policies
):
    policies, states = new_policies(environment), all_states(environment)
    hidden = policies.trunk(states)
    joint = policies.forward_logits(states, hidden).joint()
    of_position, of_word = policies.forward_head["position"], policies.forward_head["word"]
    with torch.no_grad():
        for row in range(0, len(states), 7):
            positions = of_position.weight @ hidden[row, 0] + of_position.bias
            for position, token in enumerate(states[row].tolist()):
                if token == environment.empty:
                    words = of_word.weight @ hidden[row, 1 + position] + of_word.bias
                    torch.testing.assert_close(joint[row, position], positions[position] + words)
                else:
                    assert (joint[row, position] < MASKED / 2).all()


def test_log_flow_is_one_output_of_the_begin_token(environment, new_policies):
    policies, states = new_policies(environment, has_log_flow=True), all_states(environment)
    hidden, head = policies.trunk(states), policies.log_flow_head
    assert head.weight.shape == (1, 16)
    found = policies.log_flow(hidden)
    expected = [(head.weight[0] @ features[0] + head.bias[0]).item() for features in hidden]
    assert found.tolist() == pytest.approx(expected)
    assert found.std() > 1e-2


def test_learned_backward_policy_is_a_masked_normalised_head_on_the_begin_token(environment, new_policies):
    policies, states = new_policies(environment, scale=5.0), all_states(environment)
    hidden = policies.trunk(states)
    log_pb = policies.backward.log_probs(states)
    assert torch.isfinite(log_pb).all()
    for row, state in enumerate(states.tolist()):
        filled = [position for position, token in enumerate(state) if token != environment.empty]
        if not filled:
            continue  # s_0 has no backward action: anything finite will do
        outputs = (policies.backward.head.weight @ hidden[row, 0] + policies.backward.head.bias).tolist()
        total = sum(math.exp(outputs[position]) for position in filled)
        expected = [math.exp(outputs[p]) / total if p in filled else 0.0 for p in range(environment.length)]
        assert log_pb[row].exp().tolist() == pytest.approx(expected, abs=1e-12)
    if environment.length > 1:
        assert uniform_deviation(log_pb, environment.backward_mask(states)) > 0.1


def test_learned_backward_policy_reads_the_features_it_is_given(environment, new_policies):
    policies, states = new_policies(environment), all_states(environment)
    expected, features = policies.backward.log_probs(states), policies.trunk(states)
    torch.testing.assert_close(policies.backward.log_probs(states, features), expected)
    torch.testing.assert_close(policies.backward.log_probs(states, features[:, :1]), expected)
    if environment.length > 1:
        moved = policies.backward.log_probs(states, torch.randn(features.shape))
        assert (moved - expected)[1:].abs().max() > 1e-2


@each("coefficient", [1.0, 1.7])
@each("filled", [0, 1, 3])
def test_log_probs_of_some_actions_are_those_of_the_logits(strings, new_policies, filled, coefficient):
    environment = strings(8, 2)
    policies = new_policies(environment, scale=5.0, n_layers=2).eval()
    states = all_states(environment)
    states = states[environment.backward_mask(states).sum(1) == filled]
    row, action = environment.forward_mask(states).repeat_interleave(4, 1).nonzero().T  # every legal one
    order = torch.randperm(len(row), generator=torch.Generator().manual_seed(1))
    row, action = row[order], action[order]
    found, begin = policies.log_probs_of(states, row, action, coefficient)
    hidden = policies.trunk(states)
    logits = policies.forward_logits(states[row], hidden[row]).over(coefficient)
    expected = logits.log_prob(action)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(begin, hidden[:, :1], rtol=1e-4, atol=1e-5)
    assert torch.zeros(len(states)).index_add(0, row, found.exp()).tolist() == pytest.approx(
        [1.0] * len(states), abs=1e-4
    )


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
def test_every_network_of_a_run_is_computed_in_the_form_asked_for(new_agent, kernels):
    agent = new_agent("db", "tlm", kernels=kernels)
    policies = agent.policies
    for trunk in (policies.trunk, policies.backward.trunk, policies.backward_target.trunk, agent.target.policies.trunk):
        assert trunk.form == form_of(kernels)
    assert form_of("torch") != form_of("compiled")


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
def test_backward_policy_asks_for_the_begin_token_alone_and_is_that_of_the_full_features(
    strings, new_policies, kernels
):
    environment = strings(8, 2)
    policies, states = new_policies(environment, scale=5.0, n_layers=2, kernels=kernels), all_states(environment)
    encode, asked = policies.trunk.form.encode, []

    def recorded(layers, tokens, probability, n_read):
        asked.append(n_read)
        return encode(layers, tokens, probability, n_read)

    policies.trunk.form = policies.trunk.form._replace(encode=recorded)
    found, expected = policies.backward.log_probs(states), policies.backward.log_probs(states, policies.trunk(states))
    assert asked == [1, 5]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    mask, parameters = environment.backward_mask(states), list(policies.backward.parameters())
    assert uniform_deviation(found, mask) > 0.1
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).masked_fill(~mask, 0.0)
    gradients, others = (torch.autograd.grad((log_pb * weights).sum(), parameters) for log_pb in (found, expected))
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


def test_backward_policy_has_finite_gradients_at_every_state(strings, new_policies):
    environment = strings(8, 2)
    policies, states = new_policies(environment), all_states(environment)
    log_pb = policies.backward.log_probs(states)
    log_pb.masked_fill(~environment.backward_mask(states), 0.0).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in policies.backward.parameters())


def test_uniform_initialisation_starts_at_uniform_and_elsewhere_without_it(new_agent, learned):
    for uniform_initialisation in (True, False):
        policies = new_agent("tb", learned, uniform_initialisation=uniform_initialisation).policies.eval()
        states = all_states(new_agent("tb", "uniform").environment)
        deviation = uniform_deviation(policies.backward.log_probs(states), states != policies.empty)
        assert deviation < 1e-6 if uniform_initialisation else deviation > 0.05
        assert (policies.backward.head.weight == 0).all() == uniform_initialisation
        assert (policies.backward.head.bias == 0).all() == uniform_initialisation
        assert any((p != 0).any() for p in policies.trunk.parameters())


@each_approach
def test_fixed_backward_policies_are_their_approaches(new_agent, approach):
    policies = new_agent("tb", approach).policies
    assert isinstance(policies.backward, LearnedBackward if approach in LEARNED else FixedBackward)


def histories(environment, batch):
    """(S,) number of different sequences of actions that lead from s_0 to each state."""
    found: dict[tuple, set] = {}
    length = environment.length
    for start in range(0, len(batch.actions), length):
        actions = batch.actions[start : start + length].tolist()
        for t in range(length):
            found.setdefault(tuple(batch.states[start + t].tolist()), set()).add(tuple(actions[:t]))
        end = batch.terminal_states[start // length].tolist()
        found.setdefault(tuple(end), set()).add(tuple(actions))
    return [len(found[tuple(state)]) for state in all_states(environment).tolist()]


def test_maxent_backward_policy_is_the_ratio_of_numbers_of_histories_and_so_uniform(tiny):
    """n(s) = t! of a state with t words, counted over all trajectories; P_B(s|s') = n(s) / n(s')."""
    counts, states = histories(tiny, exact.all_trajectories(tiny)), all_states(tiny)
    assert counts == [math.factorial(sum(token != tiny.empty for token in state)) for state in states.tolist()]
    log_pb = FixedBackward("maxent", tiny.empty).log_probs(states)
    expected = torch.full(log_pb.shape, -torch.inf)
    for parent, count in enumerate(counts):
        for position, _, child in exact.children(tiny, parent):
            expected[child, position] = math.log(count / counts[child])
    torch.testing.assert_close(log_pb, expected)
    torch.testing.assert_close(log_pb, FixedBackward("uniform", tiny.empty).log_probs(states))


@each("policy", ["uniform", "maxent"])
def test_fixed_backward_policy_counts_the_filled_positions(environment, policy):
    states = all_states(environment)
    log_pb = FixedBackward(policy, environment.empty).log_probs(states)
    for row, state in enumerate(states.tolist()):
        filled = [token != environment.empty for token in state]
        expected = [1 / sum(filled) if there else 0.0 for there in filled]
        assert log_pb[row].exp().tolist() == pytest.approx(expected)
        assert [value == -math.inf for value in log_pb[row].tolist()] == [not there for there in filled]


def test_log_z_is_the_sum_of_64_parameters_and_moves_by_64_learning_rates_in_the_first_step(new_agent):
    agent = new_agent("tb", "uniform")
    parts = agent.policies.log_z_parts
    assert parts.shape == (64,) and (parts == 0).all()
    train_step(agent)
    assert abs(agent.policies.log_z.item()) == pytest.approx(0.064, rel=1e-4)
    with torch.no_grad():
        parts.copy_(torch.arange(64.0))
    assert agent.policies.log_z.item() == 63 * 64 / 2
    faster = new_agent("tb", "uniform", log_z_learning_rate=0.01)
    train_step(faster)
    assert abs(faster.policies.log_z.item()) == pytest.approx(0.64, rel=1e-4)


@each_objective
@each_approach
def test_groups_are_disjoint_complete_and_named(new_agent, objective, approach):
    policies = new_agent(objective, approach).policies
    groups = policies.groups()
    expected = {"trunk", "forward_head"}
    expected |= {"log_z"} if objective == "tb" else set()
    expected |= {"log_flow"} if objective in ("db", "subtb") else set()
    expected |= {"backward_head"} if approach in LEARNED else set()
    assert set(groups) == expected
    members = [id(parameter) for group in groups.values() for parameter in group]
    assert all(groups.values()) and len(set(members)) == len(members)
    trainable = {id(p) for p in policies.parameters() if p.requires_grad}
    assert set(members) == trainable
    # What is not in a group is the target of P_B, a trunk and a head, and takes no gradient.
    frozen = {id(p) for p in policies.parameters()} - trainable
    target = policies.backward_target.parameters() if policies.backward_target is not None else ()
    assert frozen == {id(p) for p in target}


def test_parameters_of_takes_the_groups_that_exist_in_the_order_of_the_names(new_agent):
    groups = new_agent("tb", "tlm").policies.groups()
    found = parameters_of(groups, ["log_z", "log_flow", "backward_head"])
    expected = [*groups["log_z"], *groups["backward_head"]]
    assert [id(p) for p in found] == [id(p) for p in expected]


@each_objective
@each_approach
def test_a_backward_target_exists_for_tlm_alone(new_agent, objective, approach):
    target = new_agent(objective, approach).policies.backward_target
    assert (target is not None) == (approach == "tlm")


def test_backward_target_starts_as_a_frozen_copy_in_eval_mode(new_agent):
    policies = new_agent("tb", "tlm", uniform_initialisation=False).policies
    target = policies.backward_target
    online = dict(policies.backward.named_parameters())
    assert online.keys() == dict(target.named_parameters()).keys()
    for name, parameter in target.named_parameters():
        assert torch.equal(parameter, online[name])
        assert parameter.data_ptr() != online[name].data_ptr() and not parameter.requires_grad
    for mode in (True, False, True):
        assert policies.train(mode) is policies
        assert all(module.training == mode for module in policies.trunk.modules())
        assert not any(module.training for module in target.modules())
    with evaluation.evaluation_mode(policies):
        assert not policies.training
    assert policies.training and not any(module.training for module in target.modules())
    states = all_states(new_agent("tb", "tlm").environment)
    assert torch.equal(target.log_probs(states), target.log_probs(states))  # no dropout although the trunk has it
    assert not torch.equal(policies.backward.log_probs(states), policies.backward.log_probs(states))


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_backward_target_moves_by_the_weight_of_the_new_parameters(new_agent, decay):
    policies = new_agent("tb", "tlm", uniform_initialisation=False).policies
    before = [p.clone() for p in policies.backward_target.parameters()]
    with torch.no_grad():
        for parameter in policies.backward.parameters():
            parameter += torch.randn(parameter.shape)
    online = [p.detach().clone() for p in policies.backward.parameters()]
    policies.update_backward_target(decay)
    moved = zip(policies.backward_target.parameters(), before, online, policies.backward.parameters(), strict=True)
    for target, old, new, now in moved:
        torch.testing.assert_close(target, decay * old + (1 - decay) * new)
        assert torch.equal(new, now)


def test_same_seed_same_weights_and_torchs_random_state_plays_no_part(new_agent):
    first = new_agent("tb", "naive", seed=3).policies.state_dict()
    torch.manual_seed(99)
    again, other = (new_agent("tb", "naive", seed=seed).policies.state_dict() for seed in (3, 4))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["trunk.embedding.weight"], other["trunk.embedding.weight"])
