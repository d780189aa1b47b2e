"""The trunk that P_F, P_B and log F read: a transformer encoder over the words of a string.

The network of Malkin et al. 2022 and Gritsaev et al. 2025: a begin token, then the L words or empty marks, embedded
into 64 numbers with sinusoidal positions added; three layers of eight heads, normalised after each residual sum, ReLU
in between; dropout on the embedding, on attention weights, on the hidden units of the feed-forward part, and before
every residual sum.
"""

import math

import torch
from torch import Tensor, nn

from bitseq.policies.forms import TORCH, Form


class Trunk(nn.Module):
    """States -> hidden features of the begin token and of every position.

    Args:
        length: L, positions of a state.
        n_words: V; the vocabulary is the words, the empty mark and the begin token.
        width, n_layers, n_heads, ff_width, dropout: of the encoder.
        form: what computes it.
    """

    def __init__(
        self,
        length: int,
        n_words: int,
        *,
        width: int,
        n_layers: int,
        n_heads: int,
        ff_width: int,
        dropout: float,
        form: Form = TORCH,
    ) -> None:
        super().__init__()
        self.begin = n_words + 1
        self.embedding = nn.Embedding(n_words + 2, width)
        self.register_buffer("positions", sinusoidal_positions(length + 1, width), persistent=False)
        self.dropout, self.form = dropout, form
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, n_heads, ff_width, dropout, batch_first=True) for _ in range(n_layers)
        )

    def forward(self, states: Tensor, begin_only: bool = False) -> Tensor:
        """(M, L) states -> (M, 1 + L, width) features, the begin token's first; (M, 1, width) if that is enough."""
        tokens = self.embedding(nn.functional.pad(states, (1, 0), value=self.begin)) + self.positions
        probability, n_read = self.dropout if self.training else 0.0, 1 if begin_only else tokens.shape[1]
        return self.form.encode(self.layers, tokens, probability, n_read)

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
        return self.form.encode_rows(self.layers, table, rows, 1 + positions.shape[1])


def sinusoidal_positions(n_tokens: int, width: int) -> Tensor:
    """(n_tokens, width) sine and cosine of each position at geometric wavelengths (Vaswani et al. 2017, 3.5)."""
    angle = torch.arange(n_tokens)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]
