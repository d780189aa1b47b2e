"""Objectives: exactly 0 at the exact solutions of small spaces of every suite, and equal to plain loops elsewhere."""

from dataclasses import dataclass
from functools import cache

import bitseq_exact
import hypergrid_exact
import mols_agents
import pytest
import torch
from each import each
from torch import Tensor

import bitseq.sampling
import hypergrid.sampling
import mols.sampling
from hypergrid.common import objectives
from mols.agents.base import huber

EXPONENT = 5.0  # of a molecule's reward
TRAJECTORY = 5  # that some tests change; it has at least three transitions
CLOSE = {"atol": 1e-12, "rtol": 0}


@dataclass
class Solved:
    """All N trajectories of a space as M transitions, and the P_F and F of its S states that solve it for one P_B."""

    state_row: Tensor  # (M,) the state that a transition leaves
    next_row: Tensor  # (M,) that it reaches
    actions: Tensor  # (M,)
    index: Tensor  # (M,) its trajectory
    is_last: Tensor  # (M,)
    policy: Tensor  # (S, A) log P_F, -inf where illegal
    flow: Tensor  # (S,) log F
    log_pb: Tensor  # (M,)
    log_reward: Tensor  # (N,)
    log_z: float

    @property
    def leaves(self) -> list[Tensor]:
        """(M,) log P_F, log P_B and log F of the transitions, as leaves that take gradients."""
        values = self.policy[self.state_row, self.actions], self.log_pb, self.flow[self.state_row]
        return [value.clone().requires_grad_() for value in values]

    def rows(self, trajectory: int) -> list[int]:
        """Those of its transitions."""
        return (self.index == trajectory).nonzero().flatten().tolist()


def of_grid(kind: str) -> Solved:
    grid = hypergrid_exact.random_grid()
    batch, solution = (
        hypergrid_exact.all_trajectories(grid),
        hypergrid_exact.solve(grid, hypergrid_exact.backward_table(grid, kind)),
    )
    log_pb = hypergrid.sampling.taken_log_pb(solution.log_pb, batch)
    rows = batch.state_row, batch.next_row, batch.actions, batch.trajectory_index, batch.is_stop
    return Solved(*rows, solution.log_pf, solution.log_flow, log_pb, grid.log_reward(batch.terminal_states), grid.log_z)


def of_strings(kind: str, k: int = 2) -> Solved:
    strings = bitseq_exact.RandomReward(k)
    batch, solution = (
        bitseq_exact.all_trajectories(strings),
        bitseq_exact.solve(strings, bitseq_exact.backward_table(strings, kind)),
    )
    here, following = (bitseq_exact.state_index(strings, states) for states in (batch.states, batch.next_states))
    log_pb = bitseq.sampling.taken_log_pb(solution.log_pb[following], batch.actions, strings.n_words)
    rows = here, following, batch.actions, batch.trajectory_index, batch.is_last
    log_pf = solution.log_pf.flatten(1)
    return Solved(*rows, log_pf, solution.log_flow, log_pb, strings.log_reward(batch.terminal_states), strings.log_z)


def of_trees(kind: str) -> Solved:
    trees = mols_agents.reachable(3)
    log_reward = EXPONENT * mols_agents.RandomReward(trees.environment)(trees.trees).log()
    batch, solution = trees.all_trajectories(), trees.solve(trees.backward_table(kind), log_reward)
    log_pb = mols.sampling.taken_log_pb(solution.log_pb, batch)
    rows = batch.state_row, batch.next_row, batch.actions, batch.trajectory_index, batch.is_stop
    ends = log_reward[batch.state_row[batch.is_stop]]
    flows = torch.zeros_like(ends).index_add(0, batch.trajectory_index, log_pb) + ends
    return Solved(*rows, solution.log_pf, solution.log_flow, log_pb, ends, flows.logsumexp(0).item())


