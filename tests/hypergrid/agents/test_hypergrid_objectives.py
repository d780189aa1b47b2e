"""Objectives: exactly 0 at the exact solution of an enumerated grid, and equal to plain loops away from it."""

import pytest
import torch
from each import each

from hypergrid.common import objectives
from hypergrid.sampling import taken_log_pb

BACKWARD = ("uniform", "maxent", "random")


@pytest.fixture(params=BACKWARD)
def solved(request, tiny, exact):
    """The tiny grid, all its trajectories, and the exact solution for one P_B."""
    solution = exact.solve(tiny, exact.backward_table(tiny, request.param))
    return tiny, exact.all_trajectories(tiny), solution


def along(batch, solution):
    """(M,) log P_F, log P_B and log F of the transitions, as leaves that take gradients."""
    values = (
        solution.log_pf[batch.state_row, batch.actions],
        taken_log_pb(solution.log_pb, batch),
        solution.log_flow[batch.state_row],
    )
    return tuple(value.clone().requires_grad_() for value in values)


def residuals(name, environment, batch, log_pf, log_pb, log_flow, log_z):
    """The (N,) or (M,) residuals of an objective; of SubTrajectoryBalance the (N,) losses."""
    log_reward = environment.log_reward(batch.terminal_states)
    index, is_stop = batch.trajectory_index, batch.is_stop
    if name == "tb":
        return objectives.trajectory_balance(log_pf, log_pb, log_z, log_reward, index)
    if name == "db":
        return objectives.detailed_balance(log_pf, log_pb, log_flow, log_reward, index, is_stop)
    return objectives.sub_trajectory_balance(log_pf, log_pb, log_flow, log_reward, index, is_stop, 0.9)


def test_exact_solution_is_a_solution(solved):
    environment, _, solution = solved
    torch.testing.assert_close(solution.log_pf.logsumexp(-1), torch.zeros(environment.n_states))
    torch.testing.assert_close(solution.log_pb[1:].logsumexp(-1), torch.zeros(environment.n_states - 1))
    assert solution.log_flow[0].item() == pytest.approx(environment.log_z, abs=1e-12)


@each("name", ["tb", "db", "subtb"])
def test_residual_and_gradient_are_zero_at_the_exact_solution(solved, name):
    environment, batch, solution = solved
    leaves = along(batch, solution)
    log_z = torch.tensor(environment.log_z, requires_grad=True)
    residual = residuals(name, environment, batch, *leaves, log_z)
    assert residual.shape == ((len(batch.actions),) if name == "db" else (batch.n_trajectories,))
    assert residual.abs().max() < 1e-12
    loss = residual.mean() if name == "subtb" else residual.square().mean()
    gradients = torch.autograd.grad(loss, [*leaves, log_z], allow_unused=True)
    assert sum(gradient is not None for gradient in gradients) == 3  # TB reads no flow, the others no log Z
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients if gradient is not None)


