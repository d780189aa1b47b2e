"""The trunk that P_F, P_B and log F read: a transformer encoder over the words of a string.

The network of Malkin et al. 2022 and Gritsaev et al. 2025: a begin token, then the L words or empty marks, embedded
into 64 numbers with sinusoidal positions added; three layers of eight heads, normalised after each residual sum, ReLU
in between; dropout on the embedding, on attention weights and before every residual sum.
"""

import math

import torch
from torch import Tensor, nn

from bitseq.linear import Linear

LANES = 4  # 16-bit numbers in each 64-bit draw


def dropout_factors(shape: torch.Size, probability: float, like: Tensor) -> Tensor:
    """0 with the given probability, else 1 / (1 - probability), independently.

    Draws 16 bits a number, four numbers at a time: a third of the time of torch's own dropout, which was most of a
    training step. The probability is met to 1/65536.
    """
    size = math.prod(shape)
    bits = torch.empty(-(-size // LANES), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    numbers = bits.view(torch.int16)[:size].view(shape)
    threshold = min(round(probability * 2**16), 2**16 - 1) - 2**15
    kept = torch.ge(numbers, threshold, out=like.new_empty(shape))
    return kept.mul_(1 / (1 - probability))


class Dropout(nn.Module):
    """``nn.Dropout`` with faster random numbers, from torch's generator; nothing in eval mode."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, inputs: Tensor) -> Tensor:
        """Some elements at 0, the others scaled so that the expectation stays."""
        if not self.training or self.probability == 0:
            return inputs
        return inputs * dropout_factors(inputs.shape, self.probability, inputs)


class EncoderLayer(nn.Module):
    """``nn.TransformerEncoderLayer`` with its defaults, by plain batched products, which win at 16 tokens.

    Args:
        width: of a token.
        n_heads: attention heads, a divisor of ``width``.
        ff_width: hidden units of the feed-forward part.
        dropout: its probability.
    """

    def __init__(self, width: int, n_heads: int, ff_width: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query_key_value = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.up, self.down = Linear(width, ff_width), Linear(ff_width, width)
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.query_key_value.weight)  # torch's own initialisation of attention
        nn.init.zeros_(self.query_key_value.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        tokens = self.norm_attention(tokens + self.dropout(self.attention(tokens)))
        hidden = self.dropout(self.up(tokens).relu())
        return self.norm_feed_forward(tokens + self.dropout(self.down(hidden)))

    def attention(self, tokens: Tensor) -> Tensor:
        """Every token's mix of all tokens, head by head."""
        n_rows, n_tokens, _ = tokens.shape
        per_head = self.query_key_value(tokens).view(n_rows, n_tokens, 3 * self.n_heads, -1).transpose(1, 2)
        query, key, value = (
            part.reshape(n_rows * self.n_heads, n_tokens, -1) for part in per_head.split(self.n_heads, dim=1)
        )
        scale = query.shape[-1] ** -0.5
        scores = torch.baddbmm(query.new_zeros(()), query, key.transpose(1, 2), beta=0, alpha=scale)
        weights = self.dropout(scores.softmax(-1))
        # Transposed, (rows * heads, width of a head, tokens): at these sizes twice as fast as weights @ value.
        mixed = torch.bmm(value.transpose(1, 2), weights.transpose(1, 2))
        return self.out(mixed.view(n_rows, -1, n_tokens).transpose(1, 2))


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
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(width, n_heads, ff_width, dropout) for _ in range(n_layers))

    def forward(self, states: Tensor) -> Tensor:
        """(M, L) states -> (M, 1 + L, width) features, the begin token's first."""
        tokens = nn.functional.pad(states, (1, 0), value=self.begin)
        hidden = self.dropout(self.embedding(tokens) + self.positions)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


def sinusoidal_positions(n_tokens: int, width: int) -> Tensor:
    """(n_tokens, width) sine and cosine of each position at geometric wavelengths (Vaswani et al. 2017, 3.5)."""
    angle = torch.arange(n_tokens)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]
