"""The trunk that P_F, P_B and log F read: a graph transformer over small graphs with a virtual node.

The network of recursionpharma's gflownet, as Gritsaev et al. 2025 use it: every layer sends messages along edges
(GENConv, Li et al. 2020), attends to neighbours with edge features in keys and values (TransformerConv, Shi et al.
2021), scales and shifts by the conditioning, and ends in a feed-forward part, each behind a layer norm over the whole
graph. The virtual node is a neighbour of every node and carries the conditioning; every node is its own neighbour.

What need not be computed is not: graphs are taken together by their number of nodes, so that there is neither padding
nor a mask, and only the linear maps see the tokens of all of them at once; node and edge inputs and the conditioning
take few values, so that they are embedded once for all graphs, and what depends on an edge's kind alone is a product
with a table of kinds.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, leaky_relu

CHUNK = 1024  # graphs in one pass: bounds its memory
GEN_EPSILON = 1e-7  # GENConv's: keeps messages positive


class Features(NamedTuple):
    """What the heads read of M graphs.

    Attributes:
        node: (M, S, width), 0 at empty slots; of an empty graph, slot 0 holds its stand-in node.
        graph: (M, 2 width) mean over the nodes, and the virtual node.
    """

    node: Tensor
    graph: Tensor


def mlp(n_in: int, n_hidden: int, n_out: int, n_layers: int) -> nn.Sequential:
    """``n_layers`` hidden layers with leaky ReLU; none: one linear map."""
    sizes = [n_in] + [n_hidden] * n_layers + [n_out]
    layers = []
    for left, right in pairwise(sizes):
        layers += [nn.Linear(left, right), nn.LeakyReLU()]
    return nn.Sequential(*layers[:-1])


class Group(NamedTuple):
    """B graphs of T tokens each, the virtual node's first, which lie together among all tokens of a pass.

    Attributes:
        kinds: (B, T, T) at [t, s]: the kind of the edge to t from s; where there is none, any.
        absent: (B, T, T) -inf where there is no edge, else 0.
        source, target: (E,) of the edges between nodes alone, rows of the tokens as (B T, width).
        kind: (E,) theirs.
    """

    kinds: Tensor
    absent: Tensor
    source: Tensor
    target: Tensor
    kind: Tensor


def by_group(function: Callable, groups: list[Group], *inputs: Tensor) -> Tensor:
    """(n, width) tokens of all groups, from a function of a group and its (B, T, ...) parts of (n, ...) inputs."""
    sizes = [group.kinds.shape[0] * group.kinds.shape[1] for group in groups]
    parts = zip(*(tensor.split(sizes) for tensor in inputs), strict=True)
    results = [
        function(group, *(part.unflatten(0, group.kinds.shape[:2]) for part in of_group)).flatten(0, 1)
        for group, of_group in zip(groups, parts, strict=True)
    ]
    return torch.cat(results)


def normalised(group: Group, tokens: Tensor) -> Tensor:
    """(B, T, width) at mean 0 and variance 1 over each graph."""
    return layer_norm(tokens, tokens.shape[1:])


class Layer(nn.Module):
    """One layer on the tokens of all graphs.

    Args:
        width: of a token.
        n_heads: attention heads, each as wide as a token.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.width, self.n_heads = width, n_heads
        attention = n_heads * width
        self.message = nn.Linear(width, width)
        self.query_key_value_skip = nn.Linear(2 * width, 4 * attention)
        self.edge = nn.Linear(width, attention, bias=False)
        self.out = nn.Linear(attention, width)
        self.condition = nn.Linear(width, 2 * width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, groups: list[Group], table: Tensor, condition: Tensor) -> Tensor:
        """(n, width) -> (n, width).

        Args:
            tokens: (n, width) group after group.
            groups: who is whose neighbour.
            table: (K, width) embedding of every kind of edge.
            condition: (width,).
        """
        normed = by_group(normalised, groups, tokens)
        received = self.message(by_group(partial(self.messages, table), groups, normed) + normed)
        query_key_value_skip = self.query_key_value_skip(torch.cat([normed, received], -1))
        mixed = by_group(partial(self.attention, self.edge(table)), groups, query_key_value_skip)
        scale, shift = self.condition(condition).chunk(2)
        tokens = tokens + self.out(mixed) * scale + shift
        return tokens + self.down(leaky_relu(self.up(by_group(normalised, groups, tokens))))

    def messages(self, table: Tensor, group: Group, tokens: Tensor) -> Tensor:
        """(B, T, width) sum over the neighbours j of relu(token j + edge), itself included."""
        along_virtual = (tokens + table[VIRTUAL]).relu()
        to_virtual = along_virtual[:, 1:].sum(1, keepdim=True)
        received = torch.cat([to_virtual, along_virtual[:, :1].expand_as(tokens[:, 1:])], 1)
        received = received + (tokens + table[SELF]).relu()
        if len(group.kind):
            sent = (tokens.flatten(0, 1).index_select(0, group.source) + table.index_select(0, group.kind)).relu()
            received = received.flatten(0, 1).index_add(0, group.target, sent).view(tokens.shape)
        return received + GEN_EPSILON

    def attention(self, edge: Tensor, group: Group, query_key_value_skip: Tensor) -> Tensor:
        """(B, T, 4 heads * width) -> (B, T, heads * width): attention to the neighbours, plus the skipping part."""
        scale = self.width**-0.5
        query, key, value, skip = query_key_value_skip.chunk(4, -1)
        mixed = []
        for start in range(0, self.n_heads * self.width, self.width):  # head by head: views, nothing is copied
            head = slice(start, start + self.width)
            q, e = query[..., head], edge[:, head]
            along = (q @ e.T).mul(scale).gather(2, group.kinds) + group.absent
            weights = torch.baddbmm(along, q, key[..., head].transpose(1, 2), alpha=scale).softmax(-1)
            of_kinds = weights.new_zeros(*weights.shape[:2], len(e)).scatter_add(2, group.kinds, weights)
            mixed.append(torch.bmm(weights, value[..., head]) + of_kinds @ e)
        return torch.cat(mixed, -1) + skip


