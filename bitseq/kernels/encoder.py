"""A whole transformer encoder and its gradient as two compiled functions.

    x <- norm_1(x + dropout(attention(x))),   x <- norm_2(x + dropout(down(dropout(relu(up(x))))))

layer by layer (Vaswani et al. 2017; ``torch.nn.TransformerEncoderLayer`` with its defaults, whose parameters these
are). Strings go through all layers block by block, so that what is computed stays in a core's cache. Per block and
layer one segment of an array keeps what the gradient reads; without a gradient all of them are the same segment,
written over and over. Conventions as in ``kernels.primitives``.
"""

from typing import NamedTuple

from numba import njit

from bitseq.kernels import LANES
from bitseq.kernels.attention import attention, attention_backward
from bitseq.kernels.primitives import (
    FAST,
    F,
    U,
    aligned,
    dropout,
    linear,
    linear_backward,
    normalise,
    normalise_backward,
)

PER_BLOCK = U(LANES)  # strings times heads
EMBEDDING, WEIGHTS, ATTENTION, HIDDEN, FEED_FORWARD = map(U, range(5))  # a dropout each; the last four per layer


class Segment(NamedTuple):
    """Where a segment keeps what of a layer, and its length."""

    inputs: U
    qkv: U
    mixed: U
    normal_1: U
    inverse_1: U
    middle: U
    hidden: U
    normal_2: U
    inverse_2: U
    weights: U
    length: U


@njit(cache=True)
def segment_of(sizes):
    """The offsets within a segment of a pass."""
    rows = PER_BLOCK // sizes.n_heads * sizes.n_tokens
    numbers = rows * sizes.n_heads * sizes.n_features
    qkv = numbers
    mixed = qkv + U(3) * numbers
    normal_1 = mixed + numbers
    inverse_1 = normal_1 + numbers
    middle = inverse_1 + rows
    hidden = middle + numbers
    normal_2 = hidden + rows * sizes.ff_width
    inverse_2 = normal_2 + numbers
    weights = inverse_2 + rows
    length = weights + sizes.n_tokens * sizes.n_tokens * PER_BLOCK
    return Segment(U(0), qkv, mixed, normal_1, inverse_1, middle, hidden, normal_2, inverse_2, weights, length)


class Offsets(NamedTuple):
    """Where a layer's matrices lie among its parameters, each before its bias, and its gains; their number."""

    qkv: U
    out: U
    up: U
    down: U
    gain_1: U
    gain_2: U
    length: U


@njit(fastmath=FAST, forceinline=True)
def offsets_of(sizes):
    """The offsets within a layer's parameters."""
    width, ff_width = sizes.n_heads * sizes.n_features, sizes.ff_width
    out = U(3) * width * (width + U(1))
    up = out + width * (width + U(1))
    down = up + ff_width * (width + U(1))
    gain_1 = down + width * (ff_width + U(1))
    gain_2 = gain_1 + U(2) * width
    return Offsets(U(0), out, up, down, gain_1, gain_2, gain_2 + U(2) * width)


@njit(fastmath=FAST, forceinline=True)
def _transposed(parameters, sizes):
    """The parameters with every matrix (inputs, outputs), as a forward product reads it."""
    width, ff_width = sizes.n_heads * sizes.n_features, sizes.ff_width
    offsets, result = offsets_of(sizes), aligned(U(len(parameters)))
    result[:] = parameters
    for layer in range(sizes.n_layers):
        p = layer * offsets.length
        _transpose(parameters, p + offsets.qkv, U(3) * width, width, result)
        _transpose(parameters, p + offsets.out, width, width, result)
        _transpose(parameters, p + offsets.up, ff_width, width, result)
        _transpose(parameters, p + offsets.down, width, ff_width, result)
    return result


@njit(fastmath=FAST, forceinline=True)
def _transpose(matrix, at, n_rows, n_columns, result):
    for row in range(n_rows):
        for column in range(n_columns):
            result[at + column * n_rows + row] = matrix[at + row * n_columns + column]


