"""Hypergrid experiments on torchgfn: five objectives, five backward approaches (Gritsaev et al. 2025).

For torchgfn programs: ``BackwardTraining``, ``load_estimators`` and ``load_environment``.
"""

import importlib
from typing import Any

_TORCHGFN = {
    "BackwardTraining": "hypergrid.torchgfn.backward_training",
    "load_environment": "hypergrid.torchgfn.estimators",
    "load_estimators": "hypergrid.torchgfn.estimators",
}


def __getattr__(name: str) -> Any:
    """Import these names when they are asked for: torchgfn takes seconds."""
    if name not in _TORCHGFN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_TORCHGFN[name]), name)
