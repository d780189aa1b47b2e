"""The compiled parts of a layer as functions of tensors with gradients; see ``graph_kernels``."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mols.kernels import graph_kernels


class Layout(NamedTuple):
    """Where the tokens of graphs and their edges are, as the compiled functions take it.

    Attributes:
        first: (G + 1,) where the tokens of each of G graphs begin.
        pairs: (G + 1,) where its pairs of tokens do.
        kinds: (P,) of the edges to t from s, -1 where there is none.
    """

    first: np.ndarray  # of unsigned numbers, as pairs
    pairs: np.ndarray
    kinds: np.ndarray


class CompiledGraphs:
    """Who hears whom in graphs of several sizes, and what a layer does with it besides its linear maps.

    Args:
        kinds: (B, T, T) of the graphs of each size, at [t, s] the kind of the edge to token t from s, -1 for none.
    """

    def __init__(self, kinds: Sequence[Tensor]) -> None:
        sizes = np.repeat([of_size.shape[1] for of_size in kinds], [len(of_size) for of_size in kinds])
        first, pairs = (np.concatenate([[0], steps.cumsum()]).astype(np.uint64) for steps in (sizes, sizes**2))
        self._layout = Layout(first, pairs, torch.cat([of_size.flatten() for of_size in kinds]).numpy())

    def received(self, tokens: Tensor, table: Tensor) -> Tensor:
        """(n, 2 width) tokens normalised over their graph, and these plus what their neighbours send them (GENConv).

        Args:
            tokens: (n, width).
            table: (K, width) embedding of every kind of edge.
        """
        return _Received.apply(tokens, table, self._layout)

    def attended(self, mapped: Tensor, edge_key: Tensor, edge_value: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(n, width) tokens after the attention to their neighbours, and the same normalised over their graph.

        Args:
            mapped: (n, 3 heads * width + width) queries, keys and values, and what is added without attention.
            edge_key, edge_value: (heads, K, width) what a kind of edge adds to a key and to a value.
            tokens: (n, width) before it.
        """
        return _Attended.apply(mapped, edge_key, edge_value, tokens, self._layout)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Flat; of contiguous tensors, their own memory."""
    return [tensor.detach().flatten().numpy() for tensor in tensors]


class _Received(Function):
    @staticmethod
    def forward(ctx, tokens: Tensor, table: Tensor, layout: Layout) -> Tensor:
        width = tokens.shape[1]
        out, inverse = tokens.new_empty(len(tokens), 2 * width), tokens.new_empty(len(layout.first) - 1)
        graph_kernels.receive(*_arrays(tokens, table), *layout, np.uint64(width), *_arrays(out, inverse))
        ctx.save_for_backward(out, table, inverse)
        ctx.layout = layout
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        out, table, inverse = ctx.saved_tensors
        of_tokens, of_table = out.new_empty(len(out), table.shape[1]), out.new_zeros(table.shape)
        inputs, results = _arrays(gradient, out, table), _arrays(inverse, of_tokens, of_table)
        graph_kernels.receive_backward(*inputs, *ctx.layout, np.uint64(table.shape[1]), *results)
        return of_tokens, of_table, None


class _Attended(Function):
    @staticmethod
    def forward(
        ctx, mapped: Tensor, edge_key: Tensor, edge_value: Tensor, tokens: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        n_heads, n_kinds, width = edge_key.shape
        sizes = tuple(map(np.uint64, (width, n_heads, n_kinds)))
        weights, inverse = tokens.new_empty(len(layout.kinds), n_heads), tokens.new_empty(len(layout.first) - 1)
        out, normed = tokens.new_empty(tokens.shape), tokens.new_empty(tokens.shape)
        inputs, results = _arrays(mapped, edge_key, edge_value, tokens), _arrays(weights, out, normed, inverse)
        graph_kernels.attend(*inputs, *layout, *sizes, *results)
        ctx.save_for_backward(mapped, edge_key, edge_value, weights, normed, inverse)
        ctx.rest = (*layout, *sizes)
        return out, normed

    @staticmethod
    @once_differentiable
    def backward(ctx, of_out: Tensor, of_normed: Tensor) -> tuple[Tensor | None, ...]:
        mapped, edge_key, edge_value, weights, normed, inverse = ctx.saved_tensors
        of_tokens = of_normed.clone(memory_format=torch.contiguous_format)
        results = [mapped.new_zeros(tensor.shape) for tensor in (mapped, edge_key, edge_value)]
        inputs = _arrays(of_out, of_tokens, mapped, edge_key, edge_value)
        graph_kernels.attend_backward(*inputs, *ctx.rest, *_arrays(weights, normed, inverse, *results))
        return *results, of_tokens, None
