"""Objectives: exactly 0 at the exact solution on every trajectory of small trees, and plain loops elsewhere."""

import pytest
import torch
from each import each
from enumeration import Solution
from torch import nn

from mols.agents.base import Batch, huber
from mols.common import objectives
from mols.environments.base import STOP
from mols.sampling import taken_log_pb

BACKWARD = ("uniform", "random")
EXPONENT = 5.0
M_ALPHAS = {"soft_dqn": 0.0, "dqn": 0.15}


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
def leaves(double, batch, solution):
    """(M,) log P_F, log P_B, log F of the transitions."""
    values = (
        solution.log_pf[batch.state_row, batch.actions],
        taken_log_pb(solution.log_pb, batch),
        solution.log_flow[batch.state_row],
    )
    return [value.clone().requires_grad_() for value in values]


@pytest.fixture
def rewards(batch, log_reward):
    """(N,) log R of the trajectories' ends."""
    return log_reward[batch.state_row[batch.is_stop]]


def residuals(name, batch, log_pf, log_pb, log_flow, log_z, log_reward):
    """The (N,) or (M,) residuals of an objective; of SubTrajectoryBalance the (N,) losses."""
    index, is_stop = batch.trajectory_index, batch.is_stop
    if name == "tb":
        return objectives.trajectory_balance(log_pf, log_pb, log_z, log_reward, index)
    if name == "db":
        return objectives.detailed_balance(log_pf, log_pb, log_flow, log_reward, index, is_stop)
    return objectives.sub_trajectory_balance(log_pf, log_pb, log_flow, log_reward, index, is_stop, 1.0, huber)


def test_exact_solution_is_the_sum_over_all_trajectories(reachable, batch, solution, leaves, rewards):
    """F(s_0) = sum of R(x) prod P_B, the distribution of x its share, P_F and P_B normalised."""
    assert (batch.n_trajectories, len(batch.actions)) == (23_115, 184_686)
    flow = torch.zeros_like(rewards).index_add(0, batch.trajectory_index, leaves[1].detach()) + rewards
    assert solution.log_flow[0].item() == pytest.approx(flow.logsumexp(0).item(), abs=1e-10)
    pf = solution.log_pf.exp()
    torch.testing.assert_close(pf.sum(1), torch.ones(len(pf)))
    torch.testing.assert_close(solution.log_pb[1:].logsumexp(1), torch.zeros(len(pf) - 1))
    ends = batch.state_row[batch.is_stop]
    share = torch.zeros(len(pf)).index_add(0, ends, (flow - solution.log_flow[0]).exp())
    torch.testing.assert_close(reachable.visits(pf) * pf[:, STOP], share)
    assert reachable.finished.sum() == 615 == len(ends.unique())


@each("name", ["tb", "db", "subtb"])
def test_residual_and_gradient_are_zero_at_the_exact_solution(batch, solution, leaves, rewards, name):
    log_z = solution.log_flow[0].clone().requires_grad_()
    residual = residuals(name, batch, *leaves, log_z, rewards)
    assert residual.shape == ((len(batch.actions),) if name == "db" else (batch.n_trajectories,))
    assert residual.abs().max() < 1e-12
    loss = residual.mean() if name == "subtb" else residual.square().mean()
    gradients = torch.autograd.grad(loss, [*leaves, log_z], allow_unused=True)
    assert sum(gradient is not None for gradient in gradients) == 3  # TB reads no flow, the others no log Z
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients if gradient is not None)


def transition_of(batch, trajectory, t):
    """Row of a trajectory's t-th transition."""
    rows = (batch.trajectory_index == trajectory).nonzero().flatten()
    return rows[t].item(), rows[0].item()


