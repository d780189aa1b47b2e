"""The trunk that P_F, P_B and log F read: a transformer encoder over the words of a string.

The network of Malkin et al. 2022 and Gritsaev et al. 2025: a begin token, then the L words or empty marks, embedded
into 64 numbers with sinusoidal positions added; three layers of eight heads, normalised after each residual sum, ReLU
in between; dropout on the embedding, on attention weights and before every residual sum.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from bitseq.kernels import encoder
from bitseq.kernels.attention import LANES, Sizes
from bitseq.kernels.primitives import aligned


class Trunk(nn.Module):
    """States -> hidden features of the begin token and of every position.

    Args:
        length: L, positions of a state.
        n_words: V; the vocabulary is the words, the empty mark and the begin token.
        width, n_layers, n_heads, ff_width, dropout: of the encoder.
    """

    def __init__(
        self, length: int, n_words: int, *, width: int, n_layers: int, n_heads: int, ff_width: int, dropout: float
    ) -> None:
        super().__init__()
        self.begin = n_words + 1
        self.embedding = nn.Embedding(n_words + 2, width)
        self.register_buffer("positions", sinusoidal_positions(length + 1, width), persistent=False)
        self.dropout = dropout
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, n_heads, ff_width, dropout, batch_first=True) for _ in range(n_layers)
        )

    def forward(self, states: Tensor, begin_only: bool = False) -> Tensor:
        """(M, L) states -> (M, 1 + L, width) features, the begin token's first; (M, 1, width) if that is enough."""
        tokens = self.embedding(nn.functional.pad(states, (1, 0), value=self.begin)) + self.positions
        probability, n_read = self.dropout if self.training else 0.0, 1 if begin_only else tokens.shape[1]
        return encode(self.layers, tokens, probability, n_read)

    @torch.no_grad()
    def read(self, states: Tensor, positions: Tensor) -> Tensor:
        """Features of the begin token and of some positions alone, in eval mode.

        A token enters the first layer as one of few rows, which are looked up, with their queries, keys and values.

        Args:
            states: (M, L).
            positions: (M, E), different ones in each state.

        Returns:
            (M, 1 + E, width).
        """
        table = (self.positions.unsqueeze(1) + self.embedding.weight).flatten(0, 1)
        others = torch.ones_like(states).scatter(1, positions, 0).nonzero()[:, 1].view(len(states), -1)
        order = nn.functional.pad(torch.cat([positions, others], 1) + 1, (1, 0))
        rows = order * self.embedding.num_embeddings + nn.functional.pad(states, (1, 0), value=self.begin).gather(
            1, order
        )
        return encode_rows(self.layers, table, rows, 1 + positions.shape[1])


def sinusoidal_positions(n_tokens: int, width: int) -> Tensor:
    """(n_tokens, width) sine and cosine of each position at geometric wavelengths (Vaswani et al. 2017, 3.5)."""
    angle = torch.arange(n_tokens)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]


def encode(layers: nn.ModuleList, tokens: Tensor, probability: float, n_read: int) -> Tensor:
    """What the layers make of dropout(tokens), of the first ``n_read`` tokens.

    On a CPU in float32 it is computed by ``encoder``; elsewhere, and where the heads do not fill the
    lanes, by torch. Either draws its dropout from torch's generator.

    Args:
        layers: of ``nn.TransformerEncoderLayer`` with ``batch_first`` and otherwise its defaults, all of one size.
        tokens: (B, T, width).
        probability: of every dropout; the layers' own must be the same, or 0 in eval mode.
        n_read: how many tokens of a row are asked for, 1..T.

    Returns:
        (B, n_read, width).
    """
    if not is_compiled(layers, tokens):
        tokens = nn.functional.dropout(tokens, probability)
        for layer in layers:
            tokens = layer(tokens)
        return tokens[:, :n_read]
    sizes, keeps = _sizes(layers, tokens.shape[:2], n_read), torch.is_grad_enabled()
    return _Encoder.apply(tokens, sizes, probability, keeps, *_parameters(layers))


def encode_rows(layers: nn.ModuleList, table: Tensor, rows: Tensor, n_read: int) -> Tensor:
    """``encode`` without dropout and gradient, of tokens that are rows of a table.

    Args:
        layers: as there, in eval mode.
        table: (K, width).
        rows: (B, T) the row of each token.
        n_read: how many tokens of a string are asked for, the first ones.

    Returns:
        (B, n_read, width).
    """
    if not is_compiled(layers, table):
        return encode(layers, table[rows], 0.0, n_read)
    sizes, out = _sizes(layers, rows.shape, n_read), torch.empty(len(rows), n_read, table.shape[1])
    parameters = _by_feature(_parameters(layers), sizes)
    qkv = nn.functional.linear(table, *parameters[:2])
    tables = _flat(table), rows.reshape(-1).numpy().view(np.uint64), _flat(qkv)
    flat, keys = torch.cat([p.flatten() for p in parameters]), _keys(sizes, 0.0)
    encoder.forward(*tables, _flat(flat), _array(sizes, False), sizes, keys, np.uint32(0), False, _flat(out))
    return out


def is_compiled(layers: nn.ModuleList, tokens: Tensor) -> bool:
    """Whether ``encode`` goes through the compiled functions."""
    on_host = tokens.device.type == "cpu" and tokens.dtype == torch.float32
    return on_host and LANES % layers[0].self_attn.num_heads == 0


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
        encoder.forward(_flat(tokens), _NO_ROWS, _NO_TABLE, flat.numpy(), saved, *rest, keeps, _flat(out))
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
        encoder.backward(_flat(gradient), flat.numpy(), saved, *ctx.rest, _flat(of_tokens), of_parameters.numpy())
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
