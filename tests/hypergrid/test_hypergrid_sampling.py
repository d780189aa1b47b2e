"""The compiled sampler: complete trajectories inside the grid, distributed as P_F says."""

import numpy as np
import torch
from each import each
from scipy import stats

from hypergrid import evaluation
from hypergrid.sampling import Transitions, sample_trajectories, taken_log_pb

COEFFICIENTS = (1.0, 1 / 0.85)


def test_transitions_are_complete_trajectories_inside_the_grid(grid, new_policies):
    environment, policies = grid(3, 4), new_policies(3, 4, scale=5.0)
    batch = sample_trajectories(policies, environment, 200, np.random.default_rng(1))
    assert batch.n_trajectories == 200
    assert len(torch.unique(batch.visited, dim=0)) == len(batch.visited)
    assert torch.equal(torch.unique(batch.state_row), torch.arange(len(batch.visited)))
    assert batch.visited.min() >= 0 and batch.visited.max() < environment.height
    assert torch.equal(batch.is_stop, batch.actions == environment.stop_action)
    assert environment.forward_mask(batch.states).gather(1, batch.actions[:, None]).all()
    following = environment.step(batch.states, batch.actions)
    assert torch.equal(batch.visited[batch.next_row], following)
    for n in range(200):
        where = torch.nonzero(batch.trajectory_index == n).squeeze(1)
        assert torch.equal(where, torch.arange(where[0], where[-1] + 1))  # contiguous
        assert len(where) <= environment.max_length
        assert batch.states[where[0]].sum() == 0
        assert torch.equal(batch.states[where[1:]], following[where[:-1]])
        assert batch.is_stop[where].tolist() == [False] * (len(where) - 1) + [True]
        assert torch.equal(batch.terminal_states[n], batch.states[where[-1]])


@each("n_layers", [1, 2, 3])
@each("coefficient", COEFFICIENTS)
def test_terminal_states_follow_the_exact_distribution(grid, new_policies, n_layers, coefficient):
    environment, policies = grid(2, 4), new_policies(2, 4, scale=8.0, seed=n_layers, n_layers=n_layers)
    batch = sample_trajectories(policies, environment, 20_000, np.random.default_rng(6), coefficient)
    counts = np.bincount(environment.index(batch.terminal_states), minlength=environment.n_states)
    probabilities = evaluation.forward_probabilities(policies, environment, coefficient)
    expected = evaluation.terminal_distribution(probabilities, environment)
    assert stats.chisquare(counts, 20_000 * expected / expected.sum()).pvalue > 1e-4
    if coefficient > 1:  # and the test would notice a coefficient that is ignored
        wrong = evaluation.terminal_distribution(evaluation.forward_probabilities(policies, environment), environment)
        assert stats.chisquare(counts, 20_000 * wrong / wrong.sum()).pvalue < 1e-4


@each("n_layers", [1, 2, 3])
@each("ndim,height", [(2, 4), (3, 3)])
def test_actions_of_every_state_follow_the_network(grid, new_policies, ndim, height, n_layers):
    """Chi-square of the actions taken in each state, boundary included, against the softmax of the forward head."""
    environment, policies = grid(ndim, height), new_policies(ndim, height, scale=8.0, n_layers=n_layers)
    with torch.no_grad():
        policies.forward_head.bias[-1] -= 2  # fewer stops, so that every state is visited
    batch = sample_trajectories(policies, environment, 20_000, np.random.default_rng(9))
    states = environment.states_at(torch.arange(environment.n_states))
    with torch.no_grad():
        probabilities = policies.forward_logits(states, policies.trunk(states)).double().softmax(-1).numpy()
    counts = np.zeros((environment.n_states, ndim + 1))
    np.add.at(counts, (environment.index(batch.states).numpy(), batch.actions.numpy()), 1)
    assert not counts[~environment.forward_mask(states).numpy()].any()
    statistic, degrees, tested = 0.0, 0, 0
    for observed, probability in zip(counts, probabilities, strict=True):
        expected = observed.sum() * probability[probability > 0]
        if len(expected) > 1 and expected.min() > 5:
            statistic += ((observed[probability > 0] - expected) ** 2 / expected).sum()
            degrees, tested = degrees + len(expected) - 1, tested + 1
    assert tested > environment.n_states / 2
    assert stats.chi2.sf(statistic, degrees) > 1e-4


@each("n_layers", [1, 2, 3])
@each("coefficient", COEFFICIENTS)
def test_the_compiled_rollout_walks_as_the_readable_one(double, grid, new_policies, n_layers, coefficient):
    """In float64 a draw that rounding decides does not happen: the same random numbers, the same trajectories."""
    environment = grid(3, 5, dtype=torch.float64)
    policies = new_policies(3, 5, scale=8.0, n_layers=n_layers)
    with torch.no_grad():
        policies.forward_head.bias[-1] -= 3  # fewer stops
    batches, streams = [], [np.random.default_rng(2) for _ in range(2)]
    for kernels, rng in zip(("torch", "compiled"), streams, strict=True):
        batches.append(sample_trajectories(policies, environment, 100, rng, coefficient, kernels))
    assert all(torch.equal(readable, compiled) for readable, compiled in zip(*batches, strict=True))
    assert len(batches[0].actions) > 300
    assert streams[0].random() == streams[1].random()  # both took one number a transition


def test_same_generator_state_gives_the_same_trajectories(grid, new_policies):
    environment, policies = grid(2, 8), new_policies(2, 8)

    def sample(seed):
        return sample_trajectories(policies, environment, 32, np.random.default_rng(seed))

    assert all(torch.equal(a, b) for a, b in zip(sample(3), sample(3), strict=True))
    assert len(sample(3).actions) != len(sample(4).actions)
    rng = np.random.default_rng(3)
    first, second = (sample_trajectories(policies, environment, 32, rng) for _ in range(2))
    assert len(first.actions) != len(second.actions)  # the stream has moved on


def test_an_action_with_no_probability_is_never_taken(grid, new_policies):
    environment, policies = grid(2, 4), new_policies(2, 4)
    with torch.no_grad():
        policies.forward_head.bias.copy_(torch.tensor([-1000.0, 0.0, -500.0]))
    batch = sample_trajectories(policies, environment, 50, np.random.default_rng(1))
    assert batch.actions.tolist() == [1, 1, 1, 2] * 50  # up to the border, where stop is all that is left
    assert torch.equal(batch.terminal_states, torch.tensor([[0, 3]]).expand(50, 2))


def test_taken_log_pb_is_read_at_the_child_and_0_on_stops():
    visited = torch.tensor([[0, 0], [0, 1], [1, 1]])
    rows, following, actions = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 2, 0]), torch.tensor([1, 0, 2, 2])
    batch = Transitions(visited, rows, following, actions, torch.tensor([0, 0, 0, 1]), actions == 2)
    log_pb = torch.tensor([[-9.0, -9.0], [-9.0, -0.1], [-0.2, -9.0]])
    torch.testing.assert_close(taken_log_pb(log_pb, batch), torch.tensor([-0.1, -0.2, 0.0, 0.0]))
