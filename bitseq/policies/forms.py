"""What the policies compute in one of two forms: torch's, which is the reference, or the compiled one of ``kernels``.

Both take the parameters of ``torch.nn.TransformerEncoderLayer`` with its defaults (Vaswani et al. 2017), per layer

    x <- norm_1(x + dropout(attention(x))),   x <- norm_2(x + dropout(down(dropout(relu(up(x))))))

with dropout on the attention weights too. They differ in rounding, and in the random numbers of dropout.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Form(NamedTuple):
    """``encode``, ``encode_rows`` and ``linear_logsumexp``, as torch has them below or compiled."""

    encode: Callable[[nn.ModuleList, Tensor, float, int], Tensor]
    encode_rows: Callable[[nn.ModuleList, Tensor, Tensor, int], Tensor]
    linear_logsumexp: Callable[[nn.Linear, Tensor, float], Tensor]


def encode(layers: nn.ModuleList, tokens: Tensor, probability: float, n_read: int) -> Tensor:
    """What the layers make of dropout(tokens), of the first ``n_read`` tokens.

    Args:
        layers: of ``nn.TransformerEncoderLayer`` with ``batch_first`` and otherwise its defaults, all of one size.
        tokens: (B, T, width).
        probability: of every dropout; the layers' own must be the same, or 0 in eval mode.
        n_read: how many tokens of a row are asked for, 1..T.

    Returns:
        (B, n_read, width).
    """
    tokens = nn.functional.dropout(tokens, probability)
    for layer in layers:
        tokens = layer(tokens)
    return tokens[:, :n_read]


@torch.no_grad()
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
    return encode(layers, table[rows], 0.0, n_read)


@torch.no_grad()
def linear_logsumexp(layer: nn.Linear, inputs: Tensor, coefficient: float) -> Tensor:
    """(..., width) -> (...,) log sum_v exp((w_v . x + b_v) / coefficient), without gradient."""
    return (layer(inputs) / coefficient).logsumexp(-1)


TORCH = Form(encode, encode_rows, linear_logsumexp)


def form_of(kernels: str) -> Form:
    """The form that ``--kernels`` names, ``torch`` or ``compiled``."""
    if kernels == "torch":
        return TORCH
    from bitseq.kernels import layers, normaliser  # numba takes seconds to import

    return Form(layers.encode, layers.encode_rows, normaliser.linear_logsumexp)
