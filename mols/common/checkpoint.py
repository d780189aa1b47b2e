"""A run's checkpoint: written whole or not at all, read without running what it may hold.

This file is the same, byte for byte, in every suite.
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .files import written
from .terminal import ExperimentError


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a tree of tensors and plain values atomically. Raises ExperimentError where there is no room."""
    content = io.BytesIO()  # on a full disk torch itself says little
    torch.save(state, content)
    with written(path, binary=True) as file:
        file.write(content.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What ``write_checkpoint`` wrote. Raises what torch raises where it is damaged."""
    return torch.load(path, weights_only=True, map_location="cpu")


def restore_agent(agent: Any, path: Path, advice: str) -> tuple[int, float]:
    """Give an agent what a checkpoint holds; returns its step and the seconds of training until then.

    Raises:
        ExperimentError: it is damaged, or of another program or configuration; ends with ``advice``.
    """
    try:
        if zipfile.ZipFile(path).testzip():
            raise ValueError("bad checksum")  # which torch itself does not look at
        state = read_checkpoint(path)
        agent.load_state_dict(state["agent"])
        return int(state["step"]), float(state["wall_s"])
    # What a damaged zip or pickle raises is the unpickler's choice: all of it means the same to the user.
    except Exception as error:
        cause = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ExperimentError(f"{path} is damaged or of another program ({cause}): {advice}") from error


def is_finite(tree: Any) -> bool:
    """Whether no tensor of the tree has a NaN or an infinity."""
    return all(tensor.isfinite().all() for tensor in _float_tensors(tree))


def _float_tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor) and tree.is_floating_point():
        yield tree
    branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    for branch in branches:
        yield from _float_tensors(branch)
