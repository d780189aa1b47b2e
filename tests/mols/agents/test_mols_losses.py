"""The agents' losses and all their gradients against plain loops over transitions and sub-trajectories."""

import itertools
import math

import pytest
import torch
from each import each, each_approach
from same import assert_same_with_gradients

from mols.common.algorithm import train_step
from mols.common.backward_loss import APPROACHES
from mols.environments.base import STOP
from mols.environments.fragments import Trees

BALANCE = ("tb", "db", "subtb")


@pytest.fixture
def make(new_agent, double):
    """``make(algo, approach)``: an agent in double precision, its weights away from those of its copies."""

    def new(algo, approach, **options):
        agent = new_agent(algo, approach, **({"batch_size": 6, "rp": 0.3, "rand_pb_init": True} | options))
        generator = torch.Generator().manual_seed(3)
        copies = [getattr(agent, name) for name in ("policies", "average", "q_target") if hasattr(agent, name)]
        with torch.no_grad():
            for parameter in itertools.chain.from_iterable(policies.parameters() for policies in copies):
                parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
        return agent

    return new


def huber(residual):
    return residual**2 / 2 if abs(residual.item()) < 1 else residual.abs() - 0.5


class Loop:
    """One state and one action at a time, from the networks' outputs at the legal moves of plain Python.

    Results are 0-dimensional tensors that take gradients.
    """

    def __init__(self, agent, plain_moves):
        self.agent, self.environment, self.moves = agent, agent.environment, plain_moves
        self.known, self.seen = {}, set()

    def outputs(self, policies, state):
        """Features, forward logits and log P_B of one state, which the network sees by itself."""
        key = id(policies), state
        if key not in self.known:
            one = Trees(*(torch.tensor([part]) for part in state))
            features = policies.features(one)
            log_pb = policies.backward_log_probs(one, features)[0]
            self.known[key] = features, policies.forward_logits(one, features)[0], log_pb
        return self.known[key]

    def logits(self, policies, state):
        """Of every legal action."""
        _, outputs, _ = self.outputs(policies, state)
        legal = [action for action, *_ in self.moves.forward(self.environment, state)]
        legal += [STOP] if self.moves.is_finished(self.environment, state) else []
        return {action: outputs[action] for action in legal}

    def log_policy(self, policies, state, action):
        scaled = {a: q / self.agent.coefficient for a, q in self.logits(policies, state).items()}
        return scaled[action] - log_sum(scaled.values())

    def log_pb(self, policies, child, undo):
        legal = [action for action, _ in self.moves.backward(self.environment, child)]
        if self.agent.approach.name == "uniform":
            return torch.tensor(-math.log(len(legal)))
        _, _, found = self.outputs(policies, child)
        return found[undo] - log_sum([found[action] for action in legal])

    def scored_log_pb(self, child, undo):
        name = self.agent.approach.name
        if name in ("tlm", "maxent"):
            return self.log_pb(self.agent.average, child, undo).detach()
        value = self.log_pb(self.agent.policies, child, undo)
        return value if name == "naive" else value.detach()

    def graph_output(self, policies, head, state):
        features, *_ = self.outputs(policies, state)
        return getattr(policies, head)(features.graph)[0, 0]

    def trajectories(self, transitions):
        """Per trajectory its (state, action, child, undo), followed from s_0 by the actions; stops lead nowhere."""
        (first,) = self.moves.of(self.environment.initial_states(1))
        found, state = [[]], first
        for action in transitions.actions.tolist():
            if action == STOP:
                found[-1].append((state, action, None, None))
                found.append([])
                state = first
            else:
                ((child, undo),) = [m[1:] for m in self.moves.forward(self.environment, state) if m[0] == action]
                found[-1].append((state, action, child, undo))
                state = child
        return found[:-1]

    def log_reward(self, state):
        return self.agent.task.score(Trees(*(torch.tensor([part]) for part in state))).log_reward[0]

    def balance_loss(self, transitions, subtb_lambda):
        """Mean over trajectories of the Huber loss of the residual, or of its sum, or of the weighted mean."""
        total, online = 0.0, self.agent.policies
        algo, trajectories = self.agent.config.algo, self.trajectories(transitions)
        for steps in trajectories:
            forward = [self.log_policy(online, state, action) for state, action, *_ in steps]
            backward = [self.scored_log_pb(child, undo) for _, _, child, undo in steps[:-1]] + [torch.tensor(0.0)]
            log_reward, n = self.log_reward(steps[-1][0]), len(steps)
            if algo == "tb":
                total += huber(online.log_z + sum(forward) - log_reward - sum(backward))
                continue
            flows = [self.graph_output(online, "log_flow_head", state) for state, *_ in steps] + [log_reward]
            if algo == "db":
                total += sum(huber(flows[t] + forward[t] - flows[t + 1] - backward[t]) for t in range(n))
                continue
            weighted, weights = 0.0, 0.0
            for i, j in itertools.combinations(range(n + 1), 2):
                residual = flows[i] + sum(forward[i:j]) - flows[j] - sum(backward[i:j])
                weighted += subtb_lambda ** (j - i) * huber(residual)
                weights += subtb_lambda ** (j - i)
            total += weighted / weights
        return total / len(trajectories)

    def likelihood_loss(self, transitions):
        """Mean over trajectories of the sum: stops have no log P_B."""
        trajectories, online = self.trajectories(transitions), self.agent.policies
        terms = [self.log_pb(online, child, undo) for steps in trajectories for _, _, child, undo in steps[:-1]]
        return -sum(terms) / len(trajectories)

    def maxent_loss(self, transitions):
        """Mean over trajectories of the summed Huber losses, log n(s_0) being 0."""
        trajectories, online = self.trajectories(transitions), self.agent.policies
        total = 0.0
        for steps in trajectories:
            log_n = [torch.tensor(0.0)] + [self.graph_output(online, "log_n_head", state) for state, *_ in steps[1:]]
            for t, (_, _, child, undo) in enumerate(steps[:-1]):
                total += huber(log_n[t + 1] + self.log_pb(online, child, undo) - log_n[t])
        return total / len(trajectories)

    def q_loss(self, transitions, m_alpha, m_l0, leaf_coeff, dueling):
        """Sum over transitions, mean over trajectories; ``seen`` gets the branches that were taken."""
        coefficient, total = 1 / (1 - m_alpha), 0.0
        assert self.agent.coefficient == coefficient

        def value(policies, state):
            if dueling:
                return self.graph_output(policies, "log_flow_head", state)
            return coefficient * log_sum([q / coefficient for q in self.logits(policies, state).values()])

        online, target = self.agent.policies, self.agent.q_target
        trajectories = self.trajectories(transitions)
        for state, action, child, undo in itertools.chain(*trajectories):
            if dueling:
                q = value(online, state) + coefficient * self.log_policy(online, state, action)
            else:
                q = self.logits(online, state)[action]
            bonus = coefficient * self.log_policy(target, state, action).item()
            regression = m_alpha * max(bonus, m_l0)
            if action == STOP:
                regression = regression + self.log_reward(state)
            else:
                regression = regression + self.scored_log_pb(child, undo) + value(target, child).detach()
            total += (leaf_coeff if action == STOP else 1) * huber(q - regression)
            small = abs((q - regression).item()) < 1
            self.seen |= {("small", small), ("floored", bonus < m_l0), ("leaf", action == STOP)}
        return total / len(trajectories)


