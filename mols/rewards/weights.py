"""Weights of this package's own networks: read from a file whose hash is known, or refused in one sentence."""

import hashlib
import io
import pickle
from pathlib import Path

import torch
from torch import nn

from mols.common.terminal import ExperimentError


def load_weights(network: nn.Module, path: Path, sha256: str | None, name: str) -> None:
    """Give a network the weights of a file.

    Args:
        network: with the file's parameters; single precision.
        path: as ``mols.proxy_training.training`` writes it.
        sha256: of its bytes, in hexadecimal; None: any, for weights of one's own.
        name: of the network, for messages.

    Raises:
        ExperimentError: it cannot be read, is damaged, or holds the weights of another network.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExperimentError(f"cannot read {path} ({error.strerror}): fetch it from the repository") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, found):
        raise ExperimentError(
            f"{path} is damaged or another file (its sha256 is {found[:12]}..., not {sha256[:12]}...): "
            "fetch it from the repository again"
        )
    try:
        network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    # What torch raises for bytes that are no file of its own depends on the bytes.
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ExperimentError(f"{path} does not hold the {name} network's weights: train them again") from error
    if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        raise ExperimentError(f"{path} holds weights that are not finite: train them again")