@each("moved", range(3))
@each("name", ["tb", "db"])
def test_a_change_of_one_tenth_moves_the_residuals_it_enters_by_one_tenth(solved, name, moved):
    environment, batch, solution = solved
    leaves = [leaf.detach() for leaf in along(batch, solution)]
    transition = 40
    assert not batch.is_stop[transition - 1 : transition + 1].any()  # inside a trajectory: it has a predecessor
    leaves[moved][transition] += 0.1
    residual = residuals(name, environment, batch, *leaves, torch.tensor(environment.log_z))
    expected = torch.zeros_like(residual)
    at = batch.trajectory_index[transition] if name == "tb" else transition
    if (name, moved) != ("tb", 2):
        expected[at] = -0.1 if moved == 1 else 0.1
    if (name, moved) == ("db", 2):
        expected[transition - 1] = -0.1
    torch.testing.assert_close(residual, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("subtb_lambda", [0.9, 1.0, 2.0])
def test_sub_trajectory_balance_is_the_double_loop(tiny, exact, subtb_lambda):
    batch = exact.all_trajectories(tiny)
    generator = torch.Generator().manual_seed(5)
    log_pf, log_pb, log_flow = torch.randn(3, len(batch.actions), generator=generator)
    log_reward = tiny.log_reward(batch.terminal_states)
    losses = objectives.sub_trajectory_balance(
        log_pf, log_pb, log_flow, log_reward, batch.trajectory_index, batch.is_stop, subtb_lambda
    )
    for n in range(batch.n_trajectories):
        mine = batch.trajectory_index == n
        forward, backward = log_pf[mine].tolist(), log_pb[mine].tolist()
        flows = [*log_flow[mine].tolist(), log_reward[n].item()]
        total, weights = 0.0, 0.0
        for i in range(len(flows)):
            for j in range(i + 1, len(flows)):
                residual = flows[i] + sum(forward[i:j]) - flows[j] - sum(backward[i:j])
                total += subtb_lambda ** (j - i) * residual**2
                weights += subtb_lambda ** (j - i)
        assert losses[n].item() == pytest.approx(total / weights, rel=1e-10)


def test_sub_trajectory_balance_of_single_transitions_is_detailed_balance(tiny, exact):
    """With lambda near 0 only sub-trajectories of one transition count."""
    batch = exact.all_trajectories(tiny)
    log_pf, log_pb, log_flow = torch.randn(3, len(batch.actions), generator=torch.Generator().manual_seed(5))
    arguments = (log_pf, log_pb, log_flow, tiny.log_reward(batch.terminal_states), batch.trajectory_index)
    losses = objectives.sub_trajectory_balance(*arguments, batch.is_stop, 1e-9)
    squared = objectives.detailed_balance(*arguments, batch.is_stop).square()
    means = exact.sum_by_trajectory(squared, batch) / torch.bincount(batch.trajectory_index)
    torch.testing.assert_close(losses, means, rtol=1e-6, atol=0)


@pytest.fixture(params=[0.0, 0.15], ids=["soft_dqn", "munchausen_dqn"])
def m_alpha(request):
    return request.param


def q_values(solution, coefficient):
    """(S, D+1) Q = V + c log P_F, V = log F."""
    return solution.log_flow[:, None] + coefficient * solution.log_pf


def dqn_residual(environment, batch, solution, q, m_alpha, log_pb=None, m_l0=-1e6):
    """(M,) Q - target, both from the same table."""
    coefficient = objectives.entropy_coefficient(m_alpha)
    taken = batch.state_row, batch.actions
    target = objectives.dqn_target(
        taken_log_pb(solution.log_pb, batch) if log_pb is None else log_pb,
        objectives.soft_value(q, coefficient)[batch.next_row],
        environment.log_rewards[batch.state_row],
        batch.is_stop,
        (q / coefficient).log_softmax(-1)[taken],
        m_alpha,
        m_l0,
    )
    return q[taken] - target


def test_q_residual_and_gradient_are_zero_at_the_exact_solution(solved, m_alpha):
    environment, batch, solution = solved
    finite = solution.log_pf.clamp(min=-1e9)  # masked, not infinite, as in the agent: gradients stay defined
    q = solution.log_flow[:, None] + objectives.entropy_coefficient(m_alpha) * finite
    q = q.requires_grad_()
    residual = dqn_residual(environment, batch, solution, q, m_alpha)
    assert residual.abs().max() < 1e-12
    (gradient,) = torch.autograd.grad(residual.square().mean(), q)
    assert gradient.abs().max() < 1e-12


def test_softmax_of_q_over_c_is_the_policy_and_its_value_the_flow(solved, m_alpha):
    _, _, solution = solved
    coefficient = objectives.entropy_coefficient(m_alpha)
    assert coefficient == pytest.approx({0.0: 1.0, 0.15: 1.1764705882}[m_alpha])
    q = q_values(solution, coefficient)
    torch.testing.assert_close((q / coefficient).softmax(-1), solution.log_pf.exp())
    torch.testing.assert_close(objectives.soft_value(q, coefficient), solution.log_flow)


def test_q_target_follows_its_inputs(solved, m_alpha):
    """log P_B moves the target of moves alone, log R that of stops alone, one for one."""
    environment, batch, solution = solved
    q = q_values(solution, objectives.entropy_coefficient(m_alpha))
    log_pb = taken_log_pb(solution.log_pb, batch)
    residual = dqn_residual(environment, batch, solution, q, m_alpha, log_pb + torch.where(batch.is_stop, 0.0, 0.1))
    torch.testing.assert_close(residual, torch.where(batch.is_stop, 0.0, -0.1), atol=1e-12, rtol=0)
    environment.log_rewards = environment.log_rewards + 0.1
    residual = dqn_residual(environment, batch, solution, q, m_alpha)
    torch.testing.assert_close(residual, torch.where(batch.is_stop, -0.1, 0.0), atol=1e-12, rtol=0)


def test_munchausen_bonus_by_hand():
    """alpha * max(c * log pi, l0): the floor applies to the scaled log policy, before alpha multiplies it."""
    log_policy = torch.tensor([-1.0, -50.0])
    target = objectives.dqn_target(
        torch.tensor([-0.5, 0.0]), torch.tensor([2.0, 2.0]), torch.tensor([7.0, 7.0]), torch.tensor([False, True]),
        log_policy, m_alpha=0.2, m_l0=-10.0,
    )  # fmt: skip
    assert target.tolist() == pytest.approx([-0.5 + 2.0 + 0.2 * (-1.0 / 0.8), 7.0 + 0.2 * -10.0])
    soft = objectives.dqn_target(
        torch.tensor([-0.5, 0.0]), torch.tensor([2.0, 2.0]), torch.tensor([7.0, 7.0]), torch.tensor([False, True]),
        log_policy, m_alpha=0.0, m_l0=-10.0,
    )  # fmt: skip
    assert soft.tolist() == pytest.approx([1.5, 7.0])