@each("moved", range(3))
@each("name", ["tb", "db"])
@each("t", [0, 1, -1])
def test_a_change_of_one_tenth_moves_the_residuals_it_enters_by_one_tenth(
    batch, solution, leaves, rewards, name, moved, t
):
    leaves, (row, first) = [leaf.detach().clone() for leaf in leaves], transition_of(batch, 5_000, t)
    leaves[moved][row] += 0.1
    residual = residuals(name, batch, *leaves, solution.log_flow[0], rewards)
    expected = torch.zeros_like(residual)
    if (name, moved) != ("tb", 2):
        expected[5_000 if name == "tb" else row] = -0.1 if moved == 1 else 0.1
    if (name, moved) == ("db", 2) and row > first:
        expected[row - 1] = -0.1  # the predecessor flows into this state
    torch.testing.assert_close(residual, expected, atol=1e-12, rtol=0)


@each("moved", range(3))
def test_sub_trajectory_balance_notices_a_change_in_one_trajectory_alone(batch, leaves, rewards, moved):
    """One transition's log_pf or log_pb moves every sub-trajectory across it by 0.1, a flow those that begin or end."""
    leaves, row = [leaf.detach().clone() for leaf in leaves], transition_of(batch, 5_000, 1)[0]
    n = int((batch.trajectory_index == 5_000).sum())
    leaves[moved][row] += 0.1
    losses = residuals("subtb", batch, *leaves, None, rewards)
    pairs = [(i, j) for i in range(n + 1) for j in range(i + 1, n + 1)]
    across = [(i, j) for i, j in pairs if (1 in (i, j) if moved == 2 else i <= 1 < j)]
    expected = torch.zeros_like(losses)
    expected[5_000] = 0.005 * len(across) / len(pairs)
    torch.testing.assert_close(losses, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("subtb_lambda", [0.9, 1.0])
def test_balance_losses_are_plain_loops(batch, rewards, double, subtb_lambda):
    """SubTrajectoryBalance with lambda 1 is the mean over all sub-trajectories."""
    log_pf, log_pb, log_flow = torch.randn(3, len(batch.actions), generator=torch.Generator().manual_seed(5))
    index, is_stop = batch.trajectory_index, batch.is_stop
    balance = residuals("tb", batch, log_pf, log_pb, log_flow, torch.tensor(0.3), rewards)
    detailed = residuals("db", batch, log_pf, log_pb, log_flow, None, rewards)
    arguments = (log_pf, log_pb, log_flow, rewards, index, is_stop, subtb_lambda, huber)
    losses = objectives.sub_trajectory_balance(*arguments)
    short = (index.bincount() == 5).nonzero().flatten().tolist()
    for trajectory in [*range(0, batch.n_trajectories, 97), *short[::9]]:
        mine = slice(transition_of(batch, trajectory, 0)[0], transition_of(batch, trajectory, -1)[0] + 1)
        forward, backward, log_r = log_pf[mine].tolist(), log_pb[mine].tolist(), rewards[trajectory].item()
        flows, n = [*log_flow[mine].tolist(), log_r], len(forward)
        assert balance[trajectory].item() == pytest.approx(0.3 + sum(forward) - log_r - sum(backward))
        expected = [flows[t] + forward[t] - flows[t + 1] - backward[t] for t in range(n)]
        assert detailed[mine].tolist() == pytest.approx(expected)
        total, weights, penalties = 0.0, 0.0, []
        for i in range(n + 1):
            for j in range(i + 1, n + 1):
                residual = abs(flows[i] + sum(forward[i:j]) - flows[j] - sum(backward[i:j]))
                penalties.append(residual**2 / 2 if residual < 1 else residual - 0.5)
                total += subtb_lambda ** (j - i) * penalties[-1]
                weights += subtb_lambda ** (j - i)
        assert losses[trajectory].item() == pytest.approx(total / weights)
        if subtb_lambda == 1:
            assert losses[trajectory].item() == pytest.approx(sum(penalties) / len(penalties))


# The DQN objectives


@pytest.fixture(params=list(M_ALPHAS))
def m_alpha(request):
    return M_ALPHAS[request.param]


def q_values(solution, coefficient):
    """(S, A) Q = V + c log P_F, V = log F."""
    finite = solution.log_pf.clamp(min=-1e9)  # masked, not infinite: gradients are defined
    return solution.log_flow[:, None] + coefficient * finite


def dqn_residual(
    batch, solution, rewards, q, m_alpha, *, target_q=None, log_pb_moves=0.0, reward_moves=0.0, value_moves=0.0
):
    """(M,) Q - target, both from the same table; another may stand for the target's, and its inputs may be moved."""
    coefficient = objectives.entropy_coefficient(m_alpha)
    target_q = q if target_q is None else target_q
    target = objectives.dqn_target(
        taken_log_pb(solution.log_pb, batch) + log_pb_moves,
        objectives.soft_value(target_q, coefficient)[batch.next_row] + value_moves,
        rewards[batch.trajectory_index] + reward_moves,
        batch.is_stop,
        (target_q / coefficient).log_softmax(-1)[batch.state_row, batch.actions],
        m_alpha,
        m_l0=-1e6,
    )  # fmt: skip
    return q[batch.state_row, batch.actions] - target


def test_q_residual_and_gradient_are_zero_at_the_exact_solution(batch, solution, rewards, double, m_alpha):
    q = q_values(solution, objectives.entropy_coefficient(m_alpha)).requires_grad_()
    residual = dqn_residual(batch, solution, rewards, q, m_alpha)
    assert residual.abs().max() < 1e-12
    (gradient,) = torch.autograd.grad(residual.square().mean(), q)
    assert gradient.abs().max() < 1e-12


def test_another_coefficient_is_no_fixed_point(batch, solution, rewards, double):
    assert dqn_residual(batch, solution, rewards, q_values(solution, 1.0), 0.15).abs().max() > 0.1


def test_softmax_of_q_over_c_is_the_policy_and_its_value_the_flow(solution, double, m_alpha):
    coefficient = objectives.entropy_coefficient(m_alpha)
    assert coefficient == pytest.approx({0.0: 1.0, 0.15: 1.1764705882}[m_alpha])
    q = q_values(solution, coefficient)
    torch.testing.assert_close((q / coefficient).softmax(-1), solution.log_pf.exp())
    torch.testing.assert_close(objectives.soft_value(q, coefficient), solution.log_flow)


def test_q_target_follows_its_inputs(batch, solution, rewards, double, m_alpha):
    """log P_B moves every target one for one; log R that of the stops alone, the next value the others alone."""
    q = q_values(solution, objectives.entropy_coefficient(m_alpha))
    arguments, tenth = (batch, solution, rewards, q, m_alpha), torch.full((len(batch.actions),), 0.1)
    close, at_stops = {"atol": 1e-12, "rtol": 0}, torch.where(batch.is_stop, 0.1, 0.0)
    torch.testing.assert_close(dqn_residual(*arguments, log_pb_moves=0.1), -tenth, **close)
    torch.testing.assert_close(dqn_residual(*arguments, reward_moves=0.1), -at_stops, **close)
    torch.testing.assert_close(dqn_residual(*arguments, value_moves=0.1), at_stops - tenth, **close)
    moved = q.clone()
    moved[0, 2] += 0.1
    residual = dqn_residual(batch, solution, rewards, moved, m_alpha, target_q=q)
    there = (batch.state_row == 0) & (batch.actions == 2)
    torch.testing.assert_close(residual, torch.where(there, 0.1, 0.0), **close)


# The agents' own losses, with tables in the place of the networks


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
@each("algo,m_alpha", [("soft_dqn", 0.0), ("dqn", 0.15), ("dqn", 0.6)])
def test_the_q_agents_loss_is_zero_at_the_exact_solution(
    batch, solution, rewards, double, new_agent, algo, m_alpha, not_dueling
):
    """Also with dueling: Q = V + c log pi with one c = 1 / (1 - alpha), in the policy as in the bonus."""
    agent = new_agent(algo, "naive", m_alpha=m_alpha, not_dueling=not_dueling)
    assert agent.coefficient == 1 / (1 - m_alpha)
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
