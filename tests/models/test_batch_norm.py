"""BatchNorm over ranks is that of one process with the whole batch (check 3 of docs/pretrain.md)."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from raysl.models.batch_norm import BatchNorm2d
from tests.ranks import in_ranks

SIZES = (4, 2)
"""Rows of each rank."""


TOLERANCES = {torch.float64: 1e-9, torch.bfloat16: 0.05}
"""What two ranks may differ by from one process: bf16 keeps 8 bits."""


def passed(norm: nn.BatchNorm2d, start: int, end: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Two steps on rows start..end-1 of a batch, whose rows are far from alike: what comes out, gradients, statistics.

    Images of bf16 lie channels-last and meet weights of fp32, as under autocast.
    """
    generator = torch.Generator().manual_seed(0)
    norm.to(torch.promote_types(dtype, torch.float32))
    x, direction = (torch.randn(sum(SIZES), 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    x = (x + torch.arange(len(x), dtype=x.dtype)[:, None, None, None]).to(dtype)
    if dtype == torch.bfloat16:
        x, direction = x.contiguous(memory_format=torch.channels_last), direction.to(dtype)
    with torch.no_grad():
        for parameter in (norm.weight, norm.bias):
            parameter.copy_(torch.randn(3, generator=generator))
    own = x[start:end].clone().requires_grad_()
    norm(own + 1)
    y = norm(own)
    (y * direction[start:end]).sum().backward()
    parts = {"weight": norm.weight.grad, "bias": norm.bias.grad}
    state = {f"state {name}": value for name, value in norm.state_dict().items()}
    return {"y": y.detach(), "x": own.grad, **parts, **state, "evaluated": norm.eval()(own).detach()}  # type: ignore[dict-item]


def _rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(SIZES))
    start = sum(SIZES[:rank])
    torch.save({t: passed(BatchNorm2d(3), start, start + SIZES[rank], t) for t in TOLERANCES}, folder / f"{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_normalise_as_one_process(tmp_path: Path) -> None:
    in_ranks(_rank, len(SIZES), tmp_path)
    both = [torch.load(tmp_path / f"{rank}") for rank in range(len(SIZES))]
    for dtype, atol in TOLERANCES.items():
        ranks, alone = [rank[dtype] for rank in both], passed(nn.BatchNorm2d(3), 0, sum(SIZES), dtype)
        for name in ("y", "x", "evaluated"):
            torch.testing.assert_close(torch.cat([rank[name] for rank in ranks]), alone[name], atol=atol, rtol=0)
        for name in ("weight", "bias"):  # DDP adds these up
            torch.testing.assert_close(sum(rank[name] for rank in ranks), alone[name], atol=atol, rtol=0)
        for name in (name for name in alone if name.startswith("state")):
            for rank in ranks:
                torch.testing.assert_close(rank[name], alone[name], atol=atol, rtol=0)
