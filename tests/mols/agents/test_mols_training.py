"""What an agent does over many steps: rates, random actions, its copies, evaluation, checkpoints, log n learned."""

import copy

import numpy as np
import pytest
import torch
from each import each, each_algo, each_approach

from mols.agents import base as learning
from mols.common.algorithm import train_step, update_backward, update_forward
from mols.common.backward_loss import uniform_deviation
from mols.evaluation import sorted_modes
from mols.sampling import estimated_log_prob


def rates(learner):
    return [group["lr"] for group in learner.optimizer.param_groups]


# Learning rates


@each(
    "options,forward,backward", [({}, 5e-4, 5e-5), ({"lr": 0.02}, 0.02, 0.002), ({"lr": 0.01, "blr": 0.03}, 0.01, 0.03)]
)
@each("approach", ["maxent", "tlm", "pessimistic"])
def test_each_policy_moves_at_its_own_learning_rate(new_agent, approach, options, forward, backward):
    """Adam's first step is as long as the learning rate; P_B's is a tenth of P_F's by default."""
    agent = new_agent("db", approach, **options)
    batch, moves = agent.sample(), []
    for update, group in ((update_backward, "backward_head"), (update_forward, "forward_head")):
        before = [p.detach().clone() for p in agent.policies.groups()[group]]
        update(agent, batch)
        pairs = zip(agent.policies.groups()[group], before, strict=True)
        moves.append(max((after - start).abs().max().item() for after, start in pairs))
    assert moves == [pytest.approx(backward, rel=2e-2), pytest.approx(forward, rel=2e-2)]


@pytest.mark.parametrize("approach", ["maxent", "tlm", "pessimistic"])
def test_learning_rates_halve_and_that_of_the_backward_policy_for_tlm_alone(new_agent, approach):
    options = {"lr": 0.02, "lrd": 2, "blr": 0.01, "blrd": 3, "log_z_lr": 0.05, "log_z_lrd": 6}
    agent = new_agent("tb", approach, **options)
    for step in range(5):
        assert rates(agent.forward_learner) == pytest.approx([0.02 * 0.5 ** (step / 2), 0.05 * 0.5 ** (step / 6)])
        expected = 0.01 * 0.5 ** (step / 3) if approach == "tlm" else 0.01
        assert rates(agent.backward_learner) == pytest.approx([expected])
        train_step(agent)


def test_the_defaults_are_the_papers(new_agent):
    agent = new_agent("tb", "tlm")
    for _ in range(2):
        train_step(agent)
    assert rates(agent.forward_learner) == pytest.approx([5e-4 * 0.5 ** (2 / 20_000), 1e-3 * 0.5 ** (2 / 50_000)])
    assert rates(agent.backward_learner) == pytest.approx([5e-5 * 0.5 ** (2 / 20_000)])
    (forward, _), (backward,) = (x.optimizer.param_groups for x in (agent.forward_learner, agent.backward_learner))
    for group in (forward, backward):
        assert (group["betas"], group["weight_decay"]) == ((0.9, 0.999), 1e-8)


# What samples


@each(
    "options,shares",
    [
        ({}, [0.05, 0.0375, 0.025, 0.0125]),
        ({"rp": 0.4}, [0.4, 0.3, 0.2, 0.1]),
        ({"rp": 0.4, "ap": "none"}, [0.4] * 4),
        ({"rp": 0.4, "ap": "exp"}, [0.4, 0.398996, 0.397995, 0.396996]),  # 0.4 * 0.99^(t / 4)
        ({"rp": 0.4, "ap": "exp", "aexp": 0.0625}, [0.4, 0.2, 0.1, 0.05]),
    ],
)
def test_the_ema_model_samples_with_fewer_and_fewer_random_actions(new_agent, monkeypatch, options, shares):
    agent, sample, seen = new_agent("dqn", "tlm", n=4, **options), learning.sample_trajectories, []

    def recorded(policies, *arguments, **how):
        assert policies is agent.average and how["coefficient"] == agent.coefficient == 1 / 0.85
        seen.append(how["rand_action_prob"])
        return sample(policies, *arguments, **how)

    monkeypatch.setattr(learning, "sample_trajectories", recorded)
    for _ in range(4):
        agent.sample()
    assert seen == pytest.approx(shares, rel=1e-5)


