"""The grid against brute force: indices, masks, levels, path counts, reward, and its closed-form P_B."""

import math
from fractions import Fraction

import pytest
import torch
from gfn.gym.hypergrid import OriginalReward

from hypergrid.environment import ExactGrid, ExactReward, GridEnvironment
from hypergrid.policies import maxent_grid_log_pb, uniform_grid_log_pb

GRIDS = [(1, 5), (2, 4), (3, 3)]
REWARDS = {"standard": (1e-3, 0.5, 2.0), "hard": (1e-4, 1.0, 3.0)}


@pytest.fixture(params=GRIDS, ids=lambda size: "x".join([str(size[1])] * size[0]))
def environment(request, grid):
    return grid(*request.param)


@pytest.fixture(scope="module", params=list(REWARDS))
def paper_grid(request):
    """The name and the 20^4 grid of each of the paper's two rewards."""
    return request.param, GridEnvironment(4, 20, *REWARDS[request.param])


def all_states(environment):
    """(S, D) every state, the last coordinate fastest, by plain loops."""
    states = [[]]
    for _ in range(environment.ndim):
        states = [[*state, value] for state in states for value in range(environment.height)]
    return torch.tensor(states)


def counts_by_recursion(environment):
    """(S,) number of paths from s_0, by adding up those of the parents."""
    counts = [1] + [0] * (environment.n_states - 1)
    states = all_states(environment).tolist()
    where = {tuple(state): index for index, state in enumerate(states)}
    for index, state in enumerate(states[1:], start=1):
        for d in range(environment.ndim):
            if state[d] > 0:
                counts[index] += counts[where[(*state[:d], state[d] - 1, *state[d + 1 :])]]
    return counts


def test_index_and_states_are_inverse_and_torchgfns(environment):
    states, index = all_states(environment), torch.arange(environment.n_states)
    assert torch.equal(environment.index(states), index)
    assert torch.equal(environment.states_at(index), states)
    canonical = environment.gfn.get_states_indices(environment.gfn.states_from_tensor(states))
    assert torch.equal(canonical, index)


def test_masks_are_the_legal_moves(environment):
    states = all_states(environment)
    forward, backward = environment.forward_mask(states), environment.backward_mask(states)
    for row, state in enumerate(states.tolist()):
        assert forward[row].tolist() == [value + 1 < environment.height for value in state] + [True]
        assert backward[row].tolist() == [value - 1 >= 0 for value in state]


def test_masks_are_torchgfns(environment):
    states = all_states(environment)
    theirs = environment.gfn.states_from_tensor(states)
    assert torch.equal(environment.forward_mask(states), theirs.forward_masks)
    assert torch.equal(environment.backward_mask(states), theirs.backward_masks)


def test_step_adds_one_and_stop_leaves_the_state(environment):
    state = torch.ones(environment.ndim + 1, environment.ndim, dtype=torch.long)
    following = environment.step(state, torch.arange(environment.ndim + 1))
    assert torch.equal(following[:-1] - state[:-1], torch.eye(environment.ndim, dtype=torch.long))
    assert torch.equal(following[-1], state[-1])


def test_levels_are_the_states_by_coordinate_sum(environment):
    states, levels = all_states(environment), environment.levels()
    assert len(levels) == environment.ndim * (environment.height - 1) + 1 == environment.max_length
    assert sorted(index for level in levels for index in level) == list(range(environment.n_states))
    for total, level in enumerate(levels):
        assert set(states[torch.as_tensor(level)].sum(-1).tolist()) == {total}


def test_maxent_backward_policy_is_the_ratio_of_path_counts(environment):
    counts, states = counts_by_recursion(environment), all_states(environment)
    log_pb = maxent_grid_log_pb(states)
    for index, state in enumerate(states.tolist()):
        for d in range(environment.ndim):
            if state[d] == 0:
                assert log_pb[index, d] == -torch.inf
            else:
                parent = index - environment.height ** (environment.ndim - 1 - d)
                assert log_pb[index, d].item() == pytest.approx(math.log(counts[parent] / counts[index]), abs=1e-5)


def test_uniform_backward_policy_counts_the_parents(environment):
    states = all_states(environment)
    log_pb = uniform_grid_log_pb(states)
    for index, state in enumerate(states.tolist()):
        parents = sum(value > 0 for value in state)
        expected = [-math.log(parents) if value > 0 else -math.inf for value in state]
        assert log_pb[index].tolist() == pytest.approx(expected)


def test_exact_distribution_is_torchgfns(environment):
    theirs = environment.gfn.true_dist()
    assert torch.as_tensor(environment.true_distribution).sum().item() == pytest.approx(1.0)
    torch.testing.assert_close(torch.as_tensor(environment.true_distribution).float(), theirs.float())


