"""Golden runs of every objective and approach: what is computed changes only with its results version."""

import pytest
from bitseq_golden_run import golden_run
from each import each_approach
from golden import require_unchanged

from bitseq.common.algorithm import train_step


@each_approach
def test_what_is_computed_is_unchanged(objective, approach):
    require_unchanged("bitseq", objective, approach, golden_run(objective, approach))


@each_approach
def test_first_losses_without_dropout_are_those_of_torchs_layers(new_agent, objective, approach):
    """What the golden runs show of torch's layers is so of the compiled ones, in float32."""
    options = {"dropout": 0, "uniform_initialisation": False, "backward_learning_rate": 0.05}
    found = train_step(new_agent(objective, approach, kernels="compiled", **options))
    expected = train_step(new_agent(objective, approach, kernels="torch", **options))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value == (None if expected[name] is None else pytest.approx(expected[name], rel=1e-4))
