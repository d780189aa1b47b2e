"""Objectives: exactly 0 at the exact solution of enumerated strings, and equal to plain loops away from it."""

import pytest
import torch
from each import each

from bitseq.common import objectives
from bitseq.evaluation import all_states
from bitseq.sampling import taken_log_pb

BACKWARD = ("uniform", "maxent", "random")


@pytest.fixture(scope="module")
def computed() -> dict:
    """Trajectories and solutions by size and P_B, computed once: no test writes into them."""
    return {}


@pytest.fixture(params=BACKWARD)
def solved(request, tiny, exact, computed):
    """The tiny strings, all their trajectories, and the exact solution for one P_B."""
    key = tiny.k, request.param
    if key not in computed:
        solution = exact.solve(tiny, exact.backward_table(tiny, request.param))
        computed[key] = exact.all_trajectories(tiny), solution
    return tiny, *computed[key]


@pytest.fixture
def along(exact):
    """``along(environment, batch, solution)``: (M,) log P_F, log P_B, log F of the transitions, as leaves."""

    def read(environment, batch, solution):
        state = exact.state_index(environment, batch.states)
        following = exact.state_index(environment, batch.next_states)
        values = (
            solution.log_pf.flatten(1)[state, batch.actions],
            taken_log_pb(solution.log_pb[following], batch.actions, environment.n_words),
            solution.log_flow[state],
        )
        return tuple(value.clone().requires_grad_() for value in values)

    return read


def residuals(name, batch, log_pf, log_pb, log_flow, log_z, log_reward):
    """The (N,) or (M,) residuals of an objective; of SubTrajectoryBalance the (N,) losses."""
    index, is_last = batch.trajectory_index, batch.is_last
    if name == "tb":
        return objectives.trajectory_balance(log_pf, log_pb, log_z, log_reward, index)
    if name == "db":
        return objectives.detailed_balance(log_pf, log_pb, log_flow, log_reward, index, is_last)
    return objectives.sub_trajectory_balance(log_pf, log_pb, log_flow, log_reward, index, is_last, 0.9)


def test_exact_solution_is_a_solution(solved):
    environment, _, solution = solved
    open_state = environment.forward_mask(all_states(environment)).any(1)
    total = solution.log_pf.flatten(1).logsumexp(-1)
    torch.testing.assert_close(total[open_state], torch.zeros(int(open_state.sum())))
    torch.testing.assert_close(solution.log_pb[:-1].logsumexp(-1), torch.zeros(len(open_state) - 1))  # s_0 is the last
    assert solution.log_flow[-1].item() == pytest.approx(environment.log_z, abs=1e-12)


@each("name", ["tb", "db", "subtb"])
def test_residual_and_gradient_are_zero_at_the_exact_solution(solved, along, name):
    environment, batch, solution = solved
    leaves, log_reward = along(environment, batch, solution), environment.log_reward(batch.terminal_states)
    log_z = torch.tensor(environment.log_z, requires_grad=True)
    residual = residuals(name, batch, *leaves, log_z, log_reward)
    assert residual.shape == ((len(batch.actions),) if name == "db" else (batch.n_trajectories,))
    assert residual.abs().max() < 1e-12
    loss = residual.mean() if name == "subtb" else residual.square().mean()
    gradients = torch.autograd.grad(loss, [*leaves, log_z], allow_unused=True)
    assert sum(gradient is not None for gradient in gradients) == 3  # TB reads no flow, the others no log Z
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients if gradient is not None)


@each("moved", range(3))
@each("name", ["tb", "db"])
@each("t", [0, 1, -1])
def test_a_change_of_one_tenth_moves_the_residuals_it_enters_by_one_tenth(solved, along, name, moved, t):
    environment, batch, solution = solved
    leaves = [leaf.detach() for leaf in along(environment, batch, solution)]
    transition = 40 * environment.length + t % environment.length
    leaves[moved][transition] += 0.1
    log_reward = environment.log_reward(batch.terminal_states)
    residual = residuals(name, batch, *leaves, torch.tensor(environment.log_z), log_reward)
    expected = torch.zeros_like(residual)
    at = batch.trajectory_index[transition] if name == "tb" else transition
    if (name, moved) != ("tb", 2):
        expected[at] = -0.1 if moved == 1 else 0.1
    if (name, moved) == ("db", 2) and transition % environment.length:
        expected[transition - 1] = -0.1  # the predecessor flows into this state
    torch.testing.assert_close(residual, expected, atol=1e-12, rtol=0)