def test_reward_of_the_paper_by_hand(paper_grid):
    name, environment = paper_grid
    base, shell, mode = REWARDS[name]
    by_state = {  # on one axis, 0 is outer (a = 0.5), 3 is in the band (a = 0.34), 7 is inner (a = 0.13)
        (0, 0, 0, 0): base + shell,
        (3, 3, 3, 3): base + shell + mode,
        (3, 16, 2, 17): base + shell + mode,
        (3, 3, 3, 1): base + shell,
        (0, 0, 0, 7): base,
        (7, 7, 7, 7): base,
    }
    found = environment.log_reward(torch.tensor(list(by_state))).exp()
    assert found.tolist() == pytest.approx(list(by_state.values()), rel=1e-5)


def test_partition_function_and_cell_counts_of_the_paper(paper_grid):
    name, environment = paper_grid
    z = {"standard": 5672.0, "hard": 10784.0}[name]
    assert math.exp(environment.log_z) == pytest.approx(z, rel=1e-6)
    assert environment.log_z == pytest.approx({"standard": 8.6433, "hard": 9.2858}[name], abs=5e-5)
    base, shell, mode = REWARDS[name]
    rewards = environment.log_rewards.exp()
    counts = [
        int(torch.isclose(rewards, torch.tensor(level)).sum()) for level in (base, base + shell, base + shell + mode)
    ]
    assert counts == [150_000, 9_744, 256]


def levels_by_fractions(height):
    """(H,) whether a > 1/4, and whether 3/10 < a < 4/10, for s = 0..H-1, as they are."""
    distances = [abs(Fraction(value, height - 1) - Fraction(1, 2)) for value in range(height)]
    return [[a > Fraction(1, 4), Fraction(3, 10) < a < Fraction(4, 10)] for a in distances]


def test_the_reward_is_the_formulas_in_exact_arithmetic_for_every_height():
    base, shell, mode = REWARDS["standard"]
    for height in (*range(3, 130), 201, 401, 1001):
        found = ExactReward(height, 1, R0=base, R1=shell, R2=mode)(torch.arange(height).unsqueeze(1))
        expected = [base + outer * shell + inner * mode for outer, inner in levels_by_fractions(height)]
        assert found.tolist() == pytest.approx(expected), height
        assert torch.equal(found, found.flip(0)), height  # mirror cells


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reward", REWARDS)
def test_the_papers_grid_has_torchgfns_rewards_bit_for_bit(reward, dtype):
    levels = dict(zip(("R0", "R1", "R2"), REWARDS[reward], strict=True))
    states = torch.cartesian_prod(*[torch.arange(20)] * 4)
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(ExactReward(20, 4, **levels)(states), OriginalReward(20, 4, **levels)(states))
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_torchgfn_environment_has_the_exact_reward_everywhere():
    """At H = 11 torchgfn gives cell 9 the modes' reward, and not its mirror cell 1."""
    grid = ExactGrid(2, 11, R0=1e-3, R1=0.5, R2=2.0)
    is_mode = torch.tensor([inner for _, inner in levels_by_fractions(11)])
    assert not is_mode.any()
    rewards = grid.reward(grid.all_states)
    assert rewards.max().item() == pytest.approx(0.501)
    assert grid.log_partition() == pytest.approx(math.log(rewards.sum().item()))
    torch.testing.assert_close(grid.true_dist(), rewards / rewards.sum())
    assert OriginalReward(11, 2, R0=1e-3, R1=0.5, R2=2.0)(torch.tensor([[9, 9]])).item() == pytest.approx(2.501)
    assert GridEnvironment(2, 11, 1e-3, 0.5, 2.0).log_z == grid.log_partition()


def test_a_grid_too_large_to_list_has_the_same_rewards_modes_and_z(monkeypatch):
    monkeypatch.setattr("hypergrid.environment.MAX_ENUMERATED", 0)
    for ndim, height in ((1, 20), (3, 8), (2, 20), (2, 11)):
        large, states = (
            GridEnvironment(ndim, height, *REWARDS["hard"]),
            torch.cartesian_prod(*[torch.arange(height)] * ndim),
        )
        states = states.reshape(-1, ndim)
        monkeypatch.undo()
        listed = GridEnvironment(ndim, height, *REWARDS["hard"])
        monkeypatch.setattr("hypergrid.environment.MAX_ENUMERATED", 0)
        assert listed.enumerated and not large.enumerated and not hasattr(large, "log_rewards")
        assert torch.equal(large.log_reward(states), listed.log_reward(states))
        assert torch.equal(large.mode(states), listed.mode(states))
        assert large.log_z == pytest.approx(listed.log_rewards.double().exp().sum().log().item(), abs=1e-6)


def test_modes_are_numbered_by_their_corners():
    grid = GridEnvironment(2, 20, *REWARDS["standard"])
    corners = {(x, y): (x > 9) + 2 * (y > 9) for x in (2, 3, 16, 17) for y in (2, 3, 16, 17)}
    for state in all_states(grid).tolist():
        assert grid.mode(torch.tensor([state])).item() == corners.get(tuple(state), -1)
