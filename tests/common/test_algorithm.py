"""A training step: its order, and that nothing of one loss is in the other's step; for the agents of every suite."""

import copy
import importlib
from dataclasses import replace

import pytest
import torch
from each import APPROACHES, each
from every_agent import AGENTS, OWN_LOSS, each_agent, new_agent, value_of
from same import assert_same

from hypergrid.common.algorithm import Learner, train_step, update_backward, update_forward

OPTIONS = {"hypergrid": {}, "bitseq": {"weight_decay": 1e-2}, "mols": {"weight_decay": 1e-2, "gradient_clipping": 0}}


# Algorithm 1


class Recorder:
    """An agent that notes what it is asked to do."""

    batch_size = 1

    def __init__(self, backward_first):
        self.backward_first, self.calls = backward_first, []
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.forward_learner = self.backward_learner = Learner(torch.optim.SGD([self.weight], lr=0.1))

    def parameters(self):
        return [self.weight]

    def sample(self):
        self.calls.append("sample")

    def backward_loss(self, batch):
        self.calls.append("backward_loss")
        return self.weight.square()

    def forward_loss(self, batch):
        self.calls.append("forward_loss")
        return self.weight.square()

    def update_backward_target(self):
        self.calls.append("backward_target")

    def update_model_target(self):
        self.calls.append("model_target")


def test_a_step_is_algorithm_1_and_the_other_order_a_setting():
    agent, other = Recorder(backward_first=True), Recorder(backward_first=False)
    losses = train_step(agent)
    assert agent.calls == ["sample", "backward_loss", "backward_target", "forward_loss", "model_target"]
    assert losses == pytest.approx({"pb_loss": 1.0, "loss": 0.64})  # the second loss sees the first one's step
    train_step(other)
    assert other.calls == ["sample", "forward_loss", "backward_loss", "backward_target", "model_target"]


@each("max_norm, length", [(0.0, 5.0), (0.5, 0.5), (7.0, 5.0)])
def test_gradients_are_clipped_before_the_step(max_norm, length):
    """With learning rate 1 a step of gradient descent is as long as the gradient, clipped or not."""
    parameters = [torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))]
    learner = Learner(torch.optim.SGD(parameters, lr=1.0), max_norm=max_norm)
    loss = 3 * parameters[0].sum() + 4 * parameters[1].sum() + 1
    assert learner.minimise(loss, parameters) == 1.0
    assert torch.cat([p.detach() for p in parameters]).norm().item() == pytest.approx(length)


@each("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_moves_nothing(value):
    parameter = torch.nn.Parameter(torch.ones(2))
    learner = Learner(torch.optim.Adam([parameter]))
    with pytest.raises(FloatingPointError):
        learner.minimise(parameter.sum() * value, [parameter])
    assert torch.equal(parameter.detach(), torch.ones(2))


# No gradient leaks from one loss into the other's step


@each("first", ["backward", "forward"])
@each_agent
def test_the_second_step_is_that_of_its_loss_alone(suite, objective, first):
    """After one update, the other's step is Adam's first step on its own gradient at those weights."""
    decay = OPTIONS[suite].get("weight_decay", 0.0)
    for approach in OWN_LOSS[suite]:
        agent = new_agent(suite, objective, approach, **OPTIONS[suite])
        batch = agent.sample()
        if first == "backward":
            update_backward(agent, batch)
            learner, update, loss = agent.forward_learner, update_forward, agent.forward_loss
        else:
            update_forward(agent, batch)
            learner, update, loss = agent.backward_learner, update_backward, agent.backward_loss
        held = [(p, group["lr"]) for group in learner.optimizer.param_groups for p in group["params"]]
        before = [p.detach().clone() for p, _ in held]
        gradients = torch.autograd.grad(value_of(agent, loss, batch), [p for p, _ in held])
        torch.manual_seed(5)  # the dropout of value_of
        update(agent, batch)
        for (parameter, rate), start, gradient in zip(held, before, gradients, strict=True):
            decayed = gradient + decay * start
            expected = start - rate * decayed / (decayed.abs() + 1e-8)
            torch.testing.assert_close(
                parameter.detach(), expected, atol=1e-6, rtol=1e-5, msg=lambda said, name=approach: f"{name}: {said}"
            )


@each("approach", APPROACHES)
@each_agent
def test_stale_gradients_of_any_parameter_are_cleared(suite, objective, approach):
    """All that a checkpoint holds is the same, the targets, the replayed transitions and the optimisers included."""
    clean, stained = (new_agent(suite, objective, approach) for _ in range(2))
    for parameter in stained.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)
    for agent in (clean, stained):
        torch.manual_seed(11)
        train_step(agent)
    assert_same(plain(clean.state_dict()), plain(stained.state_dict()))


def plain(state):
    """Containers whose arrays are tensors."""
    if isinstance(state, dict):
        return {name: plain(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return [plain(value) for value in state]
    return torch.as_tensor(state) if hasattr(state, "__array__") else state


# What P_B learns from


@each_agent
def test_an_approach_without_a_loss_of_its_own_has_no_update_of_p_b(suite, objective):
    for approach in APPROACHES:
        agent = new_agent(suite, objective, approach)
        batch = agent.sample()
        learns = approach in OWN_LOSS[suite]
        assert (agent.backward_loss(batch) is not None) == learns, approach
        assert (update_backward(agent, batch) is not None) == learns, approach


@each("batch", ["current", "recent"])
@each("suite", ["hypergrid", "bitseq", "mols"])
def test_a_new_loss_of_p_b_needs_its_name_in_the_table_alone(suite, monkeypatch, batch):
    module = importlib.import_module(f"{suite}.common.backward_loss")
    options = {"dropout": 0} if suite == "bitseq" else {}
    usual = new_agent(suite, "tb", "tlm", **options)
    expected = usual.backward_loss(usual.sample()).item()
    tripled = replace(module.APPROACHES["tlm"], loss="tripled", batch=batch)
    monkeypatch.setitem(module.LOSSES, "tripled", lambda *given: 3 * module.trajectory_negative_log_likelihood(*given))
    monkeypatch.setitem(module.APPROACHES, "tlm", tripled)
    agent = new_agent(suite, "tb", "tlm", **options)
    sampled = agent.sample()
    assert agent.backward_loss(sampled).item() == pytest.approx(3 * expected, rel=1e-6)
    assert update_backward(agent, sampled) == pytest.approx(3 * expected, rel=1e-6)
    assert agent.backward_loss(sampled).item() != pytest.approx(3 * expected, rel=1e-6)  # P_B has moved


def weights(agent):
    """Those of the policies and of every target."""
    state = agent.state_dict()
    return {name: plain(state[name]) for name in ("policies", "target", "q_target") if name in state}


@each("suite, objective", [(suite, name) for suite, name in AGENTS if suite != "mols" and "dqn" in name])
@each("approach", APPROACHES)
def test_nothing_learns_before_start_learning(suite, objective, approach):
    options = {"update_target_every": 1} if suite == "bitseq" else {}
    agent = new_agent(suite, objective, approach, start_learning=2, **options)
    before = copy.deepcopy(weights(agent))
    for _ in range(2):
        assert train_step(agent) == {"pb_loss": None, "loss": None}
    assert_same(before, weights(agent))
    losses = train_step(agent)
    assert losses["loss"] is not None
    assert (losses["pb_loss"] is not None) == (approach in OWN_LOSS[suite])