def log_sum(values):
    return torch.stack(list(values)).logsumexp(0)


@each("algo", BALANCE)
@each_approach
def test_balance_losses_are_the_plain_loops(make, plain_moves, algo, approach):
    agent = make(algo, approach)
    batch = agent.sample()
    expected = Loop(agent, plain_moves).balance_loss(batch.transitions, 1.0)
    assert_same_with_gradients(agent.forward_loss(batch), expected, agent)


def test_sub_trajectory_balance_has_the_weights_of_its_lambda(make, plain_moves):
    agent = make("subtb", "naive", subtb_lambda=0.7)
    batch = agent.sample()
    expected = Loop(agent, plain_moves).balance_loss(batch.transitions, 0.7)
    assert_same_with_gradients(agent.forward_loss(batch), expected, agent)


@each("not_dueling", [False, True])
@each("algo,approach", [("soft_dqn", "naive"), *(("dqn", approach) for approach in APPROACHES)])
def test_q_losses_are_the_plain_loops(make, plain_moves, algo, approach, not_dueling):
    m_alpha, own = {"soft_dqn": (0.0, {}), "dqn": (0.3, {"m_alpha": 0.3, "m_l0": -1.2})}[algo]
    agent = make(algo, approach, leaf_coeff=3, not_dueling=not_dueling, **own)
    batch, loop = agent.sample(), Loop(agent, plain_moves)
    expected = loop.q_loss(batch.transitions, m_alpha, -1.2, 3, not not_dueling)
    assert len(loop.seen) == 6  # every branch was taken
    assert_same_with_gradients(agent.forward_loss(batch), expected, agent)


@each("algo", ["db", "dqn"])
@each("approach", ["tlm", "pessimistic", "maxent"])
def test_the_losses_of_the_backward_policy_are_the_plain_loops(make, plain_moves, algo, approach):
    agent = make(algo, approach)
    batch, loop = agent.sample(), Loop(agent, plain_moves)
    lengths = batch.transitions.trajectory_index.bincount()
    assert len(lengths.unique()) > 1  # so that a mean over transitions would show
    expected = (loop.maxent_loss if approach == "maxent" else loop.likelihood_loss)(batch.transitions)
    assert_same_with_gradients(agent.backward_loss(batch), expected, agent)


def test_munchausen_without_its_bonus_is_soft_dqn_and_the_floor_matters(new_agent):
    def losses(algo, **options):
        agent = new_agent(algo, "tlm", **options)
        return [train_step(agent)["loss"] for _ in range(2)]

    assert losses("soft_dqn") == losses("dqn", m_alpha=0.0)
    plain = losses("dqn")
    assert plain != losses("dqn", m_alpha=0.0) and plain != losses("dqn", m_alpha=0.3)
    assert plain == losses("dqn", m_l0=-50.0) and plain != losses("dqn", m_l0=-0.5)
    assert plain != losses("dqn", leaf_coeff=2.0) and plain == losses("dqn", leaf_coeff=10.0, m_alpha=0.15)
    assert plain != losses("dqn", not_dueling=True)
