"""What a layer of the graph transformer does besides its linear maps, compiled for one core, and its gradients.

Graph after graph, within a core's cache; only pairs of neighbours are looked at. In the arrays of pairs, the kind of
the edge to token t from token s of a graph of T tokens stands at ``pairs[graph] + t T + s``, -1 where there is none.

Arrays are flat, sizes and offsets unsigned: a slice would count references, and a signed offset may be negative; either
keeps an inner loop from being vectorised. Parts that several functions share are inlined: shared, they would be one
piece of code in the process that compiles and another, which rounds otherwise, in one that loads.
"""

import math

import numpy as np
from numba import njit

U = np.uint64  # offsets
FAST = {"contract", "nsz", "arcp", "reassoc"}  # sums may be reassociated; infinities keep their meaning
NORM_EPSILON = 1e-5  # of the normalisation, torch's own
GEN_EPSILON = 1e-7  # GENConv's: keeps messages positive


@njit(fastmath=FAST, forceinline=True)
def _normalise(tokens, start, size, width, out, out_width):
    """Rows of ``out`` = those of a graph at mean 0 and variance 1; returns 1 / the deviation."""
    number = tokens.dtype.type
    mean, square, n, first = number(0), number(0), number(size * width), start * width
    for i in range(first, first + size * width):
        mean += tokens[i]
    mean /= n
    for i in range(first, first + size * width):
        square += (tokens[i] - mean) * (tokens[i] - mean)
    inverse = number(1) / number(math.sqrt(square / n + NORM_EPSILON))
    for row in range(start, start + size):
        for c in range(width):
            out[row * out_width + c] = (tokens[row * width + c] - mean) * inverse
    return inverse


@njit(fastmath=FAST, forceinline=True)
def _normalise_backward(gradient, start, size, width, normed, normed_width, inverse):
    """In place: the gradient of ``_normalise`` from that of its result."""
    number = gradient.dtype.type
    mean, along, n = number(0), number(0), number(size * width)
    for row in range(start, start + size):
        for c in range(width):
            mean += gradient[row * width + c]
            along += gradient[row * width + c] * normed[row * normed_width + c]
    mean, along = mean / n, along / n
    for row in range(start, start + size):
        for c in range(width):
            rest = gradient[row * width + c] - mean - normed[row * normed_width + c] * along
            gradient[row * width + c] = rest * inverse


@njit(fastmath=FAST, forceinline=True)
def _product(left, i, right, j, edge, k, n):
    """Scalar product of n numbers with sums of n numbers."""
    total = left.dtype.type(0)
    for c in range(n):
        total += left[i + c] * (right[j + c] + edge[k + c])
    return total


@njit(fastmath=FAST, forceinline=True)
def _add_sum(out, i, factor, right, j, edge, k, n):
    """Add the factor times sums of n numbers."""
    for c in range(n):
        out[i + c] += factor * (right[j + c] + edge[k + c])


@njit(fastmath=FAST, forceinline=True)
def _add_to_both(out, i, other, j, factor, values, k, n):
    """Add the factor times n numbers in two places."""
    for c in range(n):
        out[i + c] += factor * values[k + c]
        other[j + c] += factor * values[k + c]


@njit(cache=True, fastmath=FAST)
def receive(tokens, table, first, pairs, kinds, width, out, inverse):
    """Fill ``out``: (n, 2 width) normalised tokens, and these plus the messages to them (GENConv).

    Args:
        tokens: (n, width).
        table: (K, width) embeddings of the kinds of edges.
        first, pairs: (G + 1,) where the tokens and the pairs of each graph begin.
        kinds: of the pairs.
        width: of a token.
        inverse: (G,) filled, for the gradient.
    """
    zero, two = tokens.dtype.type(0), U(2) * width
    for graph in range(len(first) - 1):
        start, size, pair = first[graph], first[graph + 1] - first[graph], pairs[graph]
        inverse[graph] = _normalise(tokens, start, size, width, out, two)
        heard = np.empty(width, tokens.dtype)
        for t in range(start, start + size):
            for c in range(width):
                heard[c] = out[t * two + c] + GEN_EPSILON
            for s in range(start, start + size):
                if kinds[pair] >= 0:
                    edge = U(kinds[pair]) * width
                    for c in range(width):
                        heard[c] += max(out[s * two + c] + table[edge + c], zero)
                pair += U(1)
            for c in range(width):
                out[t * two + width + c] = heard[c]


@njit(cache=True, fastmath=FAST)
def receive_backward(gradient, out, table, first, pairs, kinds, width, inverse, of_tokens, of_table):
    """The gradient of ``receive``: fill (n, width) ``of_tokens``, add to (K, width) ``of_table``."""
    zero, two = table.dtype.type(0), U(2) * width
    for graph in range(len(first) - 1):
        start, size, pair = first[graph], first[graph + 1] - first[graph], pairs[graph]
        for t in range(start, start + size):
            for c in range(width):
                of_tokens[t * width + c] = gradient[t * two + c] + gradient[t * two + width + c]
        for t in range(start, start + size):
            for s in range(start, start + size):
                if kinds[pair] >= 0:
                    edge, to, by = U(kinds[pair]) * width, s * width, t * two + width
                    for c in range(width):
                        passes = out[s * two + c] + table[edge + c] > zero
                        part = gradient[by + c] if passes else zero
                        of_tokens[to + c] += part
                        of_table[edge + c] += part
                pair += U(1)
        _normalise_backward(of_tokens, start, size, width, out, two, inverse[graph])


