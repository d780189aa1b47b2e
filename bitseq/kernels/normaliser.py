"""The normaliser of P_F's words: the log of the summed exponentials of a linear layer's outputs, compiled.

    log sum_v exp((w_v . x + b_v) / c)

A block of rows at a time, whose outputs stay in a core's cache. Conventions as in ``kernels.primitives``.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from bitseq.kernels.attention import E1, E2, E3, E4, E5, E6, LOG2_E
from bitseq.kernels.primitives import FAST, F, U, aligned, linear

ROWS = U(16)  # of a block


def linear_logsumexp(layer: nn.Linear, inputs: Tensor, coefficient: float) -> Tensor:
    """(..., width) -> (...,) the log of the summed exponentials of the layer's outputs over a coefficient; no gradient.

    The twin in torch is ``policies.forms.linear_logsumexp``.
    """
    parameters = torch.cat([layer.weight.detach().T.reshape(-1), layer.bias.detach()]) / coefficient
    out = torch.empty(inputs.shape[:-1])
    sizes = map(U, (out.numel(), layer.in_features, layer.out_features))
    _logsumexp(inputs.detach().reshape(-1).numpy(), parameters.numpy(), *sizes, out.view(-1).numpy())
    return out


@njit(cache=True, fastmath=FAST | {"nnan"})  # outputs are numbers: a maximum may then be taken in any order
def _logsumexp(inputs, parameters, n_rows, n_inputs, n_outputs, out):
    outputs, powers = aligned(ROWS * n_outputs), aligned(n_outputs)
    bits = powers.view(np.int32)
    for first in range(U(0), n_rows, ROWS):
        n = min(ROWS, n_rows - first)
        linear(inputs, first * n_inputs, n, n_inputs, parameters, U(0), n_outputs, outputs, U(0))
        for row in range(n):
            at, largest, total = row * n_outputs, outputs[row * n_outputs], F(0)
            for c in range(n_outputs):
                largest = max(largest, outputs[at + c])
            for c in range(n_outputs):  # 2^x as 2^floor(x) 2^rest
                power = max((outputs[at + c] - largest) * LOG2_E, F(-126))
                whole = np.floor(power + F(0.5))
                x = power - whole
                bits[c] = (np.int32(whole) + np.int32(127)) << np.int32(23)
                outputs[at + c] = F(1) + x * (E1 + x * (E2 + x * (E3 + x * (E4 + x * (E5 + x * E6)))))
            for c in range(n_outputs):
                total += outputs[at + c] * powers[c]
            out[first + row] = largest + np.log(total)