VIRTUAL, SELF, FIRST = 0, 1, 2  # kinds of edges; those between nodes come after, one for each pair of ends


class GraphTransformer(nn.Module):
    """Graphs with few kinds of nodes and edges -> features of their nodes and of the whole.

    Args:
        n_node_kinds: kinds of nodes; kind ``n_node_kinds`` is the stand-in of an empty graph.
        n_end_kinds: values that an edge has at each of its ends.
        n_conditions: numbers of the conditioning.
        width, n_layers, n_heads: of the layers.
    """

    def __init__(
        self, n_node_kinds: int, n_end_kinds: int, n_conditions: int, *, width: int, n_layers: int, n_heads: int
    ) -> None:
        super().__init__()
        self.n_node_kinds, self.n_end_kinds = n_node_kinds, n_end_kinds
        self.node_kinds = nn.Embedding(n_node_kinds + 1, width)
        self.node = mlp(width, width, width, 1)
        self.here, self.there = nn.Embedding(n_end_kinds, width), nn.Embedding(n_end_kinds, width)
        self.special_edges = nn.Parameter(torch.randn(FIRST, width))
        self.edge = mlp(width, width, width, 1)
        self.condition = mlp(n_conditions, width, width, 2)
        self.layers = nn.ModuleList(Layer(width, n_heads) for _ in range(n_layers))

    def forward(self, nodes: Tensor, ends: Tensor, conditions: Tensor) -> Features:
        """Features of M graphs.

        Args:
            nodes: (M, S) kinds of the nodes, ``n_node_kinds`` at empty slots.
            ends: (M, S, S) at [i, j]: 0 without an edge i-j, else 1 + the value of its end at i.
            conditions: (n_conditions,).
        """
        present = nodes != self.n_node_kinds
        present[:, 0] |= ~present.any(1)  # the stand-in
        n_nodes = present.sum(1)
        # Nodes first, empty slots last, within each graph; then graphs by their number of nodes.
        slots = (~present).to(torch.uint8).argsort(dim=1, stable=True)
        order = n_nodes.argsort(stable=True)
        nodes, ends, n_nodes = nodes.gather(1, slots)[order], _permuted(ends, slots)[order], n_nodes[order]
        tables, parts = self.tables(conditions), []
        for chunk in zip(*(tensor.split(CHUNK) for tensor in (nodes, ends, n_nodes)), strict=True):
            parts += self.encode(*chunk, *tables)
        return _assemble(parts, order, slots)

    def tables(self, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of every kind of node (F + 1, width), of every kind of edge (K, width), of the conditions."""
        pairs = (self.here.weight[:, None] + self.there.weight[None]).flatten(0, 1)
        edge = self.edge(leaky_relu(torch.cat([self.special_edges, pairs])))
        return self.node(leaky_relu(self.node_kinds.weight)), edge, self.condition(conditions)

    def encode(
        self, nodes: Tensor, ends: Tensor, n_nodes: Tensor, node: Tensor, edge: Tensor, condition: Tensor
    ) -> list[Tensor]:
        """(B, T, width) tokens of the graphs of each size.

        Args:
            nodes: (M, S) kinds, those of empty slots last, graphs in order of their size.
            ends: (M, S, S) likewise.
            n_nodes: (M,) not decreasing.
            node, edge, condition: tables of embeddings.
        """
        groups, tokens, start = [], [], 0
        for size, count in enumerate(torch.bincount(n_nodes).tolist()):
            if count:
                graphs = slice(start, start + count)
                kinds = nn.functional.pad(nodes[graphs, :size], (1, 0), value=len(node))  # the virtual node's row
                tokens.append(kinds.flatten())
                groups.append(self.group(ends[graphs, :size, :size]))
            start += count
        tokens = torch.cat([node, condition[None]]).index_select(0, torch.cat(tokens))
        for layer in self.layers:
            tokens = layer(tokens, groups, edge, condition)
        shapes = [group.kinds.shape[:2] for group in groups]
        parts = tokens.split([shape.numel() for shape in shapes])
        return [part.unflatten(0, shape) for part, shape in zip(parts, shapes, strict=True)]

    def group(self, ends: Tensor) -> Group:
        """Graphs of (B, T-1, T-1) ends; edges to and from the virtual node and from every token to itself are added."""
        n_graphs, size, _ = ends.shape
        pair = (ends - 1) * self.n_end_kinds + ends.transpose(1, 2) - 1
        between = torch.where(ends > 0, FIRST + pair, VIRTUAL)
        kinds = ends.new_full((n_graphs, size + 1, size + 1), VIRTUAL)
        kinds[:, 1:, 1:] = between
        kinds.diagonal(dim1=1, dim2=2).fill_(SELF)
        absent = self.special_edges.new_zeros(kinds.shape)
        absent[:, 1:, 1:] = torch.where(ends > 0, 0.0, -torch.inf)
        absent.diagonal(dim1=1, dim2=2).zero_()
        graph, target, source = torch.nonzero(ends, as_tuple=True)
        first = graph * (size + 1) + 1
        return Group(kinds, absent, first + source, first + target, between[graph, target, source])


def _permuted(ends: Tensor, slots: Tensor) -> Tensor:
    """(M, S, S) with rows and columns in the order of (M, S) slots."""
    size = slots.shape[1]
    ends = ends.gather(1, slots[:, :, None].expand(-1, -1, size))
    return ends.gather(2, slots[:, None, :].expand(-1, size, -1))


def _assemble(parts: list[Tensor], order: Tensor, slots: Tensor) -> Features:
    """Features of all graphs in their own order and slots, from tokens group by group."""
    n_slots, back = slots.shape[1], order.argsort()
    padded = [nn.functional.pad(tokens[:, 1:], (0, 0, 0, n_slots + 1 - tokens.shape[1])) for tokens in parts]
    node = torch.cat(padded).index_select(0, back)
    graph = torch.cat([torch.cat([tokens[:, 1:].mean(1), tokens[:, 0]], -1) for tokens in parts])
    place = slots.argsort(dim=1)  # where each slot's node stands
    node = node.gather(1, place[:, :, None].expand(-1, -1, node.shape[2]))
    return Features(node, graph.index_select(0, back))