@njit(cache=True, fastmath=FAST)
def attend(
    mapped, edge_key, edge_value, tokens, first, pairs, kinds, width, n_heads, n_kinds, weights, out, normed, inverse
):
    """Fill (n, width) ``out``: tokens, plus attention to the neighbours and what skips it; and ``normed``.

    Args:
        mapped: (n, 3 heads * width + width) queries, keys, values of each head, and what skips.
        edge_key, edge_value: (heads, K, width) what a kind of edge adds to a key and to a value.
        tokens: (n, width).
        first, pairs, kinds, width, inverse: as ``receive``.
        n_heads, n_kinds: heads and K.
        weights: (P, heads) filled: of the pairs, for the gradient.
    """
    number, columns = tokens.dtype.type, (U(3) * n_heads + U(1)) * width
    for graph in range(len(first) - 1):
        start, size = first[graph], first[graph + 1] - first[graph]
        for t in range(size):
            row, skip, pair = (start + t) * width, (start + t) * columns, pairs[graph] + t * size
            skip += U(3) * n_heads * width
            for c in range(width):
                out[row + c] = tokens[row + c] + mapped[skip + c]
            for head in range(n_heads):
                query = (start + t) * columns + head * width
                largest, total = -number(np.inf), number(0)
                for s in range(size):
                    if kinds[pair + s] >= 0:
                        key = (start + s) * columns + (n_heads + head) * width
                        edge = (head * n_kinds + U(kinds[pair + s])) * width
                        score = _product(mapped, query, mapped, key, edge_key, edge, width)
                        weights[(pair + s) * n_heads + head] = score
                        largest = max(largest, score)
                for s in range(size):
                    if kinds[pair + s] >= 0:
                        weight = math.exp(weights[(pair + s) * n_heads + head] - largest)
                        weights[(pair + s) * n_heads + head] = weight
                        total += weight
                for s in range(size):
                    if kinds[pair + s] >= 0:
                        weight = weights[(pair + s) * n_heads + head] / total
                        weights[(pair + s) * n_heads + head] = weight
                        value = (start + s) * columns + (U(2) * n_heads + head) * width
                        edge = (head * n_kinds + U(kinds[pair + s])) * width
                        _add_sum(out, row, weight, mapped, value, edge_value, edge, width)
        inverse[graph] = _normalise(out, start, size, width, normed, width)


@njit(cache=True, fastmath=FAST)
def attend_backward(
    of_out,
    of_normed,
    mapped,
    edge_key,
    edge_value,
    first,
    pairs,
    kinds,
    width,
    n_heads,
    n_kinds,
    weights,
    normed,
    inverse,
    of_mapped,
    of_edge_key,
    of_edge_value,
):
    """The gradient of ``attend``, in ``of_mapped``, ``of_edge_key`` and ``of_edge_value``, which are 0 before.

    ``of_normed`` becomes the gradient of the tokens.
    """
    columns, of_weights = (U(3) * n_heads + U(1)) * width, np.empty(len(kinds), mapped.dtype)
    for graph in range(len(first) - 1):
        start, size = first[graph], first[graph + 1] - first[graph]
        _normalise_backward(of_normed, start, size, width, normed, width, inverse[graph])
        for t in range(size):
            row, skip, pair = (start + t) * width, (start + t) * columns, pairs[graph] + t * size
            skip += U(3) * n_heads * width
            for c in range(width):
                of_normed[row + c] += of_out[row + c]
                of_mapped[skip + c] = of_normed[row + c]
            for head in range(n_heads):
                query, along = (start + t) * columns + head * width, mapped.dtype.type(0)
                for s in range(size):
                    if kinds[pair + s] >= 0:
                        value = (start + s) * columns + (U(2) * n_heads + head) * width
                        edge = (head * n_kinds + U(kinds[pair + s])) * width
                        of_weight = _product(of_normed, row, mapped, value, edge_value, edge, width)
                        of_weights[pair + s] = of_weight
                        along += weights[(pair + s) * n_heads + head] * of_weight
                for s in range(size):
                    if kinds[pair + s] >= 0:
                        key = (start + s) * columns + (n_heads + head) * width
                        value, edge = key + n_heads * width, (head * n_kinds + U(kinds[pair + s])) * width
                        weight = weights[(pair + s) * n_heads + head]
                        of_score = weight * (of_weights[pair + s] - along)
                        _add_to_both(of_mapped, value, of_edge_value, edge, weight, of_normed, row, width)
                        _add_to_both(of_mapped, key, of_edge_key, edge, of_score, mapped, query, width)
                        _add_sum(of_mapped, query, of_score, mapped, key, edge_key, edge, width)
