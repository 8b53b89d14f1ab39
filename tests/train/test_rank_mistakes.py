"""A mistake that one rank of two meets: told by both, and waited for by none."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from raysl import errors
from raysl.errors import DataError, RankError, RayslError, StoreError, TrainingError
from raysl.run_config import RunConfig
from raysl.train.loop import Trainer
from raysl.train.mistakes import ends_the_group, met_by_all
from raysl.train.session import TrainJob, train_rank
from raysl.train.world import World, single
from tests.ranks import in_ranks
from tests.tiny_image_run import MODEL, make_image_run

TOO_LONG_S = 60
"""Far less than the 30 minutes after which ranks that wait give up."""


def told(world: World, mistake: RayslError | None) -> list[str]:
    try:
        with met_by_all(world):
            if mistake is not None:
                raise mistake
    except RayslError as error:
        return [type(error).__name__, str(error)]
    return []


def attempt(config: RunConfig, world: World) -> list[str]:
    try:
        train_rank(TrainJob(config), world)
    except RayslError as error:
        return [type(error).__name__, str(error)]
    return []


def _rank(rank: int, size: int, configs: Sequence[RunConfig], store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=TOO_LONG_S)
    )
    world = World(rank, size, torch.device("cpu"))
    first: Sequence[RayslError | None] = [None, None, StoreError("gone: ünlikely"), None]
    second: Sequence[RayslError | None] = [None, DataError("a\nb"), DataError("c"), DataError("x" * 9000)]
    found = [told(world, mistake) for mistake in (first, second)[rank]]
    found.append(attempt(configs[rank], world))
    torch.save(found, f"{out}-{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_what_one_rank_cannot_read_is_told_by_both(tmp_path: Path) -> None:
    settings = {"global_batch_size": 16, "max_steps": 3, "num_workers": 2, "tensorboard": False, "precision": "fp32"}
    good = make_image_run(tmp_path / "good", pretrain={"objective": "mae", "model": MODEL, **settings})
    bad = good.model_copy(update={"run_dir": str(tmp_path / "bad")})  # what another node sees of a folder of this one
    in_ranks(_rank, 2, 2, (good, bad), str(tmp_path / "store"), str(tmp_path / "out"))
    ranks = [torch.load(tmp_path / f"out-{rank}") for rank in range(2)]
    assert ranks[0] == ranks[1]
    *found, (kind, message) = ranks[0]
    assert found[:3] == [[], ["DataError", "a\nb"], ["StoreError", "gone: ünlikely"]]
    assert found[3][1].strip("x") == ""
    assert issubclass(getattr(errors, kind), RayslError)
    assert str(tmp_path / "bad") in message


def test_what_one_rank_of_several_meets_in_training_ends_the_others_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(trainer: Trainer) -> None:
        raise DataError("this picture cannot be decoded")

    config = make_image_run(
        tmp_path, pretrain={"objective": "mae", "model": MODEL, "global_batch_size": 16, "tensorboard": False}
    )
    monkeypatch.setattr(Trainer, "run", fail)
    assert attempt(config, single("cpu")) == ["DataError", "this picture cannot be decoded"]
    two = World(0, 2, torch.device("cpu"))
    with pytest.raises(RankError, match="this picture"), ends_the_group(two):
        fail(None)
    with pytest.raises(TrainingError), ends_the_group(two):
        raise TrainingError("NaN, which both have seen")