@each("moved", range(3))
def test_sub_trajectory_balance_notices_a_change_in_one_trajectory_alone(solved, along, moved):
    """One transition's log_pf or log_pb moves every sub-trajectory across it by 0.1, a flow those that begin or end."""
    environment, batch, solution = solved
    leaves, n = [leaf.detach() for leaf in along(environment, batch, solution)], environment.length
    at = 1  # the second transition, from the second state
    leaves[moved][40 * n + at] += 0.1
    losses = residuals("subtb", batch, *leaves, None, environment.log_reward(batch.terminal_states))
    pairs = [(i, j) for i in range(n + 1) for j in range(i + 1, n + 1)]
    across = [(i, j) for i, j in pairs if (at in (i, j) if moved == 2 else i <= at < j)]
    share = sum(0.9 ** (j - i) for i, j in across) / sum(0.9 ** (j - i) for i, j in pairs)
    expected = torch.zeros_like(losses)
    expected[40] = 0.01 * share
    torch.testing.assert_close(losses, expected, atol=1e-12, rtol=0)


def test_balance_losses_are_plain_loops(tiny, exact):
    batch, n = exact.all_trajectories(tiny), tiny.length
    log_pf, log_pb, log_flow = torch.randn(3, len(batch.actions), generator=torch.Generator().manual_seed(5))
    log_reward, log_z = tiny.log_reward(batch.terminal_states), torch.tensor(0.3)
    found = {
        name: residuals(name, batch, log_pf, log_pb, log_flow, log_z, log_reward).tolist() for name in ("tb", "db")
    }
    for trajectory, log_r in enumerate(log_reward.tolist()):
        balance = 0.3 - log_r
        for t in range(n):
            row = trajectory * n + t
            balance += log_pf[row].item() - log_pb[row].item()
            following = log_r if t == n - 1 else log_flow[row + 1].item()
            expected = log_flow[row].item() + log_pf[row].item() - following - log_pb[row].item()
            assert found["db"][row] == pytest.approx(expected, abs=1e-12)
        assert found["tb"][trajectory] == pytest.approx(balance, abs=1e-12)


@each("subtb_lambda", [0.9, 1.0, 2.0])
def test_sub_trajectory_balance_is_the_double_loop(tiny, exact, subtb_lambda):
    batch, n = exact.all_trajectories(tiny), tiny.length
    log_pf, log_pb, log_flow = torch.randn(3, len(batch.actions), generator=torch.Generator().manual_seed(5))
    log_reward = tiny.log_reward(batch.terminal_states)
    losses = objectives.sub_trajectory_balance(
        log_pf, log_pb, log_flow, log_reward, batch.trajectory_index, batch.is_last, subtb_lambda
    )
    for trajectory in range(0, batch.n_trajectories, 7):
        mine = slice(trajectory * n, (trajectory + 1) * n)
        forward, backward = log_pf[mine].tolist(), log_pb[mine].tolist()
        flows = [*log_flow[mine].tolist(), log_reward[trajectory].item()]
        total, weights = 0.0, 0.0
        for i in range(n + 1):
            for j in range(i + 1, n + 1):
                residual = flows[i] + sum(forward[i:j]) - flows[j] - sum(backward[i:j])
                total += subtb_lambda ** (j - i) * residual**2
                weights += subtb_lambda ** (j - i)
        assert losses[trajectory].item() == pytest.approx(total / weights, rel=1e-10)


@pytest.fixture(params=[0.0, 0.15], ids=["soft_dqn", "munchausen_dqn"])
def m_alpha(request):
    return request.param


def q_values(solution, coefficient):
    """(S, L * V) Q = V + c log P_F, V = log F."""
    finite = solution.log_pf.flatten(1).clamp(min=-1e9)  # masked, not infinite, as in the agent: gradients are defined
    return solution.log_flow[:, None] + coefficient * finite