SPACES = {"grid": of_grid, "words of 2 bits": of_strings, "words of 4 bits": lambda kind: of_strings(kind, 4)}
CASES = [(space, kind) for space in SPACES for kind in ("uniform", "maxent", "random")]
SPACES["trees"] = of_trees
CASES += [("trees", "uniform"), ("trees", "random")]
each_case = each("case", CASES)
each_alpha = each("m_alpha", [0.0, 0.15])
each_penalty = each("subtb_lambda, penalty", [(0.9, torch.square), (2.0, torch.square), (1.0, huber)])


@cache
def solved(case: tuple[str, str]) -> Solved:
    """Computed once: no test writes into it."""
    space, kind = case
    return SPACES[space](kind)


@pytest.fixture(autouse=True)
def in_double(double):
    """Identities are exact up to rounding."""


def residuals(name, of, log_pf, log_pb, log_flow, log_z, subtb_lambda=0.9, penalty=torch.square):
    """The (N,) or (M,) residuals of an objective; of SubTrajectoryBalance the (N,) losses."""
    if name == "tb":
        return objectives.trajectory_balance(log_pf, log_pb, log_z, of.log_reward, of.index)
    if name == "db":
        return objectives.detailed_balance(log_pf, log_pb, log_flow, of.log_reward, of.index, of.is_last)
    return objectives.sub_trajectory_balance(log_pf, log_pb, log_flow, of.log_reward, of.index, subtb_lambda, penalty)


@each_case
def test_exact_solution_is_a_solution(case):
    """P_F and all trajectories that P_B makes are distributions; F(s_0) is Z."""
    of = solved(case)
    open_state = of.policy.isfinite().any(1)
    torch.testing.assert_close(of.policy[open_state].logsumexp(1), torch.zeros(int(open_state.sum())))
    backward = torch.zeros_like(of.log_reward).index_add(0, of.index, of.log_pb) + of.log_reward
    assert backward.logsumexp(0).item() == pytest.approx(of.log_z, abs=1e-10)
    assert of.flow[of.state_row[0]].item() == pytest.approx(of.log_z, abs=1e-10)
    assert len(of.rows(TRAJECTORY)) >= 2 and len(of.log_reward) > 50


@each_case
@each("name", ["tb", "db", "subtb"])
def test_residual_and_gradient_are_zero_at_the_exact_solution(case, name):
    of = solved(case)
    leaves, log_z = of.leaves, torch.tensor(of.log_z, requires_grad=True)
    residual = residuals(name, of, *leaves, log_z)
    assert residual.shape == (of.actions if name == "db" else of.log_reward).shape
    assert residual.abs().max() < 1e-12
    loss = residual.mean() if name == "subtb" else residual.square().mean()
    gradients = torch.autograd.grad(loss, [*leaves, log_z], allow_unused=True)
    assert sum(gradient is not None for gradient in gradients) == 3  # TB reads no flow, the others no log Z
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients if gradient is not None)


@each_case
@each("t", [0, 1, -1])
@each("moved", range(3))
@each("name", ["tb", "db"])
def test_a_change_of_one_tenth_moves_the_residuals_it_enters_by_one_tenth(case, name, moved, t):
    of = solved(case)
    leaves, rows = [leaf.detach() for leaf in of.leaves], of.rows(TRAJECTORY)
    leaves[moved][rows[t]] += 0.1
    residual = residuals(name, of, *leaves, torch.tensor(of.log_z))
    expected = torch.zeros_like(residual)
    if (name, moved) != ("tb", 2):
        expected[TRAJECTORY if name == "tb" else rows[t]] = -0.1 if moved == 1 else 0.1
    if (name, moved) == ("db", 2) and rows[t] > rows[0]:
        expected[rows[t] - 1] = -0.1  # the predecessor flows into this state
    torch.testing.assert_close(residual, expected, **CLOSE)


