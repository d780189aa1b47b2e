"""The trunk that P_F, P_B and log F read: a graph transformer over small graphs with a virtual node.

The network of recursionpharma's gflownet, as Gritsaev et al. 2025 use it: every layer sends messages along edges
(GENConv, Li et al. 2020), attends to neighbours with edge features in keys and values (TransformerConv, Shi et al.
2021), scales and shifts by the conditioning, and ends in a feed-forward part, each behind a layer norm over the whole
graph. The virtual node is a neighbour of every node and carries the conditioning; every node is its own neighbour.

What need not be computed is not: there is no padding, linear maps see the tokens of all graphs at once. Node and edge
inputs and the conditioning take few values, so that they are embedded once for all graphs. The layers have two forms
with one set of parameters: torch-geometric's (``layers``) and a compiled one (``compiled_layers``).
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from mols.kernels.compiled_graphs import CompiledGraphs
from mols.policies.compiled_layers import CompiledLayer
from mols.policies.layers import ABSENT, FIRST, SELF, VIRTUAL, Layer, Neighbours

CHUNK = 1024  # graphs in one pass: bounds its memory


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


class Tables(NamedTuple):
    """All that does not depend on the graphs.

    Attributes:
        node: (kinds + 1, width) embeddings of the kinds of nodes, the stand-in's last.
        condition: (width,) of the conditions.
        layers: tokens and their neighbours -> tokens, of each layer.
        neighbours: what the layers read of the kinds of edges.
    """

    node: Tensor
    condition: Tensor
    layers: list[Callable[[Tensor, Any], Tensor]]
    neighbours: Callable[[list[Tensor]], Any]


class GraphTransformer(nn.Module):
    """Graphs with few kinds of nodes and edges -> features of their nodes and of the whole.

    A kind of node is one value of each attribute, embedded as the sum of their embeddings. Kinds are numbered in the
    order of ``itertools.product``; behind them comes the stand-in of an empty graph, with an embedding of its own.

    Args:
        n_node_values: how many values each attribute of a node has.
        n_end_kinds: values that an edge has at each of its ends.
        n_conditions: numbers of the conditioning.
        width, n_layers, n_heads: of the layers.
        kernels: the layers' form: torch, compiled, or auto, which is compiled on a CPU in float32.
        precision: float32, or bfloat16, in which the layers multiply matrices; all else is float32.
    """

    def __init__(
        self,
        n_node_values: Sequence[int],
        n_end_kinds: int,
        n_conditions: int,
        *,
        width: int,
        n_layers: int,
        n_heads: int,
        kernels: str = "auto",
        precision: str = "float32",
    ) -> None:
        super().__init__()
        self.kernels, self.precision = kernels, precision
        self.register_buffer("made_of", _made_of(n_node_values), persistent=False)
        self.n_node_kinds, self.n_end_kinds = len(self.made_of) - 1, n_end_kinds
        self.node_values = nn.Embedding(self.made_of.shape[1], width)
        self.node = mlp(width, width, width, 1)
        self.here, self.there = nn.Embedding(n_end_kinds, width), nn.Embedding(n_end_kinds, width)
        self.special_edges = nn.Parameter(torch.randn(FIRST, width))
        self.edge = mlp(width, width, width, 1)
        self.condition = mlp(n_conditions, width, width, 2)
        self.layers = nn.ModuleList(Layer(width, n_heads) for _ in range(n_layers))

    def forward(self, nodes: Tensor, ends: Tensor, tables: Tables) -> Features:
        """Features of M graphs.

        Args:
            nodes: (M, S) kinds of the nodes, ``n_node_kinds`` at empty slots.
            ends: (M, S, S) at [i, j]: 0 without an edge i-j, else 1 + the value of its end at i.
            tables: of the parameters as they are.
        """
        present = nodes != self.n_node_kinds
        present[:, 0] |= ~present.any(1)  # the stand-in
        n_nodes = present.sum(1)
        # Nodes first, empty slots last, within each graph; then graphs by their number of nodes.
        slots = (~present).to(torch.uint8).argsort(dim=1, stable=True)
        order = n_nodes.argsort(stable=True)
        nodes, ends, n_nodes = nodes.gather(1, slots)[order], _permuted(ends, slots)[order], n_nodes[order]
        parts = []
        for chunk in zip(*(tensor.split(CHUNK) for tensor in (nodes, ends, n_nodes)), strict=True):
            parts += self.encode(*chunk, tables)
        return _assemble(parts, order, slots)

    def tables(self, conditions: Tensor) -> Tables:
        """What (n_conditions,) conditions and the parameters give."""
        pairs = (self.here.weight[:, None] + self.there.weight[None]).flatten(0, 1)
        edge = self.edge(leaky_relu(torch.cat([self.special_edges, pairs])))
        node = self.node(leaky_relu(self.made_of @ self.node_values.weight))
        condition = self.condition(conditions)
        if self.is_compiled:
            layers = [CompiledLayer(layer, edge, condition) for layer in self.layers]
            return Tables(node, condition, layers, CompiledGraphs)
        layers = [partial(layer, table=edge, condition=condition) for layer in self.layers]
        return Tables(node, condition, layers, Neighbours.of)

    @property
    def is_compiled(self) -> bool:
        """Whether the layers are the compiled ones."""
        fits = self.special_edges.device.type == "cpu" and self.special_edges.dtype == torch.float32
        return self.kernels == "compiled" or (self.kernels == "auto" and fits)

    def encode(self, nodes: Tensor, ends: Tensor, n_nodes: Tensor, tables: Tables) -> list[Tensor]:
        """(B, T, width) tokens of the graphs of each size.

        Args:
            nodes: (M, S) kinds, those of empty slots last, graphs in order of their size.
            ends: (M, S, S) likewise.
            n_nodes: (M,) not decreasing.
            tables: as above.
        """
        groups, tokens, start = [], [], 0  # groups are of graphs of equal size
        for size, count in enumerate(torch.bincount(n_nodes).tolist()):
            if count:
                graphs = slice(start, start + count)
                kinds = nn.functional.pad(nodes[graphs, :size], (1, 0), value=len(tables.node))  # the virtual node's
                tokens.append(kinds.flatten())
                groups.append(self.kinds(ends[graphs, :size, :size]))
            start += count
        tokens = torch.cat([tables.node, tables.condition[None]]).index_select(0, torch.cat(tokens))
        neighbours = tables.neighbours(groups)
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            for layer in tables.layers:
                tokens = layer(tokens, neighbours)
        shapes = [kinds.shape[:2] for kinds in groups]
        parts = tokens.split([shape.numel() for shape in shapes])
        return [part.unflatten(0, shape) for part, shape in zip(parts, shapes, strict=True)]

    def kinds(self, ends: Tensor) -> Tensor:
        """(B, T, T) at [t, s]: the kind of the edge to token t from s, -1 where there is none.

        Args:
            ends: (B, T-1, T-1); edges to and from the virtual node and from every token to itself are added.
        """
        n_graphs, size, _ = ends.shape
        kinds = ends.new_full((n_graphs, size + 1, size + 1), VIRTUAL)
        pair = (ends - 1) * self.n_end_kinds + ends.transpose(1, 2) - 1
        kinds[:, 1:, 1:] = torch.where(ends > 0, FIRST + pair, ABSENT)
        kinds.diagonal(dim1=1, dim2=2).fill_(SELF)
        return kinds


def _made_of(n_values: Sequence[int]) -> Tensor:
    """(kinds + 1, values + 1) 1 at the values that each kind is made of, 0 elsewhere; the stand-in is last in both."""
    values = torch.arange(sum(n_values)).split(list(n_values))
    kinds = torch.cartesian_prod(*values).view(-1, len(n_values))
    made_of = torch.zeros(len(kinds) + 1, sum(n_values) + 1)
    made_of[:-1].scatter_(1, kinds, 1.0)
    made_of[-1, -1] = 1.0
    return made_of


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
