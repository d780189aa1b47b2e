"""The encoder of torch's layers by the compiled functions: parameters laid out, memory kept for the gradient.

The twin in torch, which says what is computed, is ``policies.forms``. On a CPU in float32 alone, where the heads divide
``LANES``.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from bitseq.kernels import LANES, encoder
from bitseq.kernels.attention import Sizes
from bitseq.kernels.primitives import aligned


def encode(layers: nn.ModuleList, tokens: Tensor, probability: float, n_read: int) -> Tensor:
    """``forms.encode``, compiled; dropout's keys come from torch's generator."""
    sizes, keeps = _sizes(layers, tokens.shape[:2], n_read), torch.is_grad_enabled()
    return _Encoder.apply(tokens, sizes, probability, keeps, *_parameters(layers))


def encode_rows(layers: nn.ModuleList, table: Tensor, rows: Tensor, n_read: int) -> Tensor:
    """``forms.encode_rows``, compiled."""
    sizes, out = _sizes(layers, rows.shape, n_read), torch.empty(len(rows), n_read, table.shape[1])
    parameters = _by_feature(_parameters(layers), sizes)
    qkv = nn.functional.linear(table, *parameters[:2])
    tables = _flat(table), rows.reshape(-1).numpy().view(np.uint64), _flat(qkv)
    flat, keys = torch.cat([p.flatten() for p in parameters]), _keys(sizes, 0.0)
    encoder.forward_pass(*tables, _flat(flat), _array(sizes, False), sizes, keys, np.uint32(0), False, _flat(out))
    return out


def _sizes(layers: nn.ModuleList, shape: tuple[int, int], n_read: int) -> Sizes:
    attention, ff_width = layers[0].self_attn, layers[0].linear1.out_features
    n_features = attention.embed_dim // attention.num_heads
    return Sizes(*map(np.uint64, (*shape, n_read, attention.num_heads, n_features, ff_width, len(layers))))


def _parameters(layers: nn.ModuleList) -> list[Tensor]:
    return [p for layer in layers for p in layer.parameters()]


N_PARAMETERS = 12  # of a layer: attention's matrix and bias into it and out of it, then the others


def _by_feature(parameters: Sequence[Tensor], sizes: Sizes, back: bool = False) -> list[Tensor]:
    """Parameters with attention's numbers as (feature, head), where torch has (head, feature), or back."""
    inner = (int(sizes.n_heads), int(sizes.n_features))[:: -1 if back else 1]
    result = list(parameters)
    for first in range(0, len(result), N_PARAMETERS):
        for i in (first, first + 1):
            result[i] = result[i].unflatten(0, (3, *inner)).transpose(1, 2).flatten(0, 2)
        result[first + 2] = result[first + 2].unflatten(1, inner).transpose(1, 2).flatten(1)
    return result


def _keys(sizes: Sizes, probability: float) -> np.ndarray:
    """(4 layers + 1, 2) random words from torch's generator, which a pass without dropout leaves alone."""
    keys = torch.zeros(4 * int(sizes.n_layers) + 1, dtype=torch.int64)
    if probability > 0:
        keys.random_(-(2**63), None)
    return keys.numpy().view(np.uint32).reshape(-1, 2)


_NO_ROWS, _NO_TABLE = np.empty(0, np.uint64), np.empty(0, np.float32)


class _Encoder(Function):
    @staticmethod
    def forward(ctx, tokens: Tensor, sizes: Sizes, probability: float, keeps: bool, *parameters: Tensor) -> Tensor:
        flat = torch.cat([p.flatten() for p in _by_feature(parameters, sizes)])
        rest = (sizes, _keys(sizes, probability), np.uint32(round(probability * 2**32)))
        saved, out = _array(sizes, keeps), torch.empty(len(tokens), int(sizes.n_read), tokens.shape[2])
        encoder.forward_pass(_flat(tokens), _NO_ROWS, _NO_TABLE, flat.numpy(), saved, *rest, keeps, _flat(out))
        ctx.save_for_backward(flat)
        ctx.saved, ctx.rest, ctx.shapes = saved, rest, (tokens.shape, [p.shape for p in parameters])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (flat,), saved, (shape, shapes) = ctx.saved_tensors, ctx.saved, ctx.shapes
        if saved is None:
            raise RuntimeError("what this gradient needs was given back after the first backward pass")
        of_tokens, of_parameters = torch.empty(shape), torch.zeros_like(flat)
        encoder.backward_pass(_flat(gradient), flat.numpy(), saved, *ctx.rest, _flat(of_tokens), of_parameters.numpy())
        ctx.saved, _spare[:] = None, [saved]
        pieces = of_parameters.split([shape.numel() for shape in shapes])
        pieces = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        return of_tokens, None, None, None, *_by_feature(pieces, ctx.rest[0], back=True)


_spare: list[np.ndarray] = []  # the array of the last gradient: new memory costs as much as the pass itself


def _array(sizes: Sizes, keeps: bool) -> np.ndarray:
    """Room for all segments of a pass, or for one."""
    n_blocks = -(-int(sizes.n_strings * sizes.n_heads) // LANES)
    length = int(encoder.segment_of(sizes).length) * (n_blocks * int(sizes.n_layers) if keeps else 1)
    if keeps and _spare and len(_spare[0]) >= length:
        return _spare.pop()
    return aligned(length)


def _flat(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor in one dimension, a copy only where they do not lie in order."""
    return tensor.detach().contiguous().view(-1).numpy()  # reshape alone would keep the steps of an expanded tensor
