"""What a layer of the graph transformer does besides its linear maps, in torch: for GPUs.

Graphs are taken together by their number of tokens, so that there is neither padding nor a mask but for pairs without
an edge; what depends on an edge's kind alone is a product with a table of kinds.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from mols.kernels.graph_kernels import GEN_EPSILON

ABSENT = -1  # in the place of a kind: no edge
VIRTUAL, SELF, FIRST = 0, 1, 2  # kinds of edges; those between nodes come after, one for each pair of ends


class Group(NamedTuple):
    """B graphs of T tokens each, the virtual node's first.

    Attributes:
        kinds: (B, T, T) at [t, s]: the kind of the edge to t from s; where there is none, any.
        absent: (B, T, T) whether there is none.
        source, target: (E,) of the edges between nodes alone, rows of the tokens as (B T, width).
        kind: (E,) theirs.
    """

    kinds: Tensor
    absent: Tensor
    source: Tensor
    target: Tensor
    kind: Tensor

    @classmethod
    def of(cls, kinds: Tensor) -> "Group":
        """Of (B, T, T) kinds, ABSENT where there is no edge."""
        graph, target, source = torch.nonzero(kinds >= FIRST, as_tuple=True)
        first, kind = graph * kinds.shape[1], kinds[graph, target, source]
        return cls(kinds.clamp(min=0), kinds == ABSENT, first + source, first + target, kind)


class GroupedGraphs:
    """Who is whose neighbour in graphs of several sizes.

    Args:
        kinds: (B, T, T) of the graphs of each size, at [t, s] the kind of the edge to token t from s, or ABSENT.
    """

    def __init__(self, kinds: Sequence[Tensor]) -> None:
        self._groups = [Group.of(of_size) for of_size in kinds]
        self._sizes = [of_size.shape[0] * of_size.shape[1] for of_size in kinds]

    def received(self, tokens: Tensor, table: Tensor) -> Tensor:
        """(n, 2 width) tokens normalised over their graph, and these plus what their neighbours send them.

        Args:
            tokens: (n, width).
            table: (K, width) embedding of every kind of edge.
        """
        results = []
        for group, part in self._parts(tokens):
            normed = layer_norm(part, part.shape[1:])
            results.append(torch.cat([normed, normed + messages(table, group, normed)], -1).flatten(0, 1))
        return torch.cat(results)

    def attended(self, mapped: Tensor, edge_key: Tensor, edge_value: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(n, width) tokens after the attention to their neighbours, and the same normalised over their graph.

        Args:
            mapped: (n, 3 heads * width + width) queries, keys and values, and what is added without attention.
            edge_key, edge_value: (heads, K, width) what a kind of edge adds to a key and to a value.
            tokens: (n, width) before it.
        """
        mixed = [attention(edge_key, edge_value, *part).flatten(0, 1) for part in self._parts(mapped)]
        tokens = tokens + torch.cat(mixed)
        normed = [layer_norm(part, part.shape[1:]).flatten(0, 1) for _, part in self._parts(tokens)]
        return tokens, torch.cat(normed)

    def _parts(self, tokens: Tensor) -> list[tuple[Group, Tensor]]:
        parts = zip(self._groups, tokens.split(self._sizes), strict=True)
        return [(group, part.unflatten(0, group.kinds.shape[:2])) for group, part in parts]


def messages(table: Tensor, group: Group, tokens: Tensor) -> Tensor:
    """(B, T, width) sum over the neighbours j of relu(token j + edge), itself included (GENConv)."""
    along_virtual = (tokens + table[VIRTUAL]).relu()
    to_virtual = along_virtual[:, 1:].sum(1, keepdim=True)
    received = torch.cat([to_virtual, along_virtual[:, :1].expand_as(tokens[:, 1:])], 1)
    received = received + (tokens + table[SELF]).relu()
    if len(group.kind):
        sent = (tokens.flatten(0, 1).index_select(0, group.source) + table.index_select(0, group.kind)).relu()
        received = received.flatten(0, 1).index_add(0, group.target, sent).view(tokens.shape)
    return received + GEN_EPSILON


def attention(edge_keys: Tensor, edge_values: Tensor, group: Group, mapped: Tensor) -> Tensor:
    """(B, T, 3 heads * width + width) -> (B, T, width): attention to the neighbours, plus what skips it."""
    n_heads, _, width = edge_keys.shape
    *parts, mixed = mapped.split(width, -1)
    heads = zip(*(parts[i : i + n_heads] for i in range(0, len(parts), n_heads)), strict=True)
    for (query, key, value), edge_key, edge_value in zip(heads, edge_keys, edge_values, strict=True):
        along = (query @ edge_key.T).gather(2, group.kinds).masked_fill(group.absent, -torch.inf)
        weights = torch.baddbmm(along, query, key.transpose(1, 2)).softmax(-1)
        of_kinds = weights.new_zeros(*weights.shape[:2], len(edge_key)).scatter_add(2, group.kinds, weights)
        mixed = torch.baddbmm(mixed, weights, value) + of_kinds @ edge_value
    return mixed