def test_a_batch_has_the_rewards_of_its_ends_and_molecules_are_counted(new_agent):
    agent = new_agent("tb", "tlm", temp=3)
    batch = agent.sample()
    r = agent.task.reward(batch.transitions.terminal_states)
    assert batch.log_reward.tolist() == pytest.approx((3 * r.log()).tolist(), rel=1e-5)
    metrics = agent.molecules.metrics()
    assert metrics["mean_reward"] == pytest.approx(r.mean().item())
    assert agent.task.reward.n_evaluated == len(agent.environment.keys(batch.transitions.terminal_states).unique())


@each("algo", ["soft_dqn", "dqn"])
@each_approach
def test_the_q_target_starts_as_a_copy_of_what_q_needs_and_keeps_its_own_share(new_agent, algo, approach):
    """0.9 by default, whatever the EMA model's is; P_B's update does not move it, P_F's once."""
    for decay, options in ((0.9, {}), (0.25, {"q_target_decay": 0.25})):
        agent = new_agent(algo, approach, rand_pb_init=True, target_decay=0.5, lr=0.01, **options)
        online, target = (dict(policies.named_parameters()) for policies in (agent.policies, agent.q_target))
        assert not any(name.startswith(("backward_head", "log_n")) for name in target)
        assert len(online) - len(target) == sum(name.startswith(("backward_head", "log_n")) for name in online)
        assert all(torch.equal(value, online[name]) and not value.requires_grad for name, value in target.items())
        batch = agent.sample()
        before = {name: value.clone() for name, value in target.items()}
        update_backward(agent, batch)
        assert all(torch.equal(value, before[name]) for name, value in target.items())
        update_forward(agent, batch)
        agent.update_model_target()
        for name, value in target.items():
            torch.testing.assert_close(value, decay * before[name] + (1 - decay) * online[name])
        assert not torch.equal(target["trunk.special_edges"], before["trunk.special_edges"])


# Evaluation


@pytest.fixture
def few_generated(monkeypatch):
    """20 molecules of the model instead of 1,000."""
    monkeypatch.setattr(learning, "N_GENERATED", 20)


def test_metrics_are_those_of_the_last_batch_and_of_the_molecules(new_agent):
    agent = new_agent("db", "naive", rand_pb_init=True, n=3, corr_every=0)
    for step in (1, 2, 3):
        train_step(agent)
        counted = copy.deepcopy(agent.molecules).metrics()
        metrics = agent.evaluate(step)
        states = agent._last_states
        log_pb, legal = agent.policies.backward_log_probs(states), agent.environment.backward_mask(states)
        deviation = uniform_deviation(log_pb, legal)
        assert metrics.pop("pb_deviation") == pytest.approx(deviation.item()) and deviation > 0.01
        assert metrics.pop("rewards_evaluated") == len(agent.task.reward.seen)
        modes = {name: metrics.pop(name) for name in [*metrics] if name.startswith("modes_sorted")}
        assert metrics == counted
        assert len(modes) == (3 if step == 3 else 0)
    candidates = list(agent.molecules.candidates.values())
    expected = {f"modes_sorted_{t:g}": len(sorted_modes(candidates, t)) for t in (0.875, 0.9375, 1.0)}
    assert modes == expected and modes["modes_sorted_0.875"] > 1


@each("validate_every", [1, 3, 4])
@each("corr_every", [0, 1, 4, 5, 100])
def test_correlations_are_due_at_the_first_row_after_so_many_steps_and_at_the_end(
    new_agent, monkeypatch, few_generated, validate_every, corr_every
):
    agent = new_agent("db", "uniform", n=14, corr_every=corr_every, validate_every=validate_every, batch_size=1)
    monkeypatch.setattr(agent, "_correlation", lambda states: 0.5)
    for step in [*range(validate_every, 14, validate_every), 14]:
        agent.sample()
        metrics = agent.evaluate(step)
        reached = [k for k in range(step - validate_every + 1, step + 1) if corr_every and k % corr_every == 0]
        due = bool(reached) or (step == 14 and corr_every > 0)
        assert ("reward_correlation" in metrics) == ("reward_correlation_generated" in metrics) == due


