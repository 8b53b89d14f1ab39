"""Ranks on one GPU train as one process with the whole batch: two over gloo, one over NCCL, which takes one rank a GPU."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raysl.models import ranks
from raysl.models.batch_norm import BatchNorm2d
from raysl.train.eager import data_parallel
from raysl.train.loop import Trainer
from raysl.train.world import World
from tests.train.test_gpu import GPU, KINDS, objective_of, shards, trainer_of, weights

__all__ = ["shards"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")]
EXACT = {"double": True, "held_out": True, "evaluate_every_steps": 3, "log_every_steps": 1}
COMPILED = {"precision": "bf16", "compile": True, "log_every_steps": 1}
PLANS = {"exact": EXACT, "compiled": COMPILED}


def train(trainer: Trainer) -> dict[str, object]:
    """Losses of all steps, what was measured, and the weights at the end."""
    losses: list[float] = []
    trainer.report = lambda metrics: losses.append(metrics["loss"]) if "loss" in metrics else None
    measured = trainer.run()
    return {"losses": losses, "measured": measured, "weights": weights(trainer.objective).cpu()}


def _as_nccl_does(collective: object) -> object:
    def checked(*given: object, **named: bool) -> object:
        for value in given:
            for tensor in value if isinstance(value, list) else [value]:
                assert not isinstance(tensor, torch.Tensor) or (tensor.is_cuda and tensor.is_contiguous())
        return collective(*given, **named)

    return checked


def _over_gloo(rank: int, shards: Path, folder: Path, kind: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    dist.all_reduce, dist.all_gather = _as_nccl_does(dist.all_reduce), _as_nccl_does(dist.all_gather)
    world = World(rank, 2, GPU)
    for name, settings in PLANS.items():
        kept = {"checkpoints": folder / name, **settings}
        torch.save(train(trainer_of(shards, kind, world=world, **kept)), folder / f"{name}.{rank}")
        assert trainer_of(shards, kind, world=world, **kept).step == 6  # found the checkpoint of the last step
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_train_as_one_process(shards: Path, tmp_path: Path, kind: str) -> None:
    """In double precision, with what is measured on the way; then compiled in bf16, near enough."""
    mp.start_processes(_over_gloo, args=(shards, tmp_path, kind), nprocs=2, start_method="spawn")
    alone = train(trainer_of(shards, kind, **EXACT))
    exact, compiled = ([torch.load(tmp_path / f"{name}.{rank}") for rank in range(2)] for name in PLANS)
    assert exact[0]["losses"] == pytest.approx(alone["losses"], abs=1e-6)
    assert exact[0]["measured"] == pytest.approx(alone["measured"], rel=1e-4, abs=1e-5)
    start = weights(objective_of(kind)).double()
    for rank in exact:
        assert float((rank["weights"] - alone["weights"]).norm() / (alone["weights"] - start).norm()) < 1e-3
    assert compiled[0]["losses"] == pytest.approx(alone["losses"], rel=0.03)
    assert torch.equal(compiled[0]["weights"], compiled[1]["weights"])


def _over_nccl(rank: int, shards: Path, folder: Path, kind: str) -> None:
    """One rank that exchanges all that several would."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "nccl", init_method=f"file://{folder}/store", rank=rank, world_size=1, device_id=torch.device("cuda", 0)
    )
    ranks.several = lambda: True
    for name, settings in PLANS.items():
        trainer = trainer_of(shards, kind, **settings)
        trainer.parallel = data_parallel(trainer.parallel)
        torch.save(train(trainer), folder / f"{name}.{rank}")
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_over_nccl_trains_as_one_process(shards: Path, tmp_path: Path, kind: str) -> None:
    mp.start_processes(_over_nccl, args=(shards, tmp_path, kind), nprocs=1, start_method="spawn")
    alone = train(trainer_of(shards, kind, **EXACT))
    exact, compiled = (torch.load(tmp_path / f"{name}.0") for name in PLANS)
    assert exact["losses"] == pytest.approx(alone["losses"], abs=1e-6)
    assert exact["measured"] == pytest.approx(alone["measured"], rel=1e-4, abs=1e-5)
    assert compiled["losses"] == pytest.approx(alone["losses"], rel=0.03)


def _normalise(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "nccl", init_method=f"file://{folder}/store", rank=rank, world_size=1, device_id=torch.device("cuda", 0)
    )
    ranks.several = lambda: True
    norm = BatchNorm2d(16).to(GPU)
    images = torch.randn(8, 16, 4, 4, device=GPU, requires_grad=True)
    norm(images).square().sum().backward()  # NCCL waits once, when it starts
    torch.cuda.set_sync_debug_mode("error")
    norm(images).square().sum().backward()
    torch.cuda.set_sync_debug_mode("default")
    dist.destroy_process_group()


def test_statistics_over_ranks_do_not_wait_for_the_card(tmp_path: Path) -> None:
    mp.start_processes(_normalise, args=(tmp_path,), nprocs=1, start_method="spawn")