@pytest.fixture
def dqn_residual(exact):
    """``dqn_residual(environment, batch, solution, q, m_alpha, ...)``: (M,) Q - target, both from the same table.

    Another table may stand for the target's Q, and what else the target reads may be moved.
    """

    def residual(
        environment, batch, solution, q, m_alpha, *, target_q=None, log_pb_moves=0.0, reward_moves=0.0, value_moves=0.0
    ):
        coefficient = objectives.entropy_coefficient(m_alpha)
        state = exact.state_index(environment, batch.states)
        following = exact.state_index(environment, batch.next_states)
        target_q = q if target_q is None else target_q
        target = objectives.dqn_target(
            taken_log_pb(solution.log_pb[following], batch.actions, environment.n_words) + log_pb_moves,
            objectives.soft_value(target_q, coefficient)[following] + value_moves,
            environment.log_reward(batch.next_states) + reward_moves,
            batch.is_last,
            (target_q / coefficient).log_softmax(-1)[state, batch.actions],
            m_alpha,
            m_l0=-1e6,
        )
        return q[state, batch.actions] - target

    return residual


def test_q_residual_and_gradient_are_zero_at_the_exact_solution(solved, m_alpha, dqn_residual):
    environment, batch, solution = solved
    q = q_values(solution, objectives.entropy_coefficient(m_alpha)).requires_grad_()
    residual = dqn_residual(environment, batch, solution, q, m_alpha)
    assert residual.abs().max() < 1e-12
    (gradient,) = torch.autograd.grad(residual.square().mean(), q)
    assert gradient.abs().max() < 1e-12


def test_another_coefficient_is_no_fixed_point(solved, dqn_residual):
    environment, batch, solution = solved
    q = q_values(solution, 1.0)
    assert dqn_residual(environment, batch, solution, q, 0.15).abs().max() > 0.1


def test_softmax_of_q_over_c_is_the_policy_and_its_value_the_flow(solved, m_alpha):
    environment, _, solution = solved
    coefficient = objectives.entropy_coefficient(m_alpha)
    assert coefficient == pytest.approx({0.0: 1.0, 0.15: 1.1764705882}[m_alpha])
    open_state = environment.forward_mask(all_states(environment)).any(1)
    q = q_values(solution, coefficient)[open_state]
    torch.testing.assert_close((q / coefficient).softmax(-1), solution.log_pf.exp().flatten(1)[open_state])
    torch.testing.assert_close(objectives.soft_value(q, coefficient), solution.log_flow[open_state])


def test_a_change_of_one_q_value_by_one_tenth_moves_its_residual_by_one_tenth(solved, m_alpha, dqn_residual, exact):
    environment, batch, solution = solved
    state, row = exact.state_index(environment, batch.states), 40 * environment.length + 1
    target_q = q_values(solution, objectives.entropy_coefficient(m_alpha))
    q = target_q.clone()
    q[state[row], batch.actions[row]] += 0.1
    residual = dqn_residual(environment, batch, solution, q, m_alpha, target_q=target_q)
    same = (state == state[row]) & (batch.actions == batch.actions[row])  # also in other trajectories
    torch.testing.assert_close(residual, torch.where(same, 0.1, 0.0), atol=1e-12, rtol=0)


def test_q_target_follows_its_inputs(solved, m_alpha, dqn_residual):
    """log P_B moves every target one for one, the last's too; log R the last alone, the next value the others alone."""
    environment, batch, solution = solved
    q = q_values(solution, objectives.entropy_coefficient(m_alpha))
    arguments, tenth = (environment, batch, solution, q, m_alpha), torch.full((len(batch.actions),), 0.1)
    close = {"atol": 1e-12, "rtol": 0}
    torch.testing.assert_close(dqn_residual(*arguments, log_pb_moves=0.1), -tenth, **close)
    last = torch.where(batch.is_last, 0.1, 0.0)
    torch.testing.assert_close(dqn_residual(*arguments, reward_moves=0.1), -last, **close)
    torch.testing.assert_close(dqn_residual(*arguments, value_moves=0.1), last - tenth, **close)


def test_munchausen_bonus_by_hand():
    """alpha * max(c * log pi, l0), and the last transition has its log P_B like any other."""
    log_pb, value, log_reward = (torch.tensor(pair) for pair in ([-0.5, -0.7], [2.0, 2.0], [7.0, 7.0]))
    is_last, log_policy = torch.tensor([False, True]), torch.tensor([-1.0, -50.0])
    target = objectives.dqn_target(log_pb, value, log_reward, is_last, log_policy, m_alpha=0.2, m_l0=-10.0)
    assert target.tolist() == pytest.approx([-0.5 + 2.0 + 0.2 * (-1.0 / 0.8), -0.7 + 7.0 + 0.2 * -10.0])
    soft = objectives.dqn_target(log_pb, value, log_reward, is_last, log_policy, m_alpha=0.0, m_l0=-10.0)
    assert soft.tolist() == pytest.approx([1.5, 6.3])
