"""The parts of an encoder layer besides attention, for one core: products, dropout, normalisation, and their gradients.

Arrays are flat and float32, sizes and offsets unsigned: a slice would count references, and a signed offset may be
negative; either keeps an inner loop from being vectorised. ``array, at`` means: from that offset on.
Where an array begins changes the speed, see ``aligned``, and not the result.
Dropout is a pure function of a key and an element's position, so that the gradient computes it again.
All parts are inlined into the functions that are cached: shared, they would be one piece of code in the process that
compiles and another, which rounds otherwise, in one that loads.
"""

import math

import numpy as np
from numba import njit

U, F, W = np.uint64, np.float32, np.uint32  # offsets, numbers, random words
FAST = {"contract", "nsz", "arcp", "reassoc"}  # sums may be reassociated; infinities keep their meaning
EPSILON = F(1e-5)  # of the normalisation, torch's own
M1, M2, S15, S16 = W(0x21F0AAAD), W(0xD35A2D97), W(15), W(16)  # of the hash "lowbias32"


LINE = 16  # numbers in a cache line; a load that crosses two costs twice


@njit(inline="always")
def aligned(n):
    """Room for n numbers that begins with a cache line."""
    room = np.empty(n + U(LINE), F)
    first = U(-room.ctypes.data % (4 * LINE) // 4)
    return room[first : first + n]


@njit(inline="always")
def _random_word(position, low, high):
    """32 random bits of a position under a key of two words."""
    x = W(W(position) ^ low)
    x = W(W(x ^ (x >> S16)) * M1)
    x = W(W(x ^ (x >> S15)) ^ high)
    x = W(x * M2)
    return W(x ^ (x >> S15))


@njit(fastmath=FAST, forceinline=True)
def dropout(values, at, n, position, key, threshold):
    """In place: n numbers, each 0 if its word is below the threshold, else over the probability to be kept.

    Args:
        values, at: where they lie.
        n: how many.
        position: of the first; the others' follow.
        key: two words.
        threshold: probability to be dropped times 2^32; 0 drops nothing.
    """
    if threshold == 0:
        return
    low, high = key
    scale = F(1 / (1 - threshold / 2.0**32))
    for i in range(n):
        kept = _random_word(position + i, low, high) >= threshold
        values[at + i] *= scale if kept else F(0)


@njit(fastmath=FAST, forceinline=True)
def add_product(left, left_at, row_step, column_step, n_rows, n_inner, right, right_at, n_columns, out, out_at):
    """out += left @ right; ``left`` may lie transposed, by its steps. Four rows by four terms: 16 products a load."""
    whole_rows, whole = n_rows - n_rows % U(4), n_inner - n_inner % U(4)
    for row in range(U(0), whole_rows, U(4)):
        o0 = out_at + row * n_columns
        o1, o2, o3 = o0 + n_columns, o0 + U(2) * n_columns, o0 + U(3) * n_columns
        for inner in range(U(0), whole, U(4)):
            i, k0 = left_at + row * row_step + inner * column_step, right_at + inner * n_columns
            k1, k2, k3 = k0 + n_columns, k0 + U(2) * n_columns, k0 + U(3) * n_columns
            a0, a1, a2, a3 = _four(left, i, column_step)
            b0, b1, b2, b3 = _four(left, i + row_step, column_step)
            c0, c1, c2, c3 = _four(left, i + U(2) * row_step, column_step)
            d0, d1, d2, d3 = _four(left, i + U(3) * row_step, column_step)
            for c in range(n_columns):
                r0, r1, r2, r3 = right[k0 + c], right[k1 + c], right[k2 + c], right[k3 + c]
                out[o0 + c] += a0 * r0 + a1 * r1 + a2 * r2 + a3 * r3
                out[o1 + c] += b0 * r0 + b1 * r1 + b2 * r2 + b3 * r3
                out[o2 + c] += c0 * r0 + c1 * r1 + c2 * r2 + c3 * r3
                out[o3 + c] += d0 * r0 + d1 * r1 + d2 * r2 + d3 * r3
    for row in range(n_rows):
        for inner in range(whole if row < whole_rows else U(0), n_inner):
            factor = left[left_at + row * row_step + inner * column_step]
            for c in range(n_columns):
                out[out_at + row * n_columns + c] += factor * right[right_at + inner * n_columns + c]


@njit(inline="always")
def _four(values, at, step):
    return values[at], values[at + step], values[at + U(2) * step], values[at + U(3) * step]


@njit(fastmath=FAST, forceinline=True)
def normalise(rows, parameters, gain_at, n_rows, width, normal, normal_at, inverse_at, out, out_at):
    """out = gain n + offset, n = (x - mean) / sqrt(variance + epsilon) of every row x (Ba et al. 2016).

    The offset follows the gain. ``normal`` keeps n, and from ``inverse_at`` on 1 / sqrt, for the gradient.
    """
    for row in range(n_rows):
        x, n, o = row * width, normal_at + row * width, out_at + row * width
        mean, square = F(0), F(0)
        for c in range(width):
            mean += rows[x + c]
        mean /= F(width)
        for c in range(width):
            normal[n + c] = rows[x + c] - mean
            square += normal[n + c] * normal[n + c]
        scale = F(1) / F(math.sqrt(square / F(width) + EPSILON))
        normal[inverse_at + row] = scale
        for c in range(width):
            normal[n + c] *= scale
            out[o + c] = normal[n + c] * parameters[gain_at + c] + parameters[gain_at + width + c]


@njit(fastmath=FAST, forceinline=True)
def normalise_backward(
    normal, normal_at, inverse_at, parameters, gain_at, n_rows, width, gradient, of_rows, of_parameters
):
    """The gradient of ``normalise``: fill ``of_rows``, add to ``of_parameters``."""
    for row in range(n_rows):
        n, x = normal_at + row * width, row * width
        mean, along, scale = F(0), F(0), normal[inverse_at + row]
        for c in range(width):
            of_parameters[gain_at + c] += gradient[x + c] * normal[n + c]
            of_parameters[gain_at + width + c] += gradient[x + c]
        for c in range(width):
            of_rows[x + c] = gradient[x + c] * parameters[gain_at + c]
            mean += of_rows[x + c]
            along += of_rows[x + c] * normal[n + c]
        mean, along = mean / F(width), along / F(width)
        for c in range(width):
            of_rows[x + c] = (of_rows[x + c] - mean - along * normal[n + c]) * scale


@njit(fastmath=FAST, forceinline=True)
def linear(inputs, at, n_rows, n_inputs, parameters, matrix_at, n_outputs, out, out_at):
    """Rows of ``out`` = rows of ``inputs`` @ matrix + bias; the bias follows the matrix (inputs, outputs)."""
    bias = matrix_at + n_inputs * n_outputs
    for row in range(n_rows):
        for c in range(n_outputs):
            out[out_at + row * n_outputs + c] = parameters[bias + c]
    add_product(inputs, at, n_inputs, U(1), n_rows, n_inputs, parameters, matrix_at, n_outputs, out, out_at)


@njit(fastmath=FAST, forceinline=True)
def linear_backward(gradient, n_rows, n_outputs, inputs, at, n_inputs, parameters, matrix_at, of_parameters, of_inputs):
    """Add the gradient of ``linear`` to ``of_parameters`` and ``of_inputs``; here the matrix lies (outputs, inputs)."""
    bias, one, zero = matrix_at + n_inputs * n_outputs, U(1), U(0)
    for row in range(n_rows):
        for c in range(n_outputs):
            of_parameters[bias + c] += gradient[row * n_outputs + c]
    add_product(gradient, zero, one, n_outputs, n_outputs, n_rows, inputs, at, n_inputs, of_parameters, matrix_at)
    add_product(gradient, zero, n_outputs, one, n_rows, n_outputs, parameters, matrix_at, n_inputs, of_inputs, zero)
