"""First losses of every objective and approach, as they were when this was written.

Seed 1, an 8x8 grid, 32 units. A change here without a reason is a defect; with one, renew the table.
"""

import pytest
import torch

from hypergrid.algorithm import train_step
from hypergrid.policies import LearnedBackward

# (objective, approach): (loss, pb_loss) of the first step, nats
FIRST_LOSSES = {
    ("tb", "uniform"): (5.714158, None),
    ("tb", "naive"): (17.551586, None),
    ("tb", "maxent"): (5.423059, None),
    ("tb", "tlm"): (14.073430, 2.621325),
    ("tb", "pessimistic"): (7.856261, 2.621325),
    ("db", "uniform"): (4.430615, None),
    ("db", "naive"): (4.966494, None),
    ("db", "maxent"): (4.507472, None),
    ("db", "tlm"): (4.810905, 2.656436),
    ("db", "pessimistic"): (4.567090, 2.656436),
    ("subtb", "uniform"): (4.899060, None),
    ("subtb", "naive"): (6.811246, None),
    ("subtb", "maxent"): (5.123890, None),
    ("subtb", "tlm"): (6.119447, 2.656436),
    ("subtb", "pessimistic"): (5.260811, 2.656436),
    ("soft_dqn", "uniform"): (0.730862, None),
    ("soft_dqn", "naive"): (1.096425, None),
    ("soft_dqn", "maxent"): (0.778466, None),
    ("soft_dqn", "tlm"): (0.994416, 2.621325),
    ("soft_dqn", "pessimistic"): (0.782522, 2.621325),
    ("munchausen_dqn", "uniform"): (0.753934, None),
    ("munchausen_dqn", "naive"): (1.108643, None),
    ("munchausen_dqn", "maxent"): (0.802753, None),
    ("munchausen_dqn", "tlm"): (1.009410, 2.621325),
    ("munchausen_dqn", "pessimistic"): (0.802914, 2.621325),
}


def first_losses(agent):
    """Of an agent whose P_B, target included, is far from uniform, so that the approaches differ."""
    for backward in (agent.policies.backward, agent.policies.backward_target):
        if isinstance(backward, LearnedBackward):
            with torch.no_grad():
                backward.head.bias.add_(torch.tensor([1.0, -1.0]))
    losses = train_step(agent)
    return losses["loss"], losses["pb_loss"]


def test_first_losses(new_agent, objective, approach):
    agent = new_agent(objective, approach, zero_initialisation=False, backward_learning_rate=0.05)
    expected = FIRST_LOSSES[objective, approach]
    for found, value in zip(first_losses(agent), expected, strict=True):
        assert found == (None if value is None else pytest.approx(value, rel=1e-4))
