"""Arrays out of a pickle, and nothing but arrays: an unpickler that knows the three names that make one up.

A pickle is a program that may import and call anything. This one may name ``numpy.ndarray``, ``numpy.dtype`` and
NumPy's reconstruction of an array, and is refused at any other name before that is even looked up.
"""

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from mols.common.terminal import ExperimentError

ALLOWED = frozenset(
    {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),  # its name from NumPy 2 on
    }
)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and arrays alone are allowed")
        return super().find_class(module, name)


def load_arrays(path: Path) -> list[np.ndarray]:
    """The arrays of a gzipped pickle of a list of finite floating-point arrays.

    Args:
        path: of the file.

    Raises:
        ExperimentError: it is damaged, or holds anything else.
    """
    try:
        with gzip.open(path) as file:
            arrays = _ArrayUnpickler(file).load()
        if not isinstance(arrays, list) or not all(map(_is_finite_array, arrays)):
            raise pickle.UnpicklingError("it is not a list of finite arrays")
    # What a damaged gzip or pickle raises is the unpickler's choice: all of it means the same to the user.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ExperimentError(f"{path} is not a file of weights ({reason}): replace it by the published one") from error
    return arrays


def _is_finite_array(value: Any) -> bool:
    return type(value) is np.ndarray and value.dtype.kind == "f" and bool(np.isfinite(value).all())
