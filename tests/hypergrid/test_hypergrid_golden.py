"""First losses of every objective and approach, as they were when this was written.

Seed 1, an 8x8 grid, 32 units, P_B not uniform at the start and a large learning rate of P_B, so that the approaches
differ. A change here without a reason is a defect; with one, the table is what the failing test prints.
"""

import pytest

from hypergrid.algorithm import train_step

# (objective, approach): (loss, pb_loss) of the first step, nats
FIRST_LOSSES = {
    ("tb", "uniform"): (5.714158, None),
    ("tb", "naive"): (5.707014, None),
    ("tb", "maxent"): (5.423059, None),
    ("tb", "tlm"): (5.326959, 1.471447),
    ("tb", "pessimistic"): (5.162494, 1.471447),
    ("db", "uniform"): (4.430615, None),
    ("db", "naive"): (4.430747, None),
    ("db", "maxent"): (4.507472, None),
    ("db", "tlm"): (4.46468, 1.474586),
    ("db", "pessimistic"): (4.526185, 1.474586),
    ("subtb", "uniform"): (4.89906, None),
    ("subtb", "naive"): (4.901155, None),
    ("subtb", "maxent"): (5.12389, None),
    ("subtb", "tlm"): (4.961809, 1.474586),
    ("subtb", "pessimistic"): (5.05246, 1.474586),
    ("soft_dqn", "uniform"): (0.7308623, None),
    ("soft_dqn", "naive"): (0.7306306, None),
    ("soft_dqn", "maxent"): (0.7784657, None),
    ("soft_dqn", "tlm"): (0.7367153, 1.471447),
    ("soft_dqn", "pessimistic"): (0.7650841, 1.471447),
    ("munchausen_dqn", "uniform"): (0.7539336, None),
    ("munchausen_dqn", "naive"): (0.7537566, None),
    ("munchausen_dqn", "maxent"): (0.802753, None),
    ("munchausen_dqn", "tlm"): (0.761504, 1.471447),
    ("munchausen_dqn", "pessimistic"): (0.7915699, 1.471447),
}


def test_first_losses(new_agent, objective, approach):
    agent = new_agent(objective, approach, zero_initialisation=False, backward_learning_rate=0.05)
    losses = train_step(agent)
    loss, pb_loss = FIRST_LOSSES[objective, approach]
    assert losses["loss"] == pytest.approx(loss, rel=1e-4)
    assert losses["pb_loss"] == (None if pb_loss is None else pytest.approx(pb_loss, rel=1e-4))


def test_the_approaches_differ():
    """Otherwise the table would not tell one from another."""
    for objective in {objective for objective, _ in FIRST_LOSSES}:
        losses = sorted(loss for (name, _), (loss, _) in FIRST_LOSSES.items() if name == objective)
        assert all(b - a > 1e-4 * b for a, b in zip(losses, losses[1:], strict=False))