@each("no_sampling_model", [False, True])
@each_algo
def test_the_ema_model_samples_unless_it_is_not_to(new_agent, monkeypatch, algo, no_sampling_model):
    """In training and for the correlations; P_B's target is the EMA model in both cases."""
    agent = new_agent(algo, "tlm", no_sampling_model=no_sampling_model, corr_every=1, corr_rounds=1, lr=0.05)
    train_step(agent)
    seen = []
    for name in ("sample_trajectories", "estimated_log_prob"):
        function = getattr(learning, name)
        monkeypatch.setattr(learning, name, lambda *given, f=function, **how: seen.append(given) or f(*given, **how))
    batch = agent.sample()
    agent.evaluate(1)
    models = {id(each) for given in seen for each in given if each in (agent.policies, agent.average)}
    assert models == {id(agent.policies if no_sampling_model else agent.average)} and len(seen) == 4
    loss = agent.forward_loss(batch).item()
    with torch.no_grad():
        agent.average.backward_head["remove"][2].weight.add_(torch.linspace(-1, 1, 16))
    assert agent.forward_loss(batch).item() != loss


@pytest.mark.parametrize("no_sampling_model", [False, True])
@pytest.mark.parametrize("algo", ["tb", "dqn"])
def test_correlations_are_of_the_model_that_samples_on_the_test_set_and_on_its_own_molecules(
    new_agent, few_generated, algo, no_sampling_model
):
    options = {"corr_every": 1, "corr_rounds": 3, "lr": 0.05, "rp": 0.5, "no_sampling_model": no_sampling_model}
    agent = new_agent(algo, "tlm", **options)
    model = agent.policies if no_sampling_model else agent.average
    for _ in range(3):
        train_step(agent)
    rng = copy.deepcopy(agent.streams.evaluation)
    metrics, environment, how = agent.evaluate(3), agent.environment, {"coefficient": agent.coefficient}
    found = []
    for name in ("reward_correlation", "reward_correlation_generated"):
        states = agent.task.test_states
        if name.endswith("generated"):
            batch = learning.sample_trajectories(model, environment, 20, rng, **how)
            states = batch.terminal_states
        log_prob = estimated_log_prob(states, model, environment, rng, rounds=3, **how)
        expected = np.corrcoef(log_prob.numpy(), agent.task.reward(states).log().numpy())[0, 1]
        assert metrics[name] == pytest.approx(expected, abs=1e-4)
        found.append(expected)
    assert len(agent.task.test_states.fragment) == 31 and abs(found[0] - found[1]) > 1e-3


# Checkpoints


# Maximum entropy


@pytest.mark.slow
def test_maxent_learns_the_number_of_trajectories_of_every_state(new_agent, with_holes):
    """log n against enumeration, 0 exactly at s_0, and P_B = n(s) / n(s') at every legal move."""
    agent = new_agent("db", "maxent", batch_size=64, blr=1e-3, width=32, n_layers=2, rp=1, ap="none")
    for _ in range(600):
        update_backward(agent, agent.sample())
    n = with_holes.reversed_sums(torch.ones(len(with_holes.plain), agent.environment.n_actions))
    with torch.no_grad():
        features = agent.policies.features(with_holes.trees)
        log_n = agent.policies.log_n(with_holes.trees, features)
        log_pb = agent.policies.backward_log_probs(with_holes.trees, features)
    assert log_n[0] == 0.0 and n.max() == 160
    error = (log_n - n.log()).abs()
    edges = [(child, backward, n[parent] / n[child]) for child, backward, parent, _ in with_holes.backward_edges]
    child, backward, expected = (torch.tensor(column) for column in zip(*edges, strict=True))
    difference = (log_pb[child, backward].exp() - expected).abs()
    assert error.max() < 0.15 and difference.max() < 0.03  # seen: 0.08 and 0.011; 5.2 and 0.17 before training
