"""BatchNorm over the rows of all ranks (Ioffe & Szegedy, 2015), on any backend.

torch's SyncBatchNorm needs a GPU. Here several ranks normalise with the statistics of the whole batch, as one process
would, forward and backward; one process, and evaluation, take torch's own kernel. It costs two small messages a layer.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from raysl.models.encoder import at_least_float

PIXELS = (0, 2, 3)
"""Dimensions a channel's statistics are taken over; x is (batch, channel, height, width)."""


class BatchNorm2d(nn.BatchNorm2d):
    """torch's BatchNorm2d whose statistics are those of all ranks while training."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        y, mean, variance, count = _Synchronized.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), self.momentum)
        out: Tensor = y
        return out


class _Synchronized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _whole_batch(x)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        y = F.batch_norm(x, mean.to(weight), variance.to(weight), weight, bias, training=False, eps=eps)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        grad = at_least_float(grads[0])
        centred = at_least_float(x) - mean[:, None, None]
        own = torch.stack([grad.sum(PIXELS), (grad * centred).sum(PIXELS)])  # (2, channels)
        all_ranks = own.clone()
        dist.all_reduce(all_ranks)
        first, second = all_ranks / count
        scale = (weight * inverse)[:, None, None]
        grad_x = scale * (grad - first[:, None, None] - centred * (second * inverse**2)[:, None, None])
        return grad_x.to(x), own[1] * inverse, own[0], None  # DDP adds up the ranks' parts for weight and bias


def _whole_batch(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel over all ranks, and the numbers each is over."""
    variance, mean = torch.var_mean(at_least_float(x), PIXELS, correction=0)
    own = torch.cat([mean, variance, mean.new_tensor([x.numel() / x.shape[1]])])
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    stacked = torch.stack(parts)  # (ranks, 2 x channels + 1)
    share = stacked[:, -1:] / stacked[:, -1].sum()
    means, variances = stacked[:, :-1].chunk(2, dim=1)
    whole = (share * means).sum(0)
    return whole, (share * (variances + (means - whole) ** 2)).sum(0), stacked[:, -1].sum()
