"""The trunk that P_F, P_B and log F read: a transformer encoder over the words of a string.

The network of Malkin et al. 2022 and Gritsaev et al. 2025: a begin token, then the L words or empty marks, embedded
into 64 numbers with sinusoidal positions added; three layers of eight heads, normalised after each residual sum, ReLU
in between; dropout on the embedding, on attention weights and before every residual sum.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from bitseq import encoder
from bitseq.attention import LANES, Sizes


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
    n_heads, ff_width = layers[0].self_attn.num_heads, layers[0].linear1.out_features
    n_rows, n_tokens, width = tokens.shape
    sizes = Sizes(*map(np.uint64, (n_rows, n_tokens, n_read, n_heads, width // n_heads, ff_width, len(layers))))
    keeps = torch.is_grad_enabled()
    return _Encoder.apply(tokens, sizes, probability, keeps, *(p for layer in layers for p in layer.parameters()))


def is_compiled(layers: nn.ModuleList, tokens: Tensor) -> bool:
    """Whether ``encode`` goes through the compiled functions."""
    on_host = tokens.device.type == "cpu" and tokens.dtype == torch.float32
    return on_host and LANES % layers[0].self_attn.num_heads == 0


class _Encoder(Function):
    @staticmethod
    def forward(ctx, tokens: Tensor, sizes: Sizes, probability: float, keeps: bool, *parameters: Tensor) -> Tensor:
        flat = torch.cat([p.flatten() for p in parameters])
        keys = torch.zeros(4 * int(sizes.n_layers) + 1, dtype=torch.int64)
        if probability > 0:
            keys.random_(-(2**63), None)
        rest = (sizes, keys.numpy().view(np.uint32).reshape(-1, 2), np.uint32(round(probability * 2**32)))
        saved, out = _array(sizes, keeps), torch.empty(len(tokens), int(sizes.n_read), tokens.shape[2])
        encoder.forward(_flat(tokens), flat.numpy(), saved, *rest, keeps, _flat(out))
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
        return of_tokens, None, None, None, *(piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True))


_spare: list[np.ndarray] = []  # the array of the last gradient: new memory costs as much as the pass itself


def _array(sizes: Sizes, keeps: bool) -> np.ndarray:
    """Room for all segments of a pass, or for one."""
    n_blocks = -(-int(sizes.n_strings * sizes.n_heads) // LANES)
    length = int(encoder.segment_of(sizes).length) * (n_blocks * int(sizes.n_layers) if keeps else 1)
    if keeps and _spare and len(_spare[0]) >= length:
        return _spare.pop()
    return np.empty(length, np.float32)


def _flat(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor in one dimension, a copy only where they do not lie in order."""
    return tensor.detach().contiguous().view(-1).numpy()  # reshape alone would keep the steps of an expanded tensor
