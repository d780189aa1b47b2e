"""Hypergrid experiments on torchgfn: five objectives, five backward approaches (Gritsaev et al. 2025)."""

from pathlib import Path


def load_estimators(run_dir: str | Path):
    """P_F, P_B and log F of a run folder as torchgfn estimators; see ``hypergrid.torchgfn.estimators``."""
    from hypergrid.torchgfn.estimators import load_estimators as load  # torchgfn takes seconds to import

    return load(run_dir)


def load_environment(run_dir: str | Path):
    """The torchgfn environment of a run folder; see ``hypergrid.torchgfn.estimators``."""
    from hypergrid.torchgfn.estimators import load_environment as load

    return load(run_dir)
