"""A layer of the graph transformer by compiled functions: the same as ``Layer.forward``, for a CPU.

Linear maps that follow one another, with nothing but sums over tokens between them, are one map, the product of their
matrices: 18% fewer operations a token with two heads. What looks at neighbours is compiled (``kernels``).
"""

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, linear

from mols.kernels.compiled_graphs import CompiledGraphs
from mols.policies.layers import Layer


class CompiledLayer:
    """A layer for one conditioning, as its parameters are now.

    Args:
        layer: whose parameters they are.
        table: (K, width) embedding of every kind of edge.
        condition: (width,).

    Attributes:
        weight: (3 heads * width + width, 2 width) from a token and what it received to queries (scaled), keys, values
            (as they arrive in the output, head by head) and what skips the attention.
        bias: (3 heads * width + width,).
        edge_key: (heads, K, width) what a kind of edge adds to a key.
        edge_value: (heads, K, width) what it adds to a value.
    """

    def __init__(self, layer: Layer, table: Tensor, condition: Tensor) -> None:
        self.layer, self.table = layer, table
        heads, maps = (layer.n_heads, layer.width), layer.query_key_value_skip
        direct, by_message = maps.weight.chunk(2, 1)
        query, key, value, skip = torch.cat([direct, by_message @ layer.message.weight], 1).chunk(4)
        query_bias, key_bias, value_bias, skip_bias = (maps.bias + by_message @ layer.message.bias).chunk(4)
        factor, shift = layer.condition(condition).chunk(2)
        out = layer.out.weight * factor[:, None]
        out_of_head = out.unflatten(1, heads).transpose(0, 1)
        value = (out_of_head @ value.unflatten(0, heads)).flatten(0, 1)
        # A row of attention weights sums to 1, so that the bias of values is one of the output.
        constant = out @ (value_bias + skip_bias) + layer.out.bias * factor + shift
        scale = layer.width**-0.5
        self.weight = torch.cat([query * scale, key, value, out @ skip])
        self.bias = torch.cat([query_bias * scale, key_bias, torch.zeros_like(value_bias), constant])
        self.edge_key = layer.edge(table).unflatten(1, heads).transpose(0, 1)
        self.edge_value = self.edge_key @ out_of_head.transpose(1, 2)

    def __call__(self, tokens: Tensor, graphs: CompiledGraphs) -> Tensor:
        """(n, width) -> (n, width).

        Args:
            tokens: (n, width) graph after graph.
            graphs: who hears whom.
        """
        mapped = linear(graphs.received(tokens, self.table), self.weight, self.bias)
        tokens, normed = graphs.attended(mapped.to(tokens.dtype), self.edge_key, self.edge_value, tokens)
        return tokens + self.layer.down(leaky_relu(self.layer.up(normed)))
