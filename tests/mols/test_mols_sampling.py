"""Trajectories that are complete, made of distinct states, and distributed as P_F says."""

import itertools

import numpy as np
import pytest
import torch
from each import each
from same import chi_square
from scipy import stats

from mols.environments.base import STOP, concatenate, rows_of
from mols.sampling import BELOW_ONE, Transitions, distinct, sample_trajectories, taken_log_pb

COEFFICIENTS = (1.0, 2.0)


@torch.no_grad()
def policy_table(policies, states, coefficient=1.0, rand_action_prob=0.0):
    """(S, A) float64 probabilities of the mixture of P_F and uniform actions."""
    logits = policies.forward_logits(states, policies.features(states)).double() / coefficient
    legal = (logits > -torch.inf).double()
    return (1 - rand_action_prob) * logits.softmax(-1) + rand_action_prob * legal / legal.sum(1, keepdim=True)


def test_transitions_are_complete_trajectories_of_distinct_states(small, new_policies, plain_moves):
    """Followed by plain Python from s_0; every state is listed once for each depth at which it was met."""
    policies = new_policies(small, scale=3.0)
    batch = sample_trajectories(policies, small, 300, np.random.default_rng(1), rand_action_prob=0.3)
    visited, listed, met = plain_moves.of(batch.visited), {}, set()
    columns = (batch.state_row, batch.next_row, batch.actions, batch.undo, batch.trajectory_index, batch.is_stop)
    steps = list(zip(*(column.tolist() for column in columns), strict=True))
    assert sorted({index for *_, index, _ in steps}) == list(range(300)) and batch.n_trajectories == 300
    ends = []
    for trajectory, moves in itertools.groupby(steps, key=lambda step: step[4]):
        assert trajectory == len(ends)
        (state,), stopped = plain_moves.of(small.initial_states(1)), False
        for depth, (row, following, action, undo, _, is_stop) in enumerate(moves):
            assert not stopped and visited[row] == state
            assert listed.setdefault((depth, state), row) == row
            met.add(row)
            stopped = is_stop
            if is_stop:
                assert action == STOP and following == row and plain_moves.is_finished(small, state)
            else:
                legal = {a: (child, back) for a, child, back in plain_moves.forward(small, state)}
                state, back = legal[action]
                assert undo == back and visited[following] == state
        assert stopped
        ends.append(state)
    assert met == set(range(len(visited))) and len(listed) == len(visited)
    assert plain_moves.of(batch.terminal_states) == ends and len(set(ends)) > 50


def test_transitions_of_full_size_can_be_followed_and_undone(full, new_policies):
    batch = sample_trajectories(new_policies(full), full, 40, np.random.default_rng(2), rand_action_prob=0.2)
    states, following = (rows_of(batch.visited, rows) for rows in (batch.state_row, batch.next_row))
    assert full.legal_actions(states).gather(1, batch.actions[:, None]).all()
    after = full.step(states, batch.actions)
    assert all(torch.equal(*pair) for pair in zip(after, following, strict=True))
    moves = ~batch.is_stop
    assert torch.equal(batch.is_stop, batch.actions == STOP) and int(batch.is_stop.sum()) == 40
    legal = full.backward_mask(rows_of(following, moves))
    assert legal.gather(1, batch.undo[moves][:, None]).all()
    back, redone = full.backward_step(rows_of(following, moves), batch.undo[moves])
    assert all(torch.equal(*pair) for pair in zip(back, rows_of(states, moves), strict=True))
    assert torch.equal(redone, batch.actions[moves])
    first = torch.cat([torch.ones(1, dtype=torch.long), batch.trajectory_index.diff()]) == 1
    assert full.is_empty(states)[first].all() and not full.is_empty(following).any()
    assert torch.equal(batch.next_row[:-1][moves[:-1]], batch.state_row[1:][moves[:-1]])


