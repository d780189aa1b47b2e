"""Golden runs of every objective and approach: what is computed changes only with its results version."""

from each import each, each_approach
from golden import require_unchanged, stored
from mols_golden_run import ATOM_STEPS, golden_run

from mols.common.backward_loss import APPROACHES


@each_approach
def test_what_is_computed_is_unchanged(algo, approach):
    require_unchanged("mols", algo, approach, golden_run(algo, approach))


@each("approach", ["naive", "tlm"])
def test_the_compiled_layers_compute_the_same(algo, approach):
    """In float64 auto is torch, which is what the golden runs are."""
    require_unchanged("mols", algo, approach, golden_run(algo, approach, kernels="compiled"))


def test_no_two_approaches_have_the_same_losses():
    """In either task: what sets them apart shows in the runs."""
    for kept in stored("mols").values():
        for part in (slice(-ATOM_STEPS), slice(-ATOM_STEPS, None)):
            losses = [tuple(loss for loss, _ in curve[part]) for curve in kept["runs"].values()]
            assert len(set(losses)) == len(APPROACHES)