@njit(cache=True, fastmath=FAST)
def forward_pass(tokens, rows, qkv_table, parameters, saved, sizes, keys, threshold, keeps, out):
    """What the layers make of dropout(tokens).

    Args:
        tokens: (string, token, feature), or a table (row, feature) of them.
        rows: (string, token) row of each in the table; empty: there is no table.
        qkv_table: (row, ...) the first layer's queries, keys and values of the table's rows.
        parameters: of all layers, in torch's order, heads as ``attention`` has them.
        saved: segments, filled with what ``backward_pass`` reads if ``keeps``; else one, for work.
        sizes: of the pass.
        keys: (4 layers + 1, 2) random words.
        threshold: probability of the dropouts times 2^32.
        keeps: whether ``backward_pass`` will follow.
        out: (string, token that is read, feature), filled.
    """
    width, ff_width, per_block = sizes.n_heads * sizes.n_features, sizes.ff_width, PER_BLOCK // sizes.n_heads
    segment, offsets, parameters = segment_of(sizes), offsets_of(sizes), _transposed(parameters, sizes)
    branch = aligned(per_block * sizes.n_tokens * width)
    step, s, looks_up = segment.length if keeps else U(0), U(0), len(rows) > 0
    for first in range(U(0), sizes.n_strings, per_block):
        n = min(per_block, sizes.n_strings - first)
        n_rows, position = n * sizes.n_tokens, first * sizes.n_tokens * width
        if looks_up:
            _look_up(tokens, rows, first * sizes.n_tokens, n_rows, width, saved, s)
        else:
            for i in range(n_rows * width):
                saved[s + i] = tokens[position + i]
        dropout(saved, s, n_rows * width, position, _key(keys, U(0), EMBEDDING), threshold)
        for layer in range(sizes.n_layers):
            p, is_last = layer * offsets.length, layer == sizes.n_layers - U(1)
            qkv, mixed, middle, hidden = s + segment.qkv, s + segment.mixed, s + segment.middle, s + segment.hidden
            weights_at, of_weights = s + segment.weights, first * sizes.n_heads * sizes.n_tokens * sizes.n_tokens
            n_read = sizes.n_read if is_last else sizes.n_tokens
            read, position = n * n_read, first * n_read * width
            if looks_up and layer == U(0):
                _look_up(qkv_table, rows, first * sizes.n_tokens, n_rows, U(3) * width, saved, qkv)
            else:
                linear(saved, s, n_rows, width, parameters, p + offsets.qkv, U(3) * width, saved, qkv)
            key = _key(keys, layer, WEIGHTS)
            attention(saved, qkv, n, n_read, sizes, of_weights, key, threshold, saved, weights_at, saved, mixed)
            linear(saved, mixed, read, width, parameters, p + offsets.out, width, branch, U(0))
            dropout(branch, U(0), read * width, position, _key(keys, layer, ATTENTION), threshold)
            _add_rows(saved, s, sizes.n_tokens, branch, n_read, n, n_read, width)
            normal, inverse = s + segment.normal_1, s + segment.inverse_1
            normalise(branch, parameters, p + offsets.gain_1, read, width, saved, normal, inverse, saved, middle)
            linear(saved, middle, read, width, parameters, p + offsets.up, ff_width, saved, hidden)
            for i in range(read * ff_width):
                saved[hidden + i] = max(saved[hidden + i], F(0))
            key = _key(keys, layer, HIDDEN)
            dropout(saved, hidden, read * ff_width, first * n_read * ff_width, key, threshold)
            linear(saved, hidden, read, ff_width, parameters, p + offsets.down, width, branch, U(0))
            dropout(branch, U(0), read * width, position, _key(keys, layer, FEED_FORWARD), threshold)
            _add_rows(saved, middle, n_read, branch, n_read, n, n_read, width)
            normal, inverse = s + segment.normal_2, s + segment.inverse_2
            s += step
            target, at = (out, position) if is_last else (saved, s)
            normalise(branch, parameters, p + offsets.gain_2, read, width, saved, normal, inverse, target, at)


