"""torch.compile does not look into what ranks exchange: a collective that is traced may get tensors without memory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses import FakeTensor

from raysl.models import ranks
from raysl.models.batch_norm import BatchNorm2d
from raysl.objectives.gather import gather_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]  # without the repair it hangs


@pytest.fixture
def exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """A group of one rank that exchanges as several do; tells of each tensor whether it was a real one."""
    real: list[bool] = []

    def watched(collective: Callable[..., object]) -> Callable[..., object]:
        def call(*given: Tensor | list[Tensor], **named: bool) -> object:
            real.extend(not isinstance(one, FakeTensor) for one in given)
            return collective(*given, **named)

        return call

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    for name in ("all_gather", "all_reduce"):
        monkeypatch.setattr(dist, name, watched(getattr(dist, name)))
    monkeypatch.setattr(ranks, "several", lambda: True)
    ranks.keep_out_of_graphs()
    yield real
    dist.destroy_process_group()
    torch._dynamo.reset()


def test_gathered_rows_are_real_and_have_their_gradient(exchanged: list[bool]) -> None:
    rows = torch.randn(5, 4, requires_grad=True)

    def loss(rows: Tensor) -> Tensor:
        together, start = gather_rows(rows.tanh())
        return (together @ together.t()).square().sum() + start

    (expected,) = torch.autograd.grad((rows.tanh() @ rows.tanh().t()).square().sum(), rows)
    (found,) = torch.autograd.grad(torch.compile(loss, backend="eager")(rows), rows)
    torch.testing.assert_close(found, expected)
    assert exchanged
    assert all(exchanged)


def test_batch_norm_over_ranks_exchanges_real_statistics(exchanged: list[bool]) -> None:
    norm, own = BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    images = torch.randn(4, 3, 5, 5, requires_grad=True)
    weights = torch.randn(4, 3, 5, 5)
    found, expected = torch.compile(norm, backend="eager")(images), own(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad((y * weights).sum(), images)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    assert exchanged
    assert all(exchanged)
