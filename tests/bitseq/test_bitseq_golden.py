"""First losses of every objective and approach, as they were when this was written.

Seed 1, 256 strings, 16 features, dropout on. A change here without a reason is a defect; with one, renew the table.
"""

import pytest
import torch

from bitseq import linear
from bitseq.algorithm import train_step
from bitseq.policies import LearnedBackward

# (objective, approach): (loss, pb_loss) of the first step, nats
FIRST_LOSSES = {
    ("tb", "uniform"): (1.849321, None),
    ("tb", "naive"): (6.335123, None),
    ("tb", "maxent"): (1.849321, None),
    ("tb", "tlm"): (3.855767, 6.348994),
    ("tb", "pessimistic"): (1.667496, 6.348994),
    ("db", "uniform"): (11.377096, None),
    ("db", "naive"): (16.960032, None),
    ("db", "maxent"): (11.377096, None),
    ("db", "tlm"): (18.790165, 6.487361),
    ("db", "pessimistic"): (14.387178, 6.487361),
    ("subtb", "uniform"): (3.568276, None),
    ("subtb", "naive"): (5.651590, None),
    ("subtb", "maxent"): (3.568276, None),
    ("subtb", "tlm"): (6.049001, 6.487361),
    ("subtb", "pessimistic"): (4.589129, 6.487361),
    ("soft_dqn", "uniform"): (16.236551, None),
    ("soft_dqn", "naive"): (19.490320, None),
    ("soft_dqn", "maxent"): (16.236551, None),
    ("soft_dqn", "tlm"): (19.033134, 6.348994),
    ("soft_dqn", "pessimistic"): (16.298904, 6.348994),
    ("munchausen_dqn", "uniform"): (17.352676, None),
    ("munchausen_dqn", "naive"): (20.618649, None),
    ("munchausen_dqn", "maxent"): (17.352676, None),
    ("munchausen_dqn", "tlm"): (20.255314, 6.463338),
    ("munchausen_dqn", "pessimistic"): (17.720331, 6.463338),
}


def first_losses(agent):
    """Of an agent whose P_B, target included, is far from uniform, so that the approaches differ."""
    for backward in (agent.policies.backward, agent.policies.backward_target):
        if isinstance(backward, LearnedBackward):
            with torch.no_grad():
                backward.head.bias.add_(torch.tensor([1.5, 0.5, -0.5, -1.5]))
    losses = train_step(agent)
    return losses["loss"], losses["pb_loss"]


@pytest.mark.parametrize("library", ["this machine's", "torch's own"])
def test_first_losses(new_agent, objective, approach, library, monkeypatch):
    if library == "torch's own":
        monkeypatch.setattr(linear, "onednn_is_faster", lambda: False)
    agent = new_agent(objective, approach, uniform_initialisation=False, backward_learning_rate=0.05)
    expected = FIRST_LOSSES[objective, approach]
    for found, value in zip(first_losses(agent), expected, strict=True):
        assert found == (None if value is None else pytest.approx(value, rel=1e-4))
