"""Attention of short strings for one core, forward and backward.

The strings of a block are attended to together, in a layout where every loop runs over ``LANES`` neighbouring numbers,

    (token, feature of a head, lane),   lane = (string of the block, head),

in which scores, softmax and mixing need neither a sum across lanes nor a copy: seven times as fast as torch's batched
products at 16 tokens and heads of 8 features. Conventions as in ``kernels.primitives``.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from bitseq.kernels import LANES
from bitseq.kernels.primitives import FAST, F, U, aligned, dropout

L = U(LANES)
LOG2_E = F(math.log2(math.e))
E1, E2, E3, E4, E5, E6 = (F(math.log(2) ** n / math.factorial(n)) for n in range(1, 7))  # Taylor series of 2^x


class Sizes(NamedTuple):
    """Of one pass, all unsigned.

    Attributes:
        n_strings, n_tokens: B and T.
        n_read: how many tokens of a string, the first ones, leave the last layer.
        n_heads, n_features: heads, a divisor of ``LANES``, and features of each; their product is the width.
        ff_width: hidden units of the feed-forward part.
        n_layers: of the encoder.
    """

    n_strings: U
    n_tokens: U
    n_read: U
    n_heads: U
    n_features: U
    ff_width: U
    n_layers: U


@njit(fastmath=FAST, forceinline=True)
def attention(qkv, at, n, n_read, sizes, position, key, threshold, weights, weights_at, mixed, mixed_at):
    """The first tokens' mixes of all tokens of their string, for one block of strings (Vaswani et al. 2017, 3.2).

    Args:
        qkv, at: rows (string, token) of queries, keys, values, each (feature, head).
        n: strings, at most ``LANES`` / heads.
        n_read: tokens of a string that look at all of them, the first ones.
        sizes: of the pass.
        position, key, threshold: of the dropout on the weights.
        weights, weights_at: where the softmax goes, (token that looks, token, lane).
        mixed, mixed_at: where rows (string, token that looks) of (feature, head) go.
    """
    n_tokens, n_heads, n_features = sizes.n_tokens, sizes.n_heads, sizes.n_features
    size, row, scale = n_features * L, n_tokens * L, F(1 / math.sqrt(n_features))
    step = U(3) * size
    block, out, dropped = _packed(qkv, at, n, n_tokens, U(3), n_heads, n_features), aligned(n_read * size), aligned(row)
    for i in range(n_read):
        w = weights_at + i * row
        _products(block, i * step, block, size, step, size, n_tokens, weights, w)
        _softmax(weights, w, n_tokens, scale)
        if threshold == 0:
            _mix(weights, w, L, block, U(2) * size, step, size, n_tokens, out, i * size)
            continue
        for k in range(row):
            dropped[k] = weights[w + k]
        dropout(dropped, U(0), row, position + i * row, key, threshold)
        _mix(dropped, U(0), L, block, U(2) * size, step, size, n_tokens, out, i * size)
    _unpack(out, n, n_read, U(1), n_heads, n_features, mixed, mixed_at)


@njit(fastmath=FAST, forceinline=True)
def attention_backward(qkv, at, n, n_read, sizes, position, key, threshold, weights, weights_at, gradient, of_qkv):
    """Gradient of ``attention``: rows of ``gradient`` -> rows of ``of_qkv``; the rest as there."""
    n_tokens, n_heads, n_features = sizes.n_tokens, sizes.n_heads, sizes.n_features
    size, row, scale = n_features * L, n_tokens * L, F(1 / math.sqrt(n_features))
    step = U(3) * size
    block = _packed(qkv, at, n, n_tokens, U(3), n_heads, n_features)
    of_mixed = _packed(gradient, U(0), n, n_read, U(1), n_heads, n_features)
    of_block, total = aligned(n_tokens * step), aligned(L)
    dropped, of_scores = aligned(n_read * row), aligned(n_read * row)
    of_block[:] = F(0)
    for i in range(n_read):
        _products(of_mixed, i * size, block, U(2) * size, step, size, n_tokens, of_scores, i * row)
    for k in range(n_read * row):
        dropped[k] = weights[weights_at + k]
    dropout(dropped, U(0), n_read * row, position, key, threshold)
    dropout(of_scores, U(0), n_read * row, position, key, threshold)
    for i in range(n_read):
        w, s = weights_at + i * row, i * row
        for lane in range(L):
            total[lane] = F(0)
        for j in range(n_tokens):
            for lane in range(L):
                total[lane] += of_scores[s + j * L + lane] * weights[w + j * L + lane]
        for j in range(n_tokens):
            for lane in range(L):
                k = j * L + lane
                of_scores[s + k] = (of_scores[s + k] - total[lane]) * weights[w + k] * scale
        _mix(of_scores, s, L, block, size, step, size, n_tokens, of_block, i * step)
    for j in range(n_tokens):
        _mix(of_scores, j * L, row, block, U(0), step, size, n_read, of_block, j * step + size)
        _mix(dropped, j * L, row, of_mixed, U(0), size, size, n_read, of_block, j * step + U(2) * size)
    _unpack(of_block, n, n_tokens, U(3), n_heads, n_features, of_qkv, U(0))


@njit(fastmath=FAST, forceinline=True)
def _packed(rows, at, n_strings, n_tokens, n_parts, n_heads, n_features):
    """Rows (string, token) of (part, feature, head) -> (token, part, feature, lane); lanes without a string are 0."""
    block = aligned(n_tokens * n_parts * n_features * L)
    if n_strings * n_heads < L:
        block[:] = F(0)
    for r in range(n_strings):
        for t in range(n_tokens):
            for part in range(n_parts):
                source = at + ((r * n_tokens + t) * n_parts + part) * n_heads * n_features
                target = (t * n_parts + part) * n_features * L + r * n_heads
                for c in range(n_features):
                    for h in range(n_heads):
                        block[target + c * L + h] = rows[source + c * n_heads + h]
    return block


@njit(fastmath=FAST, forceinline=True)
def _unpack(block, n_strings, n_tokens, n_parts, n_heads, n_features, rows, at):
    """The inverse of ``_packed``."""
    for r in range(n_strings):
        for t in range(n_tokens):
            for part in range(n_parts):
                target = at + ((r * n_tokens + t) * n_parts + part) * n_heads * n_features
                source = (t * n_parts + part) * n_features * L + r * n_heads
                for c in range(n_features):
                    for h in range(n_heads):
                        rows[target + c * n_heads + h] = block[source + c * L + h]


@njit(fastmath=FAST, forceinline=True)
def _products(left, left_at, right, right_at, right_step, size, n, out, out_at):
    """out[j] = sum_d left[d] right[j, d], lane by lane, for j below n."""
    for j in range(n):
        o, k = out_at + j * L, right_at + j * right_step
        for lane in range(L):
            out[o + lane] = F(0)
        whole = size - size % (U(4) * L)
        for d in range(U(0), whole, U(4) * L):
            x, y = left_at + d, k + d
            for lane in range(L):
                out[o + lane] += (
                    left[x + lane] * right[y + lane]
                    + left[x + L + lane] * right[y + L + lane]
                    + left[x + U(2) * L + lane] * right[y + U(2) * L + lane]
                    + left[x + U(3) * L + lane] * right[y + U(3) * L + lane]
                )
        for d in range(whole, size, L):
            for lane in range(L):
                out[o + lane] += left[left_at + d + lane] * right[k + d + lane]


@njit(fastmath=FAST, forceinline=True)
def _mix(weights, weights_at, weights_step, values, values_at, values_step, size, n, out, out_at):
    """out[d] = sum_j weights[j] values[j, d], lane by lane, over j below n."""
    whole = n - n % U(4)
    for d in range(U(0), size, L):
        o = out_at + d
        for lane in range(L):
            out[o + lane] = F(0)
        for j in range(U(0), whole, U(4)):
            p, v = weights_at + j * weights_step, values_at + j * values_step + d
            for lane in range(L):
                out[o + lane] += (
                    weights[p + lane] * values[v + lane]
                    + weights[p + weights_step + lane] * values[v + values_step + lane]
                    + weights[p + U(2) * weights_step + lane] * values[v + U(2) * values_step + lane]
                    + weights[p + U(3) * weights_step + lane] * values[v + U(3) * values_step + lane]
                )
        for j in range(whole, n):
            p, v = weights_at + j * weights_step, values_at + j * values_step + d
            for lane in range(L):
                out[o + lane] += weights[p + lane] * values[v + lane]


@njit(fastmath=FAST, forceinline=True)
def _softmax(scores, at, n, scale):
    """In place: scores[j] of j below n -> exp(scale scores[j]) / sum, lane by lane; 2^x as 2^floor(x) 2^rest."""
    largest, total, powers = aligned(L), aligned(L), aligned(L)
    bits = powers.view(np.int32)
    for lane in range(L):
        largest[lane], total[lane] = scores[at + lane], F(0)
    for j in range(U(1), n):
        for lane in range(L):
            largest[lane] = max(largest[lane], scores[at + j * L + lane])
    for j in range(n):
        s = at + j * L
        for lane in range(L):
            power = max((scores[s + lane] - largest[lane]) * (scale * LOG2_E), F(-126))
            whole = np.floor(power + F(0.5))
            x = power - whole
            bits[lane] = (np.int32(whole) + np.int32(127)) << np.int32(23)  # the exponent's place in a float
            scores[s + lane] = F(1) + x * (E1 + x * (E2 + x * (E3 + x * (E4 + x * (E5 + x * E6)))))
        for lane in range(L):
            scores[s + lane] *= powers[lane]
            total[lane] += scores[s + lane]
    for lane in range(L):
        total[lane] = F(1) / total[lane]
    for j in range(n):
        for lane in range(L):
            scores[at + j * L + lane] *= total[lane]
