"""Trajectories back from good strings: what they are, which strings are kept, and whose loss takes them."""

import copy

import bitseq_exact as exact
import numpy as np
import pytest
import torch
from each import each
from same import assert_same

from bitseq.agents import balance
from bitseq.common.algorithm import train_step
from bitseq.policies.backward import FixedBackward
from bitseq.sampling import backward_trajectories, joined, taken_log_pb

BALANCE = ("tb", "db", "subtb")


def test_a_backward_trajectory_is_one_of_p_f_to_its_string(tiny):
    """And has the probability that P_B gives it, among all trajectories to that string."""
    table = exact.backward_table(tiny, "random")

    class Table(FixedBackward):
        def log_probs(self, states, hidden=None):
            return table[exact.state_index(tiny, states)]

    backward, n_drawn = Table("uniform", tiny.empty), 20_000
    string = tiny.bits(torch.zeros(1, tiny.length, dtype=torch.long))  # any
    string = tiny.tokens(1 - string).expand(n_drawn, -1)
    batch = backward_trajectories(string, backward, tiny, np.random.default_rng(1))
    assert torch.equal(batch.terminal_states, string)
    assert torch.equal(tiny.step(batch.states, batch.actions), batch.next_states)
    assert (batch.states.view(n_drawn, tiny.length, -1)[:, 0] == tiny.empty).all()
    log_pb = taken_log_pb(backward.log_probs(batch.next_states), batch.actions, tiny.n_words)
    probability = exact.sum_by_trajectory(log_pb, batch).exp()
    orders = (batch.actions // tiny.n_words).view(n_drawn, -1)
    for order in orders.unique(dim=0):
        rows = (orders == order).all(1)
        assert rows.double().mean().item() == pytest.approx(probability[rows][0].item(), abs=0.02)


@each("objective", BALANCE)
def test_the_loss_of_p_f_is_that_of_all_trajectories_and_p_bs_of_the_sampled_ones(new_agent, objective):
    agent = new_agent(objective, "tlm", good_trajectories=24, dropout=0)
    batch = agent.sample()
    assert batch.n_trajectories == 16
    extra = backward_trajectories(agent.environment.test_states[:24], agent.policies.backward, agent.environment,
                                  np.random.default_rng(1))  # fmt: skip
    both, losses = joined(batch, extra), []
    assert torch.equal(agent.environment.step(both.states, both.actions), both.next_states)
    agent._with_good_trajectories = lambda given: given
    losses = [agent.forward_loss(part).item() for part in (batch, extra, both)]
    assert losses[2] == pytest.approx((16 * losses[0] + 24 * losses[1]) / 40, rel=1e-4)
    own = agent.backward_loss(batch).item()
    del agent._with_good_trajectories
    taken = agent._with_good_trajectories(batch)
    assert taken.n_trajectories == 40 and torch.equal(taken.terminal_states[:16], batch.terminal_states)
    assert {*map(tuple, taken.terminal_states[16:].tolist())} <= {*map(tuple, batch.terminal_states.tolist())}
    assert agent.backward_loss(batch).item() == own


def test_the_best_different_strings_are_kept(new_agent, monkeypatch):
    monkeypatch.setattr(balance, "N_GOOD", 10)
    agent, seen = new_agent("tb", "uniform", good_trajectories=1), set()
    for _ in range(5):
        seen |= {*map(tuple, agent.sample().terminal_states.tolist())}
    kept = agent.state_dict()["good_strings"]
    best = sorted((agent.environment.log_reward(torch.tensor([string])).item() for string in seen), reverse=True)[:10]
    assert agent.environment.log_reward(kept).tolist() == best
    assert len({*map(tuple, kept.tolist())}) == 10 and {*map(tuple, kept.tolist())} <= seen


def test_a_restored_agent_goes_on_as_the_first_would(new_agent):
    agent, other = (new_agent("tb", "tlm", good_trajectories=4) for _ in range(2))
    train_step(agent)
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    for one in (agent, other):
        torch.manual_seed(1)  # of dropout
        train_step(one)
    assert_same(agent.state_dict(), other.state_dict())


def test_what_is_computed_with_them_is_unchanged(new_agent, double):
    """A change of these numbers asks for a higher results version of TB, DB and SubTB."""
    agent = new_agent("tb", "tlm", good_trajectories=4, dropout=0)
    losses = [train_step(agent)["loss"] for _ in range(3)]
    assert losses == pytest.approx([1.3881429465, 1.6741466950, 1.4895765378], rel=1e-6)