@njit(cache=True, fastmath=FAST)
def backward_pass(gradient, parameters, saved, sizes, keys, threshold, of_tokens, of_parameters):
    """The gradient of ``forward_pass``: fill ``of_tokens`` and add to ``of_parameters``; the rest as there."""
    width, ff_width, per_block = sizes.n_heads * sizes.n_features, sizes.ff_width, PER_BLOCK // sizes.n_heads
    segment, offsets, numbers = segment_of(sizes), offsets_of(sizes), per_block * sizes.n_tokens * width
    of_inputs, of_branch = aligned(numbers), aligned(numbers)
    of_middle, of_mixed = aligned(numbers), aligned(numbers)
    of_qkv, of_hidden = aligned(U(3) * numbers), aligned(per_block * sizes.n_tokens * ff_width)
    keep_scale = F(1 / (1 - threshold / 2.0**32))
    for first in range(U(0), sizes.n_strings, per_block):
        n = min(per_block, sizes.n_strings - first)
        rows = n * sizes.n_tokens
        for i in range(n * sizes.n_read * width):
            of_inputs[i] = gradient[first * sizes.n_read * width + i]
        for above in range(sizes.n_layers):
            layer = sizes.n_layers - U(1) - above
            p, s = layer * offsets.length, (first // per_block * sizes.n_layers + layer) * segment.length
            qkv, mixed, middle, hidden = s + segment.qkv, s + segment.mixed, s + segment.middle, s + segment.hidden
            weights_at, of_weights = s + segment.weights, first * sizes.n_heads * sizes.n_tokens * sizes.n_tokens
            n_read = sizes.n_read if above == U(0) else sizes.n_tokens
            read, position = n * n_read, first * n_read * width
            normal, inverse = s + segment.normal_2, s + segment.inverse_2
            gain = p + offsets.gain_2
            normalise_backward(
                saved, normal, inverse, parameters, gain, read, width, of_inputs, of_middle, of_parameters
            )
            of_branch[:] = of_middle
            dropout(of_branch, U(0), read * width, position, _key(keys, layer, FEED_FORWARD), threshold)
            of_hidden[:] = F(0)
            at = p + offsets.down
            linear_backward(of_branch, read, width, saved, hidden, ff_width, parameters, at, of_parameters, of_hidden)
            for i in range(read * ff_width):  # above 0: active, and kept
                of_hidden[i] *= keep_scale if saved[hidden + i] > 0 else F(0)
            at = p + offsets.up
            linear_backward(of_hidden, read, ff_width, saved, middle, width, parameters, at, of_parameters, of_middle)
            normal, inverse = s + segment.normal_1, s + segment.inverse_1
            gain = p + offsets.gain_1
            normalise_backward(
                saved, normal, inverse, parameters, gain, read, width, of_middle, of_branch, of_parameters
            )
            of_inputs[:] = F(0)
            _add_rows(of_branch, U(0), n_read, of_inputs, sizes.n_tokens, n, n_read, width)
            dropout(of_branch, U(0), read * width, position, _key(keys, layer, ATTENTION), threshold)
            of_mixed[:] = F(0)
            at = p + offsets.out
            linear_backward(of_branch, read, width, saved, mixed, width, parameters, at, of_parameters, of_mixed)
            key = _key(keys, layer, WEIGHTS)
            attention_backward(
                saved, qkv, n, n_read, sizes, of_weights, key, threshold, saved, weights_at, of_mixed, of_qkv
            )
            at = p + offsets.qkv
            linear_backward(of_qkv, rows, U(3) * width, saved, s, width, parameters, at, of_parameters, of_inputs)
        position = first * sizes.n_tokens * width
        dropout(of_inputs, U(0), rows * width, position, _key(keys, U(0), EMBEDDING), threshold)
        for i in range(rows * width):
            of_tokens[position + i] = of_inputs[i]


@njit(inline="always")
def _key(keys, layer, site):
    return keys[U(4) * layer + site, 0], keys[U(4) * layer + site, 1]


@njit(fastmath=FAST, forceinline=True)
def _look_up(table, rows, first, n_rows, width, target, at):
    """Copy the rows that ``rows`` names from ``first`` on."""
    for r in range(n_rows):
        source = rows[first + r] * width
        for c in range(width):
            target[at + r * width + c] = table[source + c]


@njit(fastmath=FAST, forceinline=True)
def _add_rows(source, at, source_tokens, target, target_tokens, n, n_read, width):
    """Add the first tokens' rows of every string in ``source`` to theirs in ``target``."""
    for r in range(n):
        for i in range(n_read * width):
            target[r * target_tokens * width + i] += source[at + r * source_tokens * width + i]
