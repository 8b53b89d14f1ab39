"""Convolutions, whose weight gradient torch 2.13 takes at half speed in fp32 on a CPU with AVX2 alone, as laptops have.

Measured in docs/decisions/0008. Elsewhere, in bf16 and without gradients torch's own is called.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raysl.models.gelu import trains_in_fp32

HAS_AVX2_ALONE = torch.backends.cpu.get_cpu_capability() == "AVX2"
BLOCK_BYTES = 4 << 20
"""Size of the patches that one matrix product of a weight gradient takes, so that they stay in the cache."""
LEAST_DEPTH = 128
"""Input channels times kernel side from which on matrix products are the faster way."""


class Convolution(nn.Conv2d):
    """torch's `Conv2d`, channels-last, square and without groups or a bias."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if (
            self.in_channels * self.kernel_size[0] >= LEAST_DEPTH
            and self.weight.requires_grad
            and HAS_AVX2_ALONE
            and trains_in_fp32(x)
        ):
            y: Tensor = ConvolutionByProducts.apply(x, self.weight, self.stride[0])  # type: ignore[no-untyped-call]
            return y
        return super().forward(x)


class ConvolutionByProducts(torch.autograd.Function):
    """Convolution whose weight gradient is a sum of matrix products (im2col, Chellapilla et al., 2006).

    Images (N, C, H, W) and weights (O, C, K, K), both channels-last; K // 2 places of padding.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride = stride
        return F.conv2d(images, weight, stride=stride, padding=weight.shape[-1] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None]:
        images, weight = ctx.saved_tensors
        stride, padding = [ctx.stride] * 2, [weight.shape[-1] // 2] * 2
        to_images = None
        if ctx.needs_input_grad[0]:
            to_images = torch.ops.aten.convolution_backward(
                gradient, images, weight, None, stride, padding, [1, 1], False, [0, 0], 1, [True, False, False]
            )[0]
        return to_images, weight_gradient(images, gradient, weight.shape[-1], ctx.stride), None


def weight_gradient(images: Tensor, gradient: Tensor, kernel: int, stride: int) -> Tensor:
    """Gradient (O, C, K, K), channels-last, from images (N, C, H, W) and the gradient of the output (N, O, H', W')."""
    (count, out, height, width), channels = gradient.shape, images.shape[1]
    padded, rows = images.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    if kernel > 1:
        padded = F.pad(padded, (0, 0, *[kernel // 2] * 4))
    depth = kernel * kernel * channels
    block = max(1, BLOCK_BYTES // (height * width * depth * images.element_size()))
    patches = images.new_empty(min(block, count), height, width, kernel, kernel, channels)
    total = images.new_zeros(out, depth)
    for first in range(0, count, block):
        taken = slice(first, min(first + block, count))
        filled = patches[: taken.stop - first]
        for row in range(kernel):
            for column in range(kernel):
                down = slice(row, row + stride * (height - 1) + 1, stride)
                across = slice(column, column + stride * (width - 1) + 1, stride)
                filled[:, :, :, row, column] = padded[taken, down, across]
        total.addmm_(rows[taken].reshape(-1, out).t(), filled.view(-1, depth))
    return total.view(out, kernel, kernel, channels).permute(0, 3, 1, 2)