@pytest.mark.parametrize(("coefficient", "rand_action_prob"), [(1.0, 0.0), (1.7, 0.0), (1.0, 0.4), (1.7, 1.0)])
def test_actions_are_those_that_the_stream_picks(small, reachable, new_policies, double, coefficient, rand_action_prob):
    """Two numbers for each trajectory and step, whether it still runs or not: explore or not, and which action."""
    policies, n = new_policies(small, scale=3.0), 30
    options = {"coefficient": coefficient, "rand_action_prob": rand_action_prob}
    batch = sample_trajectories(policies, small, n, np.random.default_rng(3), **options)
    exploited, explored = (policy_table(policies, reachable.trees, coefficient, p).tolist() for p in (0.0, 1.0))
    rows, rng = reachable.rows_of(rows_of(batch.visited, batch.state_row)), np.random.default_rng(3)
    numbers = rng.random((small.max_length, 2, n))
    step_of = [sum(1 for j in range(i) if index[j] == index[i]) for index in [batch.trajectory_index.tolist()]
               for i in range(len(index))]  # fmt: skip
    for row, action, trajectory, t in zip(
        rows, batch.actions.tolist(), batch.trajectory_index.tolist(), step_of, strict=True
    ):
        explore, number = numbers[t, :, trajectory]
        weights = (explored if explore < rand_action_prob else exploited)[row]
        index, summed = 0, weights[0]
        while summed <= number * sum(weights) * BELOW_ONE:
            index += 1
            summed += weights[index]
        assert action == index


@each("rand_action_prob", [0.0, 0.4, 1.0])
@each("coefficient", COEFFICIENTS)
def test_finished_states_follow_the_exact_distribution(small, reachable, new_policies, coefficient, rand_action_prob):
    policies = new_policies(small, scale=10.0)
    options = {"coefficient": coefficient, "rand_action_prob": rand_action_prob}
    batch = sample_trajectories(policies, small, 20_000, np.random.default_rng(6), **options)
    counts = np.bincount(reachable.rows_of(batch.terminal_states), minlength=len(reachable.plain))

    def p_value(**others):
        pf = policy_table(policies, reachable.trees, **options | others)
        exact = (reachable.visits(pf) * pf[:, STOP]).numpy()
        assert exact.sum() == pytest.approx(1.0)
        return stats.chi2.sf(*chi_square(counts, 20_000 * exact))

    assert p_value() > 1e-4
    assert p_value(rand_action_prob=0.25) < 1e-4  # what is wrong is noticed
    if rand_action_prob < 1:  # of uniform actions alone, the coefficient says nothing
        assert p_value(coefficient=1.5 * coefficient) < 1e-4


def test_same_generator_state_gives_the_same_trajectories(small, new_policies):
    policies = new_policies(small)

    def sample(rng):
        return sample_trajectories(policies, small, 32, rng, rand_action_prob=0.1)

    once, again = ((*batch.visited, *batch[1:]) for batch in (sample(np.random.default_rng(3)) for _ in range(2)))
    assert all(map(torch.equal, once, again))
    assert not torch.equal(sample(np.random.default_rng(4)).actions, once[4])
    rng = np.random.default_rng(3)
    assert torch.equal(sample(rng).actions, once[4])
    assert not torch.equal(sample(rng).actions, once[4])  # the stream has moved on


def test_what_is_drawn_leaves_torchs_random_state_alone_and_takes_no_gradient(small, new_policies):
    policies, state = new_policies(small), torch.get_rng_state()
    batch = sample_trajectories(policies, small, 4, np.random.default_rng(3))
    assert not batch.visited.fragment.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in policies.parameters())


def test_distinct_states_and_the_rows_of_all(full, wandered):
    states = concatenate([wandered(full, 60, 12), wandered(full, 60, 5)])
    unique, row = distinct(states, full)
    assert all(torch.equal(*pair) for pair in zip(rows_of(unique, row), states, strict=True))
    keys = full.keys(unique)
    assert len(keys.unique()) == len(keys) == len(full.keys(states).unique()) < len(states.fragment)


def test_taken_log_pb_is_that_of_the_state_reached_and_0_on_stops(small):
    log_pb = torch.tensor([[-0.1, -0.2, -0.3], [-0.4, -0.5, -torch.inf], [-0.7, -torch.inf, -0.9]], requires_grad=True)
    is_stop = torch.tensor([False, False, True, False, True])
    rows, undo = torch.tensor([1, 2, 2, 0, 0]), torch.tensor([1, 0, -1, 2, 1])
    index = torch.tensor([0, 0, 0, 1, 1])
    batch = Transitions(small.initial_states(3), rows, rows, undo, undo, index, is_stop)
    found = taken_log_pb(log_pb, batch)
    assert found.tolist() == pytest.approx([-0.5, -0.7, 0.0, -0.3, 0.0])
    found.sum().backward()
    assert log_pb.grad.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
