"""A layer of the graph transformer as its formulas read, by torch-geometric; and who hears whom.

With h the tokens x normalised over their graph, e_st the embedding of the edge s -> t, [.,.] two vectors in one:

    m_t = W (h_t + sum_s relu(h_s + e_st) + 1e-7) + b                         GENConv, Li et al. 2020
    a_t = W_skip [h_t, m_t] + sum_s weight_st (W_value [h_s, m_s] + W_edge e_st)   TransformerConv, Shi et al. 2021
          weight_st = softmax over s of (W_query [h_t, m_t]) . (W_key [h_s, m_s] + W_edge e_st) / sqrt(width)
    x_t <- x_t + factor * (W a_t + b) + shift                                 by the conditioning
    x_t <- x_t + feed-forward(h_t)

This is the reference, and what a GPU and float64 run; ``compiled_layers`` is the same faster, on a CPU.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import leaky_relu

from mols.kernels.graph_kernels import GEN_EPSILON

ABSENT = -1  # in the place of a kind: no edge
VIRTUAL, SELF, FIRST = 0, 1, 2  # kinds of edges; those between nodes come after, one for each pair of ends


class Neighbours(NamedTuple):
    """Who hears whom in G graphs, whose n tokens stand graph after graph: their edges.

    Attributes:
        ends: (2, E) the token that each edge comes from, and the one that it goes to.
        kind: (E,).
        graph: (n,) in 0..G-1, of the tokens.
        n_graphs: G.
    """

    ends: Tensor
    kind: Tensor
    graph: Tensor
    n_graphs: int

    @classmethod
    def of(cls, kinds: Sequence[Tensor]) -> "Neighbours":
        """Of (B, T, T) kinds of the graphs of each size, at [t, s] that of the edge to token t from s, or ABSENT."""
        ends, sizes, n_tokens = [], [], 0
        for of_size in kinds:
            n_graphs, size, _ = of_size.shape
            graph, target, source = torch.nonzero(of_size != ABSENT, as_tuple=True)
            ends.append(n_tokens + graph * size + torch.stack([source, target]))
            sizes.append(graph.new_full((n_graphs,), size))
            n_tokens += n_graphs * size
        kind = torch.cat([of_size[of_size != ABSENT] for of_size in kinds])
        sizes = torch.cat(sizes)
        graph = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes, output_size=n_tokens)
        return cls(torch.cat(ends, 1), kind, graph, len(sizes))


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

    def forward(self, tokens: Tensor, neighbours: Neighbours, table: Tensor, condition: Tensor) -> Tensor:
        """(n, width) -> (n, width).

        Args:
            tokens: (n, width) graph after graph.
            neighbours: who hears whom.
            table: (K, width) embedding of every kind of edge.
            condition: (width,).
        """
        message, attention, norm = _convolutions(self.width, self.n_heads)
        of_edges = table[neighbours.kind]
        normed = norm(tokens, neighbours.graph, neighbours.n_graphs)
        inputs = (normed, normed + GEN_EPSILON), neighbours.ends, of_edges
        heard = functional_call(message, self._of_message(), inputs)
        inputs = torch.cat([normed, heard], 1), neighbours.ends, of_edges
        attended = functional_call(attention, self._of_attention(), inputs)
        factor, shift = self.condition(condition).chunk(2)
        tokens = tokens + factor * self.out(attended) + shift
        normed = norm(tokens, neighbours.graph, neighbours.n_graphs)
        return tokens + self.down(leaky_relu(self.up(normed)))

    def _of_message(self) -> Mapping[str, Tensor]:
        """The parameters of GENConv by its own names."""
        return {"mlp.0.weight": self.message.weight, "mlp.0.bias": self.message.bias}

    def _of_attention(self) -> Mapping[str, Tensor]:
        """The parameters of TransformerConv by its own names."""
        maps = "lin_query", "lin_key", "lin_value", "lin_skip"
        weights = zip(maps, self.query_key_value_skip.weight.chunk(4), strict=True)
        biases = zip(maps, self.query_key_value_skip.bias.chunk(4), strict=True)
        parameters = {f"{name}.weight": weight for name, weight in weights}
        parameters |= {f"{name}.bias": bias for name, bias in biases}
        return parameters | {"lin_edge.weight": self.edge.weight}


@cache
def _convolutions(width: int, n_heads: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """GENConv, TransformerConv and the norm, without parameters of their own: a layer lends its own to each call.

    GENConv adds its epsilon to every message; here it is added once, with the token itself, and is 0 there.
    """
    from torch_geometric.nn import GENConv, LayerNorm, TransformerConv  # seconds, which compiled runs do without

    with torch.device("meta"):
        message = GENConv(width, width, aggr="add", norm=None, num_layers=1, eps=0.0, bias=True)
        attention = TransformerConv(2 * width, width, n_heads, edge_dim=width)
        return message, attention, LayerNorm(width, affine=False)
