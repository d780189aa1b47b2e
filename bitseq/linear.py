"""A dense layer by whichever of torch's two matrix libraries is the faster one here.

torch multiplies float32 matrices on the CPU by MKL, which uses AVX2 at most on processors that are not Intel's;
oneDNN, which torch carries too, uses AVX-512 on any that has it. On an AMD Zen 5 core the product of 4096x64 and
64x192 takes 0.41 ms instead of 0.87. Elsewhere this is ``nn.Linear``. oneDNN compiles a kernel for every new shape, so
this pays where shapes recur: not for products whose number of rows changes from call to call.
"""

import functools

import torch
from torch import Tensor, nn


@functools.cache
def onednn_is_faster() -> bool:
    """Whether this machine's float32 products go through oneDNN; by what it is, never by timing it."""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return wide and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """``nn.Linear``: (..., in_features) -> (..., out_features), the same up to rounding."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The affine map of the last dimension."""
        of_rows = self.bias is not None and inputs.dim() > 1 and inputs.numel() > 0  # what is written for oneDNN
        if of_rows and inputs.device.type == "cpu" and inputs.dtype == torch.float32 and onednn_is_faster():
            linear = _OneDNNLinear.apply if torch.is_grad_enabled() else _product
            return linear(inputs, self.weight, self.bias)
        return super().forward(inputs)


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., K), (N, K) -> (..., N) left @ right.T + bias."""
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    """oneDNN's product as torch's own compiler calls it, with the gradient that torch does not define for it."""

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _product(inputs, weight, bias)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        inputs, weight = ctx.saved_tensors
        of_inputs = _product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        rows, inputs = gradient.flatten(0, -2), inputs.flatten(0, -2)
        return of_inputs, _product(rows.t(), inputs.t()), rows.sum(0)
