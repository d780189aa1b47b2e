"""First losses of every objective and approach, as they were when this was written.

Seed 1, 256 strings, 16 features, dropout on. A change here without a reason is a defect; with one, renew the table.
"""

import pytest
import torch

from bitseq import transformer
from bitseq.algorithm import train_step
from bitseq.policies import LearnedBackward

# (objective, approach): (loss, pb_loss) of the first step, nats
FIRST_LOSSES = {
    ("tb", "uniform"): (1.422155, None),
    ("tb", "naive"): (1.764550, None),
    ("tb", "maxent"): (1.422155, None),
    ("tb", "tlm"): (1.711764, 3.563775),
    ("tb", "pessimistic"): (1.776669, 3.563775),
    ("db", "uniform"): (12.976122, None),
    ("db", "naive"): (14.076550, None),
    ("db", "maxent"): (12.976122, None),
    ("db", "tlm"): (13.778616, 4.262207),
    ("db", "pessimistic"): (13.554616, 4.262207),
    ("subtb", "uniform"): (4.101299, None),
    ("subtb", "naive"): (4.906632, None),
    ("subtb", "maxent"): (4.101299, None),
    ("subtb", "tlm"): (4.465219, 4.262207),
    ("subtb", "pessimistic"): (4.314870, 4.262207),
    ("soft_dqn", "uniform"): (14.995287, None),
    ("soft_dqn", "naive"): (15.368751, None),
    ("soft_dqn", "maxent"): (14.995287, None),
    ("soft_dqn", "tlm"): (15.186996, 3.563775),
    ("soft_dqn", "pessimistic"): (15.145453, 3.563775),
    ("munchausen_dqn", "uniform"): (14.805404, None),
    ("munchausen_dqn", "naive"): (15.615815, None),
    ("munchausen_dqn", "maxent"): (14.805404, None),
    ("munchausen_dqn", "tlm"): (15.397950, 3.723800),
    ("munchausen_dqn", "pessimistic"): (14.505170, 3.723800),
}


def first_losses(agent):
    """Of an agent whose P_B, target included, is far from uniform, so that the approaches differ."""
    for backward in (agent.policies.backward, agent.policies.backward_target):
        if isinstance(backward, LearnedBackward):
            with torch.no_grad():
                backward.head.bias.add_(torch.tensor([1.5, 0.5, -0.5, -1.5]))
    losses = train_step(agent)
    return losses["loss"], losses["pb_loss"]


def test_first_losses(new_agent, objective, approach):
    agent = new_agent(objective, approach, uniform_initialisation=False, backward_learning_rate=0.05)
    expected = FIRST_LOSSES[objective, approach]
    for found, value in zip(first_losses(agent), expected, strict=True):
        assert found == (None if value is None else pytest.approx(value, rel=1e-4))


def test_first_losses_without_dropout_are_those_of_torchs_layers(new_agent, objective, approach, monkeypatch):
    options = {"dropout": 0, "uniform_initialisation": False, "backward_learning_rate": 0.05}
    found = first_losses(new_agent(objective, approach, **options))
    monkeypatch.setattr(transformer, "is_compiled", lambda *_: False)
    expected = first_losses(new_agent(objective, approach, **options))
    assert found == (pytest.approx(expected[0], rel=1e-4), expected[1] and pytest.approx(expected[1], rel=1e-4))
