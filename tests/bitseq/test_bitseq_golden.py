"""The curves of golden.json: what a run computes is what it computed when its results were made.

Where they differ by more than rounding, results of that objective do not compare with earlier ones.
"""

import pytest
from bitseq_golden_run import golden_run, read

from bitseq import transformer
from bitseq.algorithm import train_step
from bitseq.backward_loss import APPROACHES
from bitseq.settings import OBJECTIVES


def test_golden_runs(objective, approach):
    expected = read()[objective]["runs"][approach]
    found = golden_run(objective, approach)
    assert len(found) == len(expected)
    for step, (values, wanted) in enumerate(zip(found, expected, strict=True), start=1):
        for value, golden in zip(values, wanted, strict=True):
            assert value == (None if golden is None else pytest.approx(golden, rel=1e-6)), f"{objective}, step {step}"


def test_there_is_a_golden_run_of_everything():
    golden = read()
    assert list(golden) == list(OBJECTIVES)
    assert all(list(of_objective["runs"]) == list(APPROACHES) for of_objective in golden.values())


def test_first_losses_without_dropout_are_those_of_torchs_layers(new_agent, objective, approach, monkeypatch):
    """What the golden runs show of torch's layers is so of the compiled ones, in float32."""
    options = {"dropout": 0, "uniform_initialisation": False, "backward_learning_rate": 0.05}
    found = train_step(new_agent(objective, approach, **options))
    monkeypatch.setattr(transformer, "is_compiled", lambda *_: False)
    expected = train_step(new_agent(objective, approach, **options))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value == (None if expected[name] is None else pytest.approx(expected[name], rel=1e-4))
