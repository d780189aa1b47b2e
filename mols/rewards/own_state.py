"""What a user's code sets for the whole process stays its own: the run finds everything as it left it."""

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Where torch keeps the precision of matrix products; its own getter fails where a part was set by itself.
_PRODUCTS = (torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)


def _folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:  # somebody has deleted it
        return Path()


def _numpy_generator() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return (name, keys.tolist(), *rest)  # lists compare to one truth value


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters


def _set_torch_generator(state: list[int]) -> None:
    torch.set_rng_state(torch.tensor(state, dtype=torch.uint8, device="cpu"))  # whatever the default is


def _set_precisions(precisions: list[str]) -> None:
    for place, precision in zip(_PRODUCTS, precisions, strict=True):
        place.fp32_precision = precision


def _set_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)  # None costs nothing


# How to read, and how to set, what the process has one of.
SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (_folder, os.chdir),
    (lambda: sys.stdout, lambda stream: setattr(sys, "stdout", stream)),
    (lambda: sys.stderr, lambda stream: setattr(sys, "stderr", stream)),
    (lambda: list(warnings.filters), _set_filters),
    (random.getstate, random.setstate),
    (_numpy_generator, np.random.set_state),
    (np.geterr, lambda modes: np.seterr(**modes)),
    (lambda: torch.get_rng_state().tolist(), _set_torch_generator),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _set_device),
    (torch.get_num_threads, torch.set_num_threads),
    (lambda: [place.fp32_precision for place in _PRODUCTS], _set_precisions),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
)


class OwnState:
    """The settings that some code has made; they hold while it runs, and only then."""

    def __init__(self) -> None:
        self._own: dict[int, Any] = {}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """For the time of the code's next call."""
        before = {number: get() for number, (get, _) in enumerate(SETTINGS)}
        try:
            _put(self._own)
            yield
        finally:
            after = {number: get() for number, (get, _) in enumerate(SETTINGS)}
            self._own = {n: value for n, value in after.items() if n in self._own or value != before[n]}
            _put(before)


def _put(values: dict[int, Any]) -> None:
    for number, value in values.items():
        get, put = SETTINGS[number]
        if get() != value:
            put(value)
