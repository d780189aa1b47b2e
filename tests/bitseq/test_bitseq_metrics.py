"""What an agent measures: each metric by hand, when it is due, and that measuring leaves training alone."""

import copy
import json
import math
import shlex

import numpy as np
import pytest
import torch
from each import each, each_objective

from bitseq import evaluation, reference
from bitseq.agents import base as learning
from bitseq.agents.table import COLUMNS
from bitseq.common.algorithm import train_step
from bitseq.policies.backward import FixedBackward
from bitseq.run import main

ALWAYS = {"pb_deviation", "log_z", "log_z_error", "modes_found", "modes_current"}
ALWAYS |= {"mean_reward", "mean_log_reward", "mean_log_reward_perfect"}
EXACT = {"exact_total_variation", "exact_kl"}
CORRELATIONS = {"reward_correlation", "reward_correlation_uniform"}


def tilted(new_agent, objective, approach, **options):
    """An agent whose learned P_B is away from uniform, with a batch sampled."""
    agent = new_agent(objective, approach, uniform_initialisation=False, **options)
    if approach not in ("uniform", "maxent"):
        with torch.no_grad():
            agent.policies.backward.head.bias.add_(torch.linspace(1.5, -1.5, agent.environment.length))
    return agent, agent.sample()


# The deviation of P_B from uniform


@pytest.mark.parametrize("approach", ["naive", "tlm", "pessimistic"])
def test_pb_deviation_is_the_mean_over_legal_actions_of_every_state_that_has_one(new_agent, approach):
    """Of the online P_B without dropout; one entry per backward action, initial states left out."""
    agent, batch = tilted(new_agent, "db", approach, dropout=0.5, corr_every=0, exact_every=0)
    if approach == "tlm":
        with torch.no_grad():
            agent.policies.backward_target.head.bias.mul_(-3)
    found = agent.evaluate(1)["pb_deviation"]
    differences, n_initial = [], 0
    agent.policies.eval()
    for state in batch.visited:
        filled = [d for d, word in enumerate(state.tolist()) if word != agent.environment.empty]
        n_initial += not filled
        if filled:
            logits = agent.policies.backward.head(agent.policies.trunk(state[None])[0, 0])
            log_pb = (logits - logits[filled].logsumexp(0)).tolist()
            differences += [abs(log_pb[d] + math.log(len(filled))) for d in filled]
    assert n_initial == 16 and len(differences) == 16 * (1 + 2 + 3 + 4)
    assert found == pytest.approx(np.mean(differences), rel=1e-5)
    assert found > 0.1


@each("approach", ["uniform", "maxent"])
@each("options", [{}, {"n": 24}, {"n": 120, "k": 8, "M_size": 60}])
def test_pb_deviation_of_the_fixed_backward_policies_is_exactly_zero(new_agent, approach, options):
    agent = new_agent("db", approach, corr_every=0, exact_every=0, **options)
    train_step(agent)
    assert agent.evaluate(1)["pb_deviation"] == 0.0


# What the model says that log Z is


@each_objective
def test_log_z_is_that_of_tb_the_flow_of_s_0_and_its_soft_value(new_agent, objective):
    """Of the online network without dropout."""
    agent = new_agent(objective, "uniform", dropout=0.5, corr_every=0, exact_every=0)
    for _ in range(2):
        train_step(agent)
    metrics = agent.evaluate(2)
    found = metrics["log_z"]
    policies, coefficient = agent.policies.eval(), {"munchausen_dqn": 1 / 0.85}.get(objective, 1.0)
    hidden = policies.trunk(torch.full((1, 4), agent.environment.empty))[0]
    if objective == "tb":
        expected = sum(policies.log_z_parts.tolist())
    elif objective in ("db", "subtb"):
        expected = policies.log_flow_head(hidden[0]).item()
    else:
        words = policies.forward_head["word"](hidden[1:])
        q_values = policies.forward_head["position"](hidden[0])[:, None] + words
        expected = coefficient * math.log((q_values / coefficient).exp().sum().item())
    assert found == pytest.approx(expected, rel=1e-5) and found != 0
    log_z, mean_log_reward = reference.perfect(agent.environment)
    assert metrics["log_z_error"] == pytest.approx(abs(found - log_z))
    assert metrics["mean_log_reward_perfect"] == mean_log_reward


# What is measured, and when


def expected_metrics(step, previous, *, corr_every, exact_every, n_steps):
    """Names of the metrics due: those with a multiple of their interval since the last row, and at the end all."""

    def due(every):
        return every > 0 and (step == n_steps or any(s % every == 0 for s in range(previous + 1, step + 1)))

    names = set(ALWAYS)
    if due(corr_every):
        names |= CORRELATIONS if step == n_steps else {"reward_correlation"}
    return names | (EXACT if due(exact_every) else set())


# (validate_every, corr_every, exact_every, n_steps)
SCHEDULES = [(1, 1, 1, 4), (1, 3, 2, 7), (2, 3, 5, 15), (4, 6, 2, 18), (3, 0, 4, 10), (3, 4, 0, 10), (2, 0, 0, 5)]


