"""The contrast over several ranks is that of one process with all rows: loss and gradient (checks 1 and 2)."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from raysl.models.encoder import at_least_float
from raysl.objectives.contrast import nt_xent_sum, send_views
from tests.ranks import in_ranks

SIZES = {2: (4, 3), 3: (4, 3, 3)}
"""Rows of each rank, uneven as a last batch is."""
TYPES = {"float64": torch.float64, "bf16": torch.bfloat16}
TOLERANCE = {"float64": 1e-9, "bf16": 1e-2}


def contrast(dtype: torch.dtype, start: int, end: int, num_rows: int) -> tuple[Tensor, Tensor]:
    """Loss of the rows start..end-1 of `num_rows` and the gradient that they give the weights, which all rows come from."""
    generator = torch.Generator().manual_seed(0)
    weight, *views = (torch.randn(size, 6, generator=generator, dtype=torch.float64).to(dtype) for size in (6, 10, 10))
    weight.requires_grad_()
    first, second = (F.normalize(at_least_float(rows[start:end] @ weight), dim=-1) for rows in views)
    loss = nt_xent_sum(first, second, send_views(first, second, num_rows), 0.2)
    loss.backward()
    assert weight.grad is not None
    return loss.detach().double(), weight.grad.double()


def _rank(rank: int, sizes: tuple[int, ...], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(sizes))
    start, num_rows = sum(sizes[:rank]), sum(sizes)
    end = start + sizes[rank]
    torch.save({name: contrast(dtype, start, end, num_rows) for name, dtype in TYPES.items()}, folder / f"{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_parts_of_several_ranks_add_up_to_one_process(size: int, tmp_path: Path) -> None:
    """A gather without gradient keeps the loss and fails the gradient."""
    sizes = SIZES[size]
    in_ranks(_rank, size, sizes, tmp_path)
    ranks = [torch.load(tmp_path / f"{rank}") for rank in range(size)]
    for name, dtype in TYPES.items():
        loss, gradient = contrast(dtype, 0, sum(sizes), sum(sizes))
        tolerance = TOLERANCE[name]
        assert float(sum(rank[name][0] for rank in ranks)) == pytest.approx(float(loss), abs=tolerance)
        scale = float(gradient.abs().max()) if name == "bf16" else 1.0
        assert float((sum(rank[name][1] for rank in ranks) - gradient).abs().max()) < tolerance * scale