@each_case
@each_penalty
@each("moved", range(3))
def test_sub_trajectory_balance_notices_a_change_in_one_trajectory_alone(case, moved, subtb_lambda, penalty):
    """One transition's log_pf or log_pb moves every sub-trajectory across it by 0.1, a flow those that begin or end."""
    of, at = solved(case), 1  # the second transition, from the second state
    leaves, rows = [leaf.detach() for leaf in of.leaves], of.rows(TRAJECTORY)
    leaves[moved][rows[at]] += 0.1
    losses = residuals("subtb", of, *leaves, None, subtb_lambda, penalty)
    pairs = [(i, j) for i in range(len(rows) + 1) for j in range(i + 1, len(rows) + 1)]
    across = [(i, j) for i, j in pairs if (at in (i, j) if moved == 2 else i <= at < j)]
    share = sum(subtb_lambda ** (j - i) for i, j in across) / sum(subtb_lambda ** (j - i) for i, j in pairs)
    expected = torch.zeros_like(losses)
    expected[TRAJECTORY] = share * penalty(torch.tensor(0.1))
    torch.testing.assert_close(losses, expected, **CLOSE)


def random_leaves(of: Solved) -> Tensor:
    return torch.randn(3, len(of.actions), generator=torch.Generator().manual_seed(5))