@each("validate_every,corr_every,exact_every,n_steps", [*SCHEDULES, (9, 4, 7, 5)])
def test_metrics_are_due_at_the_first_row_after_their_interval(
    new_agent, monkeypatch, validate_every, corr_every, exact_every, n_steps
):
    """0 is never, not even at the last step, which gets everything else whatever the interval."""
    intervals = {"corr_every": corr_every, "exact_every": exact_every}
    agent = new_agent("db", "tlm", validate_every=validate_every, num_iterations=n_steps, batch_size=1, **intervals)
    monkeypatch.setattr(agent, "reward_correlation", lambda backward: 0.5)
    monkeypatch.setattr(evaluation, "exact_distribution", lambda *_: evaluation.true_distribution(agent.environment)[1])
    previous = 0
    for step in (s for s in range(1, n_steps + 1) if s % validate_every == 0 or s == n_steps):
        agent.sample()
        metrics = agent.evaluate(step)
        assert set(metrics) == expected_metrics(step, previous, n_steps=n_steps, **intervals), step
        assert set(metrics) <= {*COLUMNS, "pb_deviation"}
        previous = step


def test_exact_distances_need_a_size_that_enumerates(new_agent):
    for options, possible in (({}, True), ({"n": 24, "k": 8}, False)):
        agent = new_agent("db", "uniform", num_iterations=1, corr_every=0, **options)
        agent.sample()
        assert (set(agent.evaluate(1)) >= EXACT) == possible
        assert agent.exact_is_possible == possible


@pytest.mark.parametrize("approach", ["uniform", "maxent", "tlm"])
def test_the_correlation_by_uniform_trajectories_comes_with_the_last_step(new_agent, monkeypatch, approach):
    """Drawn from the uniform P_B, beside the run's own; once where the two are the same."""
    agent, _ = tilted(new_agent, "db", approach, num_iterations=1, exact_every=0)
    seen, measure = [], agent.reward_correlation
    monkeypatch.setattr(agent, "reward_correlation", lambda backward: seen.append(backward) or measure(backward))
    metrics = agent.evaluate(1)
    assert seen[0] is agent.target.policies.backward
    if approach == "tlm":
        assert len(seen) == 2 and isinstance(seen[1], FixedBackward)
        filled = torch.tensor([[0, 1, 4, 4]])
        assert seen[1].log_probs(filled)[0, :2].tolist() == pytest.approx([-math.log(2)] * 2)
        assert metrics["reward_correlation"] != metrics["reward_correlation_uniform"]
    else:
        assert len(seen) == 1
        assert metrics["reward_correlation"] == metrics["reward_correlation_uniform"]


@pytest.mark.parametrize(("objective", "coefficient"), [("db", 1.0), ("soft_dqn", 1.0), ("munchausen_dqn", 1 / 0.85)])
def test_the_policy_that_is_scored_is_the_policy_that_samples(new_agent, monkeypatch, objective, coefficient):
    """One entropy coefficient reaches sampling, the correlation and the exact distances."""
    seen = []

    def recorded(module, name):
        function = getattr(module, name)

        def record(*arguments, **options):
            seen.append((name, options.get("coefficient", arguments[-1])))
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, record)

    recorded(learning, "sample_trajectories")
    recorded(evaluation, "estimated_log_prob")
    recorded(evaluation, "exact_distribution")
    agent = new_agent(objective, "tlm", num_iterations=1)
    train_step(agent)
    agent.evaluate(1)
    names = ["sample_trajectories", "estimated_log_prob", "estimated_log_prob", "exact_distribution"]
    assert [name for name, _ in seen] == names
    assert [value for _, value in seen] == pytest.approx([coefficient] * 4)


@each("objective", ["tb", "munchausen_dqn"])
@each("network", [None, "target", "online"])
def test_the_correlation_is_that_of_the_estimates_with_the_log_reward(new_agent, objective, network):
    """Of the whole network that is named, the target by default, with its coefficient, rounds and evaluation stream."""
    options = {"correlation_network": network} if network else {}
    options |= {"m_alpha": 0.6} if objective == "munchausen_dqn" else {}
    agent, _ = tilted(new_agent, objective, "tlm", num_iterations=1, corr_num_rounds=3, **options)
    networks = {"target": agent.target.policies, "online": agent.policies}
    with torch.no_grad():
        for factor, policies in zip((5, -3), networks.values(), strict=True):
            for parameter in policies.forward_head.parameters():
                parameter *= factor
            policies.backward.head.bias.mul_(factor)
    strings = agent.environment.test_states

    def correlation(policies, backward, coefficient):
        stream = copy.deepcopy(agent.streams.evaluation)
        options = {"rounds": 3, "coefficient": coefficient}
        estimates = evaluation.estimated_log_prob(strings, policies, backward, agent.environment, stream, **options)
        return evaluation.spearman(estimates, agent.environment.log_reward(strings))

    coefficient, chosen = agent.coefficient, networks[network or "target"]
    (other,) = (policies for policies in networks.values() if policies is not chosen)
    expected = correlation(chosen, chosen.backward, coefficient)
    wrong = [(chosen, chosen.backward, 2 * coefficient), (other, other.backward, coefficient)]
    assert expected not in [correlation(*arguments) for arguments in wrong]
    assert agent.evaluate(1)["reward_correlation"] == expected


