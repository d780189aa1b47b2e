"""The approaches table and the pure functions beside it, each against a plain formula."""

import copy
import math

import numpy as np
import pytest
import torch

from hypergrid.common.backward_loss import (
    APPROACHES,
    RecentBatches,
    ema_update,
    maxent_log_pb,
    maxent_residual,
    trajectory_negative_log_likelihood,
    uniform_deviation,
    uniform_log_pb,
)

LEGAL = torch.tensor([[True, True, False], [False, False, True], [True, True, True], [False, False, False]])


def test_approaches_are_the_papers_table():
    table = {
        name: (row.policy, row.loss, row.batch, row.scored, row.forward_gradient_reaches_backward)
        for name, row in APPROACHES.items()
    }
    assert table == {
        "uniform": ("uniform", None, None, "fixed", False),
        "naive": ("learned", None, None, "online", True),
        "maxent": ("maxent", "maxent_residual", "current", "fixed", False),
        "tlm": ("learned", "likelihood", "current", "target", False),
        "pessimistic": ("learned", "likelihood", "recent", "online_detached", False),
    }
    assert [name for name, row in APPROACHES.items() if row.decays_learning_rate] == ["tlm"]
    assert all(name == row.name for name, row in APPROACHES.items())


def test_trajectory_negative_log_likelihood_is_the_mean_over_trajectories_of_sums():
    trajectories = [[-0.5, -1.0, 0.0], [-2.0, 0.0], [0.0]]
    flat = torch.tensor([value for trajectory in trajectories for value in trajectory])
    expected = np.mean([-sum(trajectory) for trajectory in trajectories])
    assert trajectory_negative_log_likelihood(flat, 3).item() == pytest.approx(expected)


def test_uniform_log_pb():
    expected = [
        [-math.log(2), -math.log(2), -math.inf],
        [-math.inf, -math.inf, 0.0],
        [-math.log(3)] * 3,
        [-math.inf] * 3,
    ]
    torch.testing.assert_close(uniform_log_pb(LEGAL), torch.tensor(expected))


def test_maxent_log_pb_ignores_illegal_parents_and_constants():
    log_n = torch.tensor([1.0, 3.0, 9.0]).log().expand(4, 3)
    expected = torch.tensor([[1 / 4, 3 / 4, 0], [0, 0, 1], [1 / 13, 3 / 13, 9 / 13], [0, 0, 0]])
    torch.testing.assert_close(maxent_log_pb(log_n, LEGAL).exp(), expected)
    torch.testing.assert_close(maxent_log_pb(log_n + 5, LEGAL).exp(), expected)


def test_maxent_residual_is_zero_at_the_ratio_of_counts_alone():
    child, parent = torch.tensor([6.0, 4.0]).log(), torch.tensor([3.0, 1.0]).log()
    torch.testing.assert_close(maxent_residual(child, parent, parent - child), torch.zeros(2))
    torch.testing.assert_close(maxent_residual(child, parent, parent - child + 0.1), torch.full((2,), 0.1))


def test_uniform_deviation_by_loop():
    log_pb = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).masked_fill(~LEGAL, -torch.inf)
    log_pb = log_pb.log_softmax(-1).nan_to_num(nan=-torch.inf)
    differences = [
        abs(log_pb[i, j].item() + math.log(LEGAL[i].sum().item())) for i in range(4) for j in range(3) if LEGAL[i, j]
    ]
    assert uniform_deviation(log_pb, LEGAL).item() == pytest.approx(np.mean(differences), rel=1e-6)


def test_uniform_deviation_of_uniform_and_of_initial_states_is_exactly_zero():
    assert uniform_deviation(uniform_log_pb(LEGAL), LEGAL).item() == 0.0
    initial = torch.zeros(2, 3, dtype=torch.bool)
    assert uniform_deviation(uniform_log_pb(initial), initial).item() == 0.0


def test_ema_decay_is_the_weight_of_the_old():
    old, new = [torch.tensor([1.0, 2.0]), torch.tensor(4.0)], [torch.tensor([5.0, 6.0]), torch.tensor(8.0)]
    target = copy.deepcopy(old)
    ema_update(iter(target), iter(new), decay=0.75)
    for moved, before, online in zip(target, old, new, strict=True):
        torch.testing.assert_close(moved, 0.75 * before + 0.25 * online)
    ema_update(target, new, decay=0.0)
    assert all(torch.equal(moved, online) for moved, online in zip(target, new, strict=True))
    kept = copy.deepcopy(target)
    ema_update(target, old, decay=1.0)
    assert all(torch.equal(moved, before) for moved, before in zip(target, kept, strict=True))
    ema_update([], [], decay=0.5)


def test_recent_batches_keep_the_last_twenty_and_draw_uniformly():
    recent, rng = RecentBatches(), np.random.default_rng(4)
    with pytest.raises(IndexError):
        recent.draw(rng)
    for number in range(25):
        recent.push(number)
    counts = np.bincount([recent.draw(rng) for _ in range(20_000)], minlength=25)
    assert counts[:5].sum() == 0
    assert np.abs(counts[5:] / 20_000 - 1 / 20).max() < 0.008  # five standard deviations
    restored = RecentBatches()
    restored.load_state_dict(recent.state_dict())
    restored.push(25)
    assert restored.state_dict() == list(range(6, 26))
