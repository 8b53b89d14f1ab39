"""Images on several ranks: losses, gradients and BatchNorm's statistics are those of one process with the whole batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from raysl.data.pixels import PixelFormat, PixelRows
from raysl.models.resnet import ResNet
from raysl.models.vision import ImageFormat
from raysl.models.vision_config import ResNetConfig, VitConfig
from raysl.models.vit import Vit
from raysl.objectives.base import Objective
from raysl.objectives.image_config import MaeConfig, SimclrConfig
from raysl.objectives.mae import Mae
from raysl.objectives.simclr import Simclr
from raysl.train.config import PretrainConfig
from raysl.train.loop import Trainer
from raysl.train.world import World, single
from tests.pixel_shards import write_shards
from tests.ranks import in_ranks

FORM = PixelFormat(size=8, channels=3, patch_size=4)
IMAGE = ImageFormat(8, 3, 4, (0.4, 0.4, 0.4), (0.3, 0.3, 0.3))
BATCH = 11
"""Rows of the global batch: not a multiple of the ranks."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("pixels") / "train", 61, FORM)


def objective_of(kind: str) -> Objective:
    torch.manual_seed(7)
    if kind == "mae":
        encoder = Vit(VitConfig(num_layers=1, width=16, num_heads=2, patch_size=2), IMAGE)
        return Mae(MaeConfig(decoder_layers=1, decoder_width=16), encoder)
    return Simclr(SimclrConfig(projection_width=16), ResNet(ResNetConfig(width=8), IMAGE))


def config_of(kind: str, **settings: object) -> PretrainConfig:
    model = "vit" if kind == "mae" else "resnet"
    defaults = {
        "max_steps": 3, "global_batch_size": BATCH, "precision": "fp32", "log_every_steps": 1, "evaluate_every_steps": 100,
    }  # fmt: skip
    return PretrainConfig.model_validate({"objective": kind, "model": model, **defaults, **settings})


def trainer_of(shards: Path, kind: str, world: World, **more: object) -> Trainer:
    settings = more.pop("settings", {})
    return Trainer(objective_of(kind).double(), PixelRows(shards), None, config_of(kind, **settings), 3, world, **more)


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.double() for name, value in trainer.objective.state_dict().items()}


def train(trainer: Trainer) -> dict[str, object]:
    """Losses of all steps, gradients of the first one (after DDP), and the state at the end."""
    found: dict[str, object] = {"losses": []}
    step = trainer.optimizer.step

    def keep_gradients(*a: object, **k: object) -> object:
        found.setdefault(
            "gradients", {n: p.grad.clone() for n, p in trainer.objective.named_parameters() if p.requires_grad}
        )
        return step(*a, **k)

    trainer.optimizer.step = keep_gradients
    trainer.report = lambda m: found["losses"].append(m["loss"])
    trainer.run()
    return found | {"state": state(trainer)}


def _rank(rank: int, size: int, shards: str, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    world = World(rank, size, torch.device("cpu"))
    torch.save({kind: train(trainer_of(Path(shards), kind, world)) for kind in ("simclr", "mae")}, f"{out}-{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_train_on_images_as_one_process(shards: Path, tmp_path: Path) -> None:
    """In double precision over three steps with uneven ranks; gradients are those that DDP leaves, before clipping."""
    in_ranks(_rank, 2, 2, str(shards), str(tmp_path / "store"), str(tmp_path / "out"))
    ranks = [torch.load(tmp_path / f"out-{rank}") for rank in range(2)]
    for kind in ("simclr", "mae"):
        alone, together = train(trainer_of(shards, kind, single("cpu"))), [rank[kind] for rank in ranks]
        assert together[0]["losses"] == pytest.approx(alone["losses"], abs=1e-6)  # reported as float32
        for name, gradient in alone["gradients"].items():
            torch.testing.assert_close(together[0]["gradients"][name], gradient, atol=1e-9, rtol=0)
        for name, value in alone["state"].items():
            tolerance = 1e-6 if "running" in name else 1e-5  # Adam enlarges rounding where a gradient is next to nothing
            for rank in together:
                torch.testing.assert_close(rank["state"][name], value, atol=tolerance, rtol=0)
        assert kind == "mae" or "encoder.bn1.running_mean" in alone["state"]


def test_micro_batches_of_patches_give_the_gradient_of_the_whole_batch(shards: Path) -> None:
    one, four = (
        train(trainer_of(shards, "mae", single("cpu"), settings={"max_steps": 1, "accumulation_steps": n})) for n in (1, 4)
    )
    for name, gradient in one["gradients"].items():
        torch.testing.assert_close(gradient, four["gradients"][name], atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", ["simclr", "mae"])
def test_a_resumed_run_on_images_ends_bit_equal(shards: Path, kind: str, tmp_path: Path) -> None:
    settings = {"max_steps": 5, "checkpoint": {"every_steps": 3}}
    whole = trainer_of(shards, kind, single("cpu"), settings=settings, checkpoints=tmp_path / "whole")
    whole.run()
    cut = trainer_of(shards, kind, single("cpu"), settings=settings, checkpoints=tmp_path / "cut", report=_stop_at(4))
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    again = trainer_of(shards, kind, single("cpu"), settings=settings, checkpoints=tmp_path / "cut")
    assert again.step == 3
    again.run()
    for name, value in state(whole).items():
        assert torch.equal(value, state(again)[name]), name


def _stop_at(step: int):
    def report(metrics: dict[str, float]) -> None:
        if metrics["step"] == step:
            raise KeyboardInterrupt

    return report


def test_measuring_leaves_the_statistics_of_batch_norm_alone(shards: Path) -> None:
    trainer = trainer_of(shards, "simclr", single("cpu"), settings={"max_steps": 1})
    trainer.run()
    before = state(trainer)
    trainer.held_out = PixelRows(shards)
    trainer.measure()
    for name, value in state(trainer).items():
        assert torch.equal(value, before[name]), name
    assert np.isfinite(float(before["encoder.bn1.running_mean"].sum()))


def test_a_run_that_measures_between_steps_ends_bit_equal_to_one_that_does_not(shards: Path) -> None:
    runs = [trainer_of(shards, "simclr", single("cpu"), settings={"evaluate_every_steps": n}) for n in (1, 99)]
    for trainer in runs:
        trainer.held_out = PixelRows(shards)
        trainer.run()
    for name, value in state(runs[0]).items():
        assert torch.equal(value, state(runs[1])[name]), name