@pytest.mark.parametrize("network", ["target", "online"])
def test_the_other_metrics_are_the_online_networks(new_agent, network):
    """Whichever network is correlated."""
    agent, _ = tilted(new_agent, "db", "naive", num_iterations=1, correlation_network=network)
    for parameter in agent.target.policies.parameters():
        parameter.mul_(-2)
    found = agent.evaluate(1)
    learned = evaluation.exact_distribution(agent.policies, agent.environment)
    exact = evaluation.exact_distances(learned, evaluation.true_distribution(agent.environment)[1])
    assert {name: found[name] for name in EXACT} == exact


# Evaluation and training


def weights(agent):
    """Every tensor that training moves, the targets' included."""
    modules = [agent.policies, agent.target.policies]
    return [value.clone() for module in modules for value in module.state_dict().values()]


def modes_of(agent):
    return [module.training for module in agent.policies.modules()]


@pytest.mark.parametrize("objective", ["tb", "munchausen_dqn"])
@pytest.mark.parametrize("approach", ["tlm", "pessimistic"])
def test_evaluation_leaves_no_trace(new_agent, objective, approach):
    """Evaluated in full at every step, every third or never, dropout on: bitwise the same training."""
    options = {"validate_every": 1, "corr_every": 1, "exact_every": 1, "corr_num_rounds": 2, "dropout": 0.3}
    agents = []
    for every in (1, 3, None):
        agent = new_agent(objective, approach, **options)  # also seeds torch's generator, which dropout reads
        for step in range(1, 7):
            train_step(agent)
            before = weights(agent), modes_of(agent), torch.get_rng_state()
            if every and step % every == 0:
                assert {"reward_correlation", *EXACT} <= agent.evaluate(step).keys()
            assert all(map(torch.equal, weights(agent), before[0]))
            assert modes_of(agent) == before[1] and agent.policies.training
            assert torch.equal(torch.get_rng_state(), before[2])
        agents.append(agent)
    for agent in agents[:2]:
        assert all(map(torch.equal, weights(agent), weights(agents[2])))
        for name in ("sampling", "replay"):
            mine, alone = (getattr(some.streams, name).bit_generator.state for some in (agent, agents[2]))
            assert mine == alone
        assert torch.equal(agent._last_states, agents[2]._last_states)


def test_evaluation_has_no_dropout(new_agent):
    """With the same evaluation stream twice the same, and the same as without dropout in the configuration."""
    found = []
    for dropout in (0.5, 0.0):
        agent, _ = tilted(new_agent, "munchausen_dqn", "tlm", dropout=dropout, num_iterations=1)
        agent._last_states = agent.environment.test_states  # sampled with dropout, they would differ
        stream = agent.streams.evaluation.bit_generator.state
        for _ in range(2):
            agent.sample()
            agent._last_states = agent.environment.test_states
            agent.streams.evaluation.bit_generator.state = stream
            metrics = agent.evaluate(1)
            found.append({name: metrics[name] for name in ("pb_deviation", *CORRELATIONS, *EXACT)})
    assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.parametrize("name", ["estimated_log_prob", "exact_distribution", "spearman"])
def test_an_exception_in_evaluation_is_not_a_correlation_of_zero(new_agent, monkeypatch, name):
    agent, _ = tilted(new_agent, "db", "tlm", num_iterations=1)
    monkeypatch.setattr(evaluation, name, fail)
    with pytest.raises(RuntimeError, match="out of order"):
        agent.evaluate(1)
    assert agent.policies.training and torch.is_grad_enabled()


def fail(*_, **__):
    raise RuntimeError("out of order")


@pytest.mark.parametrize(("module", "name"), [(evaluation, "estimated_log_prob"), (learning, "sample_trajectories")])
def test_a_failure_ends_the_run_without_calling_it_done(tmp_path, monkeypatch, module, name):
    argv = shlex.split("--n 8 --k 2 --M_size 5 --mode_threshold 1 --width 16 --n_layers 1 --num_iterations 2")
    monkeypatch.setattr(module, name, fail)
    with pytest.raises(RuntimeError, match="out of order"):
        main([*argv, "--device", "cpu", "--output_dir", str(tmp_path)])
    (meta,) = tmp_path.rglob("meta.json")
    assert json.loads(meta.read_text())["status"] == "failed: out of order"
    assert not list(tmp_path.rglob("DONE"))
    assert (meta.parent / "metrics.csv").read_text().count("\n") == 1  # the header alone
