"""BatchNorm over the rows of all ranks (Ioffe & Szegedy, 2015), on any backend.

torch's SyncBatchNorm needs a GPU. Here several ranks normalise with the statistics of the whole batch, as one process
would, forward and backward; one process, and evaluation, take torch's own kernel. It costs two small messages a layer.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from raysl.models import ranks


class BatchNorm2d(nn.BatchNorm2d):
    """torch's BatchNorm2d whose statistics are those of all ranks while training."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not ranks.several():
            return super().forward(input)
        y, mean, variance, count = _synchronized(input, self.weight, self.bias, self.eps)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), self.momentum)
        out: Tensor = y
        return out


@ranks.Exchange
def _synchronized(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalised rows; mean, variance and number of rows of the whole batch."""
    out: tuple[Tensor, Tensor, Tensor, Tensor] = _Synchronized.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]
    return out


class _Synchronized(torch.autograd.Function):
    """Each pass over the rows is one of torch's own kernels, which know channels-last and bf16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _whole_batch(x, weight)
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        y = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, variance, count = ctx.saved_tensors
        per_deviation = torch.rsqrt(variance + ctx.eps)
        scaled, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            grads[0], x, weight, mean, variance, mean, per_deviation, False, ctx.eps, [True, True, True]
        )  # as if the statistics were constants: gradient x weight / deviation, and the two sums of our rows
        both = torch.stack([of_weight, of_bias])
        dist.all_reduce(both)
        through_variance, through_mean = -weight * per_deviation * both / count
        scaled += F.batch_norm(x, mean, variance, through_variance, through_mean, training=False, eps=ctx.eps)
        return scaled, of_weight, of_bias, None  # DDP adds up the ranks' parts for weight and bias


def _whole_batch(x: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel over all ranks, in the type of `like`, and the numbers each is over."""
    unused = torch.zeros_like(like), torch.zeros_like(like)  # their type is the one that the statistics get
    mean, variance = torch.batch_norm_update_stats(x, *unused, momentum=0.0)
    count = mean.new_full((1,), x.numel() / x.shape[1])  # a list would be copied to the device, and waited for
    own = torch.cat([mean, variance, count])
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    stacked = torch.stack(parts)  # (ranks, 2 x channels + 1)
    share = stacked[:, -1:] / stacked[:, -1].sum()
    means, variances = stacked[:, :-1].chunk(2, dim=1)
    whole = (share * means).sum(0)
    return whole, (share * (variances + (means - whole) ** 2)).sum(0), stacked[:, -1].sum()
