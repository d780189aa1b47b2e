"""The agents' own losses are exactly 0 at the exact solution of small trees, with tables in the place of networks."""

import pytest
import torch
from each import each
from enumeration import Solution
from torch import nn

from mols.agents.base import Batch
from mols.environments.base import STOP
from mols.sampling import taken_log_pb

BACKWARD = ("uniform", "random")
EXPONENT = 5.0


@pytest.fixture(scope="module")
def batch(reachable):
    """Every trajectory once; ``visited`` are the states of the enumeration."""
    return reachable.all_trajectories()


@pytest.fixture(scope="module")
def log_reward(reachable, new_agent):
    """(S,) log R, of the states that can stop."""
    return EXPONENT * new_agent("tb", "tlm").task.reward(reachable.trees).log()


@pytest.fixture(scope="module", params=BACKWARD)
def solution(request, reachable, log_reward):
    """The exact solution for one P_B."""
    return reachable.solve(reachable.backward_table(request.param), log_reward)


@pytest.fixture
def rewards(batch, log_reward):
    """(N,) log R of the trajectories' ends."""
    return log_reward[batch.state_row[batch.is_stop]]


def test_exact_solution_is_the_sum_over_all_trajectories(reachable, batch, solution, rewards, double):
    """F(s_0) = sum of R(x) prod P_B, the distribution of x its share, P_F and P_B normalised."""
    assert (batch.n_trajectories, len(batch.actions)) == (23_115, 184_686)
    flow = rewards.index_add(0, batch.trajectory_index, taken_log_pb(solution.log_pb, batch))
    assert solution.log_flow[0].item() == pytest.approx(flow.logsumexp(0).item(), abs=1e-10)
    pf = solution.log_pf.exp()
    torch.testing.assert_close(pf.sum(1), torch.ones(len(pf)))
    torch.testing.assert_close(solution.log_pb[1:].logsumexp(1), torch.zeros(len(pf) - 1))
    ends = batch.state_row[batch.is_stop]
    share = torch.zeros(len(pf)).index_add(0, ends, (flow - solution.log_flow[0]).exp())
    torch.testing.assert_close(reachable.visits(pf) * pf[:, STOP], share)
    assert reachable.finished.sum() == 615 == len(ends.unique())


class Tables(nn.Module):
    """Policies that are the tables of a solution, for the states of the enumeration in their order."""

    def __init__(self, solution, coefficient, dueling):
        super().__init__()
        self.solution, self.log_z = solution, solution.log_flow[0]
        self.coefficient, self.dueling = coefficient, dueling

    def features(self, states, tables=None):
        return torch.zeros(len(states.fragment))

    def forward_logits(self, states, features):
        value = 0.0 if self.dueling else self.solution.log_flow[:, None]
        return self.coefficient * self.solution.log_pf + value

    def backward_log_probs(self, states, features=None):
        return self.solution.log_pb

    def log_flow(self, features):
        return self.solution.log_flow


@each("not_dueling", [False, True])
@each("algo,own", [("soft_dqn", {}), ("dqn", {"m_alpha": 0.15}), ("dqn", {"m_alpha": 0.6})])
def test_the_q_agents_loss_is_zero_at_the_exact_solution(
    batch, solution, rewards, double, new_agent, algo, own, not_dueling
):
    """Also with dueling: Q = V + c log pi with one c = 1 / (1 - alpha), in the policy as in the bonus."""
    agent = new_agent(algo, "naive", not_dueling=not_dueling, **own)
    assert agent.coefficient == 1 / (1 - own.get("m_alpha", 0.0))
    agent.policies = agent.average = agent.q_target = Tables(solution, agent.coefficient, not not_dueling)
    assert agent.forward_loss(Batch(batch, rewards)).item() < 1e-18
    assert agent.forward_loss(Batch(batch, rewards + 0.1)).item() > 1e-3
    agent.coefficient *= 1.2
    assert agent.forward_loss(Batch(batch, rewards)).item() > 0.01


@each("algo", ["tb", "db", "subtb"])
def test_the_balance_agents_loss_is_zero_at_the_exact_solution(batch, solution, rewards, double, new_agent, algo):
    agent = new_agent(algo, "naive")
    agent.policies = agent.average = Tables(solution, 1.0, True)
    assert agent.forward_loss(Batch(batch, rewards)).item() < 1e-18
    assert agent.forward_loss(Batch(batch, rewards + 0.1)).item() > 1e-3


def test_the_maxent_loss_is_zero_at_the_number_of_trajectories(
    batch, rewards, reachable, with_holes, double, new_agent
):
    n = with_holes.reversed_sums(torch.ones(len(with_holes.plain), reachable.environment.n_actions))
    row = torch.tensor([with_holes.row[state] for state in reachable.plain])
    log_pb = torch.full((len(n), reachable.environment.n_backward_actions), -torch.inf)
    for child, backward, parent, _ in with_holes.backward_edges:
        log_pb[child, backward] = n[parent].log() - n[child].log()
    agent = new_agent("db", "maxent")
    agent.policies = Tables(Solution(log_pb, log_pb[row], n.log()[row]), 1.0, True)
    assert agent.policies.solution.log_pb[1:].logsumexp(1).abs().max() < 1e-12
    agent.policies.log_n = lambda states, features: agent.policies.solution.log_flow
    assert agent.backward_loss(Batch(batch, rewards)).item() < 1e-20
    agent.policies.solution.log_flow[0] += 0.1
    assert agent.backward_loss(Batch(batch, rewards)).item() == pytest.approx(0.005)  # one transition of each
