"""GELU (Hendrycks & Gimpel, 2016): training in fp32 on a CPU takes two passes over the numbers where numba is installed.

Measured in docs/decisions/0008. Elsewhere, in bf16 and without gradients torch's own is called.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from raysl.kernels import has_numba


def gelu(x: Tensor, approximate: str) -> Tensor:
    """As `F.gelu` gives it, to the rounding of fp32; `approximate` is `tanh` or `none`."""
    if trains_in_fp32(x) and has_numba():
        y: Tensor = CompiledGelu.apply(x, approximate)  # type: ignore[no-untyped-call]
        return y
    return F.gelu(x, approximate=approximate)


def trains_in_fp32(x: Tensor) -> bool:
    """Whether x is part of a training step in fp32 on a CPU, operator by operator."""
    return (
        x.device.type == "cpu" and x.dtype == torch.float32 and x.requires_grad and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    )  # fmt: skip


class CompiledGelu(torch.autograd.Function):
    """Keeps the slope instead of the input: as much memory, and the backward pass is one product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, approximate: str) -> Tensor:
        from raysl.models import gelu_numba

        x = x.contiguous()
        y, slope = torch.empty_like(x), torch.empty_like(x)
        kernel = gelu_numba.tanh_form if approximate == "tanh" else gelu_numba.exact
        kernel(*(numbers.detach().view(-1).numpy() for numbers in (x, y, slope)))
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        slope: Tensor = ctx.saved_tensors[0]
        return gradient * slope, None
