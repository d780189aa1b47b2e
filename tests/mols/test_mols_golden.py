"""Every objective and approach gives the losses that golden.json has: results of this version stay what they are.

A change here without a reason is a defect; with one, the objective's results version is raised and its runs renewed.
"""

import json
from pathlib import Path

import pytest
from mols_golden_run import ATOM_STEPS, golden_run

from mols import settings
from mols.backward_loss import APPROACHES

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))


def test_there_is_a_run_of_every_objective_and_approach():
    kept = [(objective, approach) for objective, of in GOLDEN.items() for approach in of["runs"]]
    assert kept == [(objective, approach) for objective in settings.OBJECTIVES for approach in APPROACHES]


def test_losses_are_those_that_are_kept(algo, approach):
    kept = GOLDEN[algo]["runs"][approach]
    for step, (found, expected) in enumerate(zip(golden_run(algo, approach), kept, strict=True), 1):
        assert found == [None if value is None else pytest.approx(value, rel=1e-6) for value in expected], step


def test_no_two_approaches_have_the_same_losses():
    """In either task: what sets them apart shows in the runs."""
    for kept in GOLDEN.values():
        for part in (slice(-ATOM_STEPS), slice(-ATOM_STEPS, None)):
            losses = [tuple(loss for loss, _ in curve[part]) for curve in kept["runs"].values()]
            assert len(set(losses)) == len(APPROACHES)
