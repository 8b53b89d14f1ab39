"""The convolution for CPUs with AVX2 alone gives what torch's own gives; it is called where it is faster, nowhere else."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from raysl.models import avx2


@pytest.fixture(autouse=True)
def on_such_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avx2, "HAS_AVX2_ALONE", True)


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9)])
@pytest.mark.parametrize("block_bytes", [1, 20_000, 4 << 20])
def test_convolution_has_the_gradients_of_torch(
    kernel: int, stride: int, height: int, width: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image a block, a last block that is not full, all in one."""
    monkeypatch.setattr(avx2, "BLOCK_BYTES", block_bytes)
    images = random(5, 6, height, width).to(memory_format=torch.channels_last).requires_grad_()
    weight = random(4, 6, kernel, kernel).to(memory_format=torch.channels_last).requires_grad_()
    ours = avx2.ConvolutionByProducts.apply(images, weight, stride)  # type: ignore[no-untyped-call]
    theirs = F.conv2d(images, weight, stride=stride, padding=kernel // 2)
    assert torch.equal(ours, theirs)
    towards = random(*ours.shape)
    mine, expected = (torch.autograd.grad(y, (images, weight), towards) for y in (ours, theirs))
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-11)
    assert mine[1].is_contiguous(memory_format=torch.channels_last)


def used(layer: avx2.Convolution, x: Tensor) -> bool:
    return "ConvolutionByProducts" in type(layer(x).grad_fn).__name__


def test_products_are_taken_in_fp32_training_of_wide_layers_alone() -> None:
    images = random(2, 64, 8, 8, dtype=torch.float32).requires_grad_()
    wide, point = avx2.Convolution(64, 8, 3), avx2.Convolution(64, 8, 1)
    assert used(wide, images)
    assert not used(point, images)
    assert not used(wide, images.detach())
    assert not used(wide.double(), images.double())
    wide.float().requires_grad_(False)
    assert not used(wide, images)
    with torch.no_grad():
        assert not used(wide.requires_grad_(True), images)
    with torch.autocast("cpu", torch.bfloat16):
        assert not used(wide, images)


def test_another_cpu_keeps_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avx2, "HAS_AVX2_ALONE", False)
    assert not used(avx2.Convolution(64, 8, 3), random(2, 64, 8, 8, dtype=torch.float32).requires_grad_())
