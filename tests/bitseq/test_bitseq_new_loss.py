"""A loss of P_B is found by its name in the table of losses, so that a new approach needs no edit elsewhere."""

from dataclasses import replace

import pytest

from bitseq.common.algorithm import update_backward
from bitseq.common.backward_loss import APPROACHES, LOSSES, trajectory_negative_log_likelihood


@pytest.mark.parametrize("batch", ["current", "recent"])
def test_a_new_loss_needs_its_name_alone(new_agent, monkeypatch, batch):
    usual = new_agent("tb", "tlm", dropout=0)
    expected = usual.backward_loss(usual.sample()).item()
    monkeypatch.setitem(LOSSES, "tripled", lambda *given: 3 * trajectory_negative_log_likelihood(*given))
    monkeypatch.setitem(APPROACHES, "tlm", replace(APPROACHES["tlm"], loss="tripled", batch=batch))
    agent = new_agent("tb", "tlm", dropout=0)
    sampled = agent.sample()
    assert agent.backward_loss(sampled).item() == pytest.approx(3 * expected, rel=1e-6)
    assert update_backward(agent, sampled) == pytest.approx(3 * expected, rel=1e-6)
    assert agent.backward_loss(sampled).item() != pytest.approx(3 * expected, rel=1e-6)  # P_B has moved
