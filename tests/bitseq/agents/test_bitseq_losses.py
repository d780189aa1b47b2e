"""The agents' losses and their gradients against plain loops over transitions, trajectories and sub-trajectories."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from each import each, each_approach
from same import assert_same_with_gradients

from bitseq.environment import mode_strings
from bitseq.policies.backward import LearnedBackward

BALANCE = ("tb", "db", "subtb")
COMMON = {"dropout": 0, "uniform_initialisation": False, "reward_exponent": 1.5, "batch_size": 4}
SIZES = [{"n": 8, "k": 2}, {"n": 24, "k": 4}]


@pytest.fixture(params=SIZES, ids=lambda size: "n={n}, k={k}".format(**size))
def make(request, new_agent, double):
    """``make(objective, approach)``: an agent in double precision, its weights and targets away from each other."""

    def new(objective, approach, **overrides):
        agent = new_agent(objective, approach, **(COMMON | request.param | overrides))
        modules = [agent.policies, agent.target.policies]
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in itertools.chain(*(module.parameters() for module in modules)):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        return agent

    return new


class Loop:
    """One state at a time, from the trunk's features: what the policies are defined to be.

    States are lists of words, None where empty; results are 0-dimensional tensors that take gradients.
    """

    def __init__(self, agent):
        self.agent, self.policies, self.environment = agent, agent.policies, agent.environment
        self.length, self.n_words = agent.environment.length, agent.environment.n_words

    def features(self, trunk, state):
        return trunk(torch.tensor([[self.n_words if word is None else word for word in state]]))[0]

    def logits(self, trunk, head, state):
        """Of every legal action: the position's logit plus that of the word there."""
        hidden, found = self.features(trunk, state), {}
        of_position = head["position"](hidden[0])
        for position, held in enumerate(state):
            if held is None:
                of_word = head["word"](hidden[1 + position])
                for word in range(self.n_words):
                    found[position * self.n_words + word] = of_position[position] + of_word[word]
        return found

    def log_pf(self, state, action):
        logits = self.logits(self.policies.trunk, self.policies.forward_head, state)
        return logits[action] - log_sum(logits.values())

    def log_pb(self, policy, child, position):
        """Of a network among the filled positions of the child, else in closed form."""
        filled = [d for d, word in enumerate(child) if word is not None]
        if self.agent.approach.name == "uniform":
            return torch.tensor(-math.log(len(filled)))
        if self.agent.approach.name == "maxent":  # n(s) / n(s'), with t! orders of writing t words
            return torch.tensor(math.log(math.factorial(len(filled) - 1) / math.factorial(len(filled))))
        logits = policy.head(self.features(policy.trunk, child)[0])
        return logits[position] - log_sum([logits[d] for d in filled])

    def scored_log_pb(self, child, position):
        name = self.agent.approach.name
        policy = self.policies.backward_target if name == "tlm" else self.policies.backward
        value = self.log_pb(policy, child, position)
        return value if name == "naive" else value.detach()

    def log_flow(self, state):
        return self.policies.log_flow_head(self.features(self.policies.trunk, state)[0])[0]

    def log_reward(self, state):
        text = "".join(format(word, f"0{self.environment.k}b") for word in state)
        modes = mode_strings(self.environment.n, self.environment.m_size)
        return -1.5 * min(sum(a != b for a, b in zip(text, mode, strict=True)) for mode in modes)

    def after(self, state, action):
        position, word = divmod(action, self.n_words)
        assert state[position] is None
        return [word if d == position else held for d, held in enumerate(state)]

    def trajectories(self, batch):
        """Per trajectory its L (state, action, next state), followed from s_0 by the actions alone."""
        found = []
        for actions in batch.actions.view(batch.n_trajectories, -1).tolist():
            state, steps = [None] * self.length, []
            for action in actions:
                steps.append((state, action, self.after(state, action)))
                state = steps[-1][2]
            found.append(steps)
        return found

    def balance_loss(self, objective, batch):
        """Mean over trajectories, divided by their length."""
        total = 0.0
        for steps in self.trajectories(batch):
            forward = [self.log_pf(state, action) for state, action, _ in steps]
            backward = [self.scored_log_pb(child, action // self.n_words) for _, action, child in steps]
            reward = self.log_reward(steps[-1][2])
            if objective == "tb":
                total += (self.policies.log_z_parts.sum() + sum(forward) - reward - sum(backward)) ** 2
                continue
            flows = [*(self.log_flow(state) for state, _, _ in steps), reward]
            if objective == "db":
                for t in range(self.length):
                    total += (flows[t] + forward[t] - flows[t + 1] - backward[t]) ** 2
                continue
            weighted, weights = 0.0, 0.0
            for i in range(self.length):
                for j in range(i + 1, self.length + 1):
                    residual = flows[i] + sum(forward[i:j]) - flows[j] - sum(backward[i:j])
                    weighted += 0.7 ** (j - i) * residual**2
                    weights += 0.7 ** (j - i)
            total += weighted / weights
        return total / batch.n_trajectories / self.length

    def likelihood_loss(self, batch):
        online = self.policies.backward
        terms = [
            self.log_pb(online, child, action // self.n_words)
            for steps in self.trajectories(batch)
            for _, action, child in steps
        ]
        return -sum(terms) / batch.n_trajectories

    def q_value(self, state, action):
        return self.logits(self.policies.trunk, self.policies.forward_head, state)[action]

    def q_target(self, state, action, m_alpha, m_l0):
        """The regression target of one transition, and whether the bonus is at its floor."""
        coefficient = 1 / (1 - m_alpha)
        child = self.after(state, action)
        target_network = self.agent.target.policies.trunk, self.agent.target.policies.forward_head
        here = {a: q.detach() / coefficient for a, q in self.logits(*target_network, state).items()}
        log_policy = coefficient * (here[action] - log_sum(here.values())).item()
        target = self.scored_log_pb(child, action // self.n_words) + m_alpha * max(log_policy, m_l0)
        if None not in child:
            return target + self.log_reward(child), log_policy < m_l0
        there = [q.detach() / coefficient for q in self.logits(*target_network, child).values()]
        return target + coefficient * log_sum(there), log_policy < m_l0


def log_sum(values):
    return torch.stack(list(values)).logsumexp(0)


@each("objective", BALANCE)
@each_approach
def test_balance_losses_are_the_plain_loops(make, objective, approach):
    """TB and DB divided by L, SubTB by the summed weights and then by L; the mixture with random actions is not in."""
    agent = make(objective, approach, rand_action_prob=0.5, **({"subtb_lambda": 0.7} if objective == "subtb" else {}))
    batch = agent.sample()
    assert_same_with_gradients(agent.forward_loss(batch), Loop(agent).balance_loss(objective, batch), agent)


@each("objective", ["db", "munchausen_dqn"])
@each("approach", ["tlm", "pessimistic"])
def test_the_likelihood_of_the_backward_policy_is_the_plain_loop(make, objective, approach):
    agent = make(objective, approach)
    batch = agent.sample()
    assert isinstance(agent.policies.backward, LearnedBackward)
    assert_same_with_gradients(agent.backward_loss(batch), Loop(agent).likelihood_loss(batch), agent)


REPLAY = {"replay_batch_size": 24, "replay_importance_exponent": 0.4, "replay_priority_exponent": 0.6}
REPLAY |= {"leaf_coeff": 3, "huber_delta": 2}


@each("objective", ["soft_dqn", "munchausen_dqn"])
@each_approach
def test_q_losses_are_the_plain_loops(make, objective, approach):
    """Every drawn transition by itself, with the target network away from the online one, and its new priority."""
    own = {"soft_dqn": {}, "munchausen_dqn": {"m_l0": -3.5}}[objective]
    agent, m_alpha = make(objective, approach, **REPLAY, **own), {"soft_dqn": 0.0, "munchausen_dqn": 0.15}[objective]
    for _ in range(2):
        agent.sample()
    uneven = np.random.default_rng(4).uniform(0.1, 3.0, len(agent._replay))
    agent._replay.update(np.arange(len(agent._replay)), uneven)
    loop, empty = Loop(agent), agent.environment.empty
    drawn = copy.deepcopy(agent._replay).draw(24, copy.deepcopy(agent.streams.replay))
    total, seen, priorities = 0.0, set(), {}
    weights = [(priority + 1e-8) ** 0.6 for priority in uneven]
    rarity = [(len(weights) * weights[position] / sum(weights)) ** -0.4 for position in drawn[0]]
    for position, tokens, action, rare in zip(*(array.tolist() for array in drawn[:3]), rarity, strict=True):
        importance = rare / max(rarity)
        state = [None if token == empty else token for token in tokens]
        is_leaf = state.count(None) == 1
        target, floored = loop.q_target(state, action, m_alpha, -3.5)
        error = loop.q_value(state, action) - target
        is_small = abs(error.item()) < 2
        huber = (3 if is_leaf else 1) * (error**2 / 2 if is_small else 2 * (error.abs() - 1))
        priorities[position] = huber.item()
        total += importance * huber
        seen |= {("leaf", is_leaf), ("floored", floored), ("small", is_small), ("weighted", importance < 1)}
    assert len(seen) == 8  # every branch was taken
    assert_same_with_gradients(agent.forward_loss(None), total / 24, agent)
    for position, priority in priorities.items():
        assert agent._replay._weight[position] == pytest.approx((priority + 1e-8) ** 0.6, rel=1e-9)
    batch = agent.sample()  # new ones enter with the largest priority so far, the 3.0 above or a drawn one's
    new = slice(2 * len(batch.actions), 3 * len(batch.actions))
    largest = max(3.0, *priorities.values())
    np.testing.assert_allclose(agent._replay._weight[new], (largest + 1e-8) ** 0.6)
