"""Rows of all ranks in one tensor, with gradient: what contrastive losses need to be right on several workers."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raysl.models import ranks


class _Gather(torch.autograd.Function):
    """All-gather whose backward sums each rank's gradient for our rows (an all-reduce, so gloo can do it)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        longest = max(sizes)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        start = sum(ctx.sizes[: dist.get_rank()])
        return grad[start : start + ctx.sizes[dist.get_rank()]], None


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Rows of all ranks in the order of ranks, and the place of ours in them. Ranks may hold different numbers of rows."""
    return _over_ranks(rows) if ranks.several() else (rows, 0)


@ranks.Exchange
def _over_ranks(rows: Tensor) -> tuple[Tensor, int]:
    size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.empty_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    counts = [int(s.item()) for s in sizes]
    gathered: Tensor = _Gather.apply(rows, counts)  # type: ignore[no-untyped-call]
    return gathered, sum(counts[: dist.get_rank()])
