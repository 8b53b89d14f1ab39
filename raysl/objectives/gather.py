"""Rows of all ranks in one tensor, with gradient: what contrastive losses need to be right on several workers.

Between `send_rows` and `Sent.received` is room for other work, while the rows of slower ranks are on their way. The backward
pass goes through the same work in reverse, while the ranks' gradients are summed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raysl.models import ranks


class _Message:
    """What was last sent: rows on the way forth, gradients on the way back."""

    work: Any


@dataclass(frozen=True)
class Sent:
    """Rows of this rank that are on their way to the others, as theirs are to this one."""

    rows: Tensor
    """Of all ranks (ranks, rows of the fullest one, ...), once they have been waited for; of one process, its own."""
    counts: Sequence[int]
    message: _Message | None

    def received(self) -> tuple[Tensor, int]:
        """Rows of all ranks in the order of ranks, and the place of ours in them."""
        if self.message is None:
            return self.rows, 0
        return _received(self.rows, self.counts, self.message)


def send_rows(rows: Tensor, counts: Sequence[int] | None) -> Sent:
    """Sends this rank's rows to all; `counts` are the rows of each rank, which are asked for where they are not known."""
    if not ranks.several():
        return Sent(rows, [], None)
    return _sent(rows, counts)


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Rows of all ranks in the order of ranks, and the place of ours in them. Ranks may hold different numbers of rows."""
    return send_rows(rows, None).received()


def _counts(rows: Tensor) -> list[int]:
    size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.empty_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    return [int(s.item()) for s in sizes]


@ranks.Exchange
def _sent(rows: Tensor, counts: Sequence[int] | None) -> Sent:
    counts, message = _counts(rows) if counts is None else counts, _Message()
    padding = rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])
    gathered: Tensor = _Send.apply(torch.cat([rows, padding]), message)  # type: ignore[no-untyped-call]
    return Sent(gathered, counts, message)


@ranks.Exchange
def _received(gathered: Tensor, counts: Sequence[int], message: _Message) -> tuple[Tensor, int]:
    padded: Tensor = _Receive.apply(gathered, message)  # type: ignore[no-untyped-call]
    rows = torch.cat([part[:count] for part, count in zip(padded, counts, strict=True)])
    return rows, sum(counts[: dist.get_rank()])


class _Send(torch.autograd.Function):
    """Starts an all-gather; its backward pass ends the sum that `_Receive` starts."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, message: _Message) -> Tensor:
        ctx.message = message
        gathered = rows.new_empty(dist.get_world_size(), *rows.shape)
        message.work = dist.all_gather(list(gathered), rows, async_op=True)
        return gathered

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.message.work.wait()
        return grads[0][dist.get_rank()], None


class _Receive(torch.autograd.Function):
    """Ends the all-gather; its backward pass starts to sum the ranks' gradients of all rows (which gloo can do)."""

    @staticmethod
    def forward(ctx: Any, gathered: Tensor, message: _Message) -> Tensor:
        ctx.message = message
        message.work.wait()
        return gathered.view_as(gathered)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].contiguous()
        ctx.message.work = dist.all_reduce(grad, async_op=True)
        return grad, None