def some_trajectories(of: Solved) -> list[int]:
    """Thirty or more, the shortest and the longest among them."""
    lengths = of.index.bincount()
    return [*range(0, len(lengths), len(lengths) // 30), int(lengths.argmin()), int(lengths.argmax())]


@each_case
@each_penalty
def test_balance_losses_are_plain_loops(case, subtb_lambda, penalty):
    of, log_z = solved(case), torch.tensor(0.3)
    log_pf, log_pb, log_flow = random_leaves(of)
    arguments = of, log_pf, log_pb, log_flow, log_z, subtb_lambda, penalty
    tb, db, subtb = (residuals(name, *arguments) for name in ("tb", "db", "subtb"))
    for trajectory in some_trajectories(of):
        rows, log_r = of.rows(trajectory), of.log_reward[trajectory].item()
        forward, backward, flows = log_pf[rows].tolist(), log_pb[rows].tolist(), [*log_flow[rows].tolist(), log_r]
        n, total, weights = len(rows), 0.0, 0.0
        assert tb[trajectory].item() == pytest.approx(0.3 + sum(forward) - log_r - sum(backward), abs=1e-10)
        expected = [flows[t] + forward[t] - flows[t + 1] - backward[t] for t in range(n)]
        assert db[rows].tolist() == pytest.approx(expected, abs=1e-10)
        for i in range(n + 1):
            for j in range(i + 1, n + 1):
                residual = flows[i] + sum(forward[i:j]) - flows[j] - sum(backward[i:j])
                total += subtb_lambda ** (j - i) * penalty(torch.tensor(residual)).item()
                weights += subtb_lambda ** (j - i)
        assert subtb[trajectory].item() == pytest.approx(total / weights, rel=1e-10)


@each_case
def test_sub_trajectory_balance_of_single_transitions_is_detailed_balance(case):
    """With lambda near 0 only sub-trajectories of one transition count."""
    of = solved(case)
    leaves = random_leaves(of)
    squared = residuals("db", of, *leaves, None).square()
    means = torch.zeros_like(of.log_reward).index_add(0, of.index, squared) / of.index.bincount()
    torch.testing.assert_close(residuals("subtb", of, *leaves, None, 1e-9), means, rtol=1e-6, atol=0)


# The DQN objectives


def q_values(of, coefficient):
    """(S, A) Q = V + c log P_F, V = log F."""
    finite = of.policy.clamp(min=-1e9)  # masked, not infinite, as in the agents: gradients are defined
    return of.flow[:, None] + coefficient * finite


def dqn_residual(of, q, m_alpha, *, target_q=None, log_pb_moves=0.0, reward_moves=0.0, value_moves=0.0):
    """(M,) Q - target, both from the same table; another may stand for the target's, and its inputs may be moved."""
    coefficient = objectives.entropy_coefficient(m_alpha)
    target_q = q if target_q is None else target_q
    target = objectives.dqn_target(
        of.log_pb + log_pb_moves,
        objectives.soft_value(target_q, coefficient)[of.next_row] + value_moves,
        of.log_reward[of.index] + reward_moves,
        of.is_last,
        (target_q / coefficient).log_softmax(-1)[of.state_row, of.actions],
        m_alpha,
        m_l0=-1e6,
    )
    return q[of.state_row, of.actions] - target


@each_case
@each_alpha
def test_q_residual_and_gradient_are_zero_at_the_exact_solution(case, m_alpha):
    of = solved(case)
    q = q_values(of, objectives.entropy_coefficient(m_alpha)).requires_grad_()
    residual = dqn_residual(of, q, m_alpha)
    assert residual.abs().max() < 1e-12
    (gradient,) = torch.autograd.grad(residual.square().mean(), q)
    assert gradient.abs().max() < 1e-12


@each_case
def test_another_coefficient_is_no_fixed_point(case):
    of = solved(case)
    assert dqn_residual(of, q_values(of, 1.0), 0.15).abs().max() > 0.1


@each_case
@each_alpha
def test_softmax_of_q_over_c_is_the_policy_and_its_value_the_flow(case, m_alpha):
    of, coefficient = solved(case), objectives.entropy_coefficient(m_alpha)
    assert coefficient == pytest.approx({0.0: 1.0, 0.15: 1.1764705882}[m_alpha])
    open_state = of.policy.isfinite().any(1)
    q = q_values(of, coefficient)[open_state]
    torch.testing.assert_close((q / coefficient).softmax(-1), of.policy[open_state].exp())
    torch.testing.assert_close(objectives.soft_value(q, coefficient), of.flow[open_state])


@each_case
@each_alpha
def test_q_target_follows_its_inputs(case, m_alpha):
    """log P_B moves every target one for one; log R the last's alone, the next value the others' alone."""
    of = solved(case)
    q, tenth = q_values(of, objectives.entropy_coefficient(m_alpha)), torch.full((len(of.actions),), 0.1)
    last = torch.where(of.is_last, 0.1, 0.0)
    torch.testing.assert_close(dqn_residual(of, q, m_alpha, log_pb_moves=0.1), -tenth, **CLOSE)
    torch.testing.assert_close(dqn_residual(of, q, m_alpha, reward_moves=0.1), -last, **CLOSE)
    torch.testing.assert_close(dqn_residual(of, q, m_alpha, value_moves=0.1), last - tenth, **CLOSE)
    moved, row = q.clone(), of.rows(TRAJECTORY)[1]
    moved[of.state_row[row], of.actions[row]] += 0.1
    there = (of.state_row == of.state_row[row]) & (of.actions == of.actions[row])  # also in other trajectories
    residual = dqn_residual(of, moved, m_alpha, target_q=q)
    torch.testing.assert_close(residual, torch.where(there, 0.1, 0.0), **CLOSE)


@each("last_log_pb", [0.0, -0.7])
def test_munchausen_bonus_by_hand(last_log_pb):
    """alpha * max(c * log pi, l0): the floor is of the scaled log policy; the last transition may have a log P_B."""
    log_pb, value, log_reward = (torch.tensor(pair) for pair in ([-0.5, last_log_pb], [2.0, 2.0], [7.0, 7.0]))
    is_last, log_policy = torch.tensor([False, True]), torch.tensor([-1.0, -50.0])
    target = objectives.dqn_target(log_pb, value, log_reward, is_last, log_policy, m_alpha=0.2, m_l0=-10.0)
    assert target.tolist() == pytest.approx([-0.5 + 2.0 + 0.2 * (-1.0 / 0.8), last_log_pb + 7.0 + 0.2 * -10.0])
    soft = objectives.dqn_target(log_pb, value, log_reward, is_last, log_policy, m_alpha=0.0, m_l0=-10.0)
    assert soft.tolist() == pytest.approx([1.5, last_log_pb + 7.0])
