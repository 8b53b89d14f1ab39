"""A run on images from prepared shards to a model on disk, and settings that cannot work."""

from pathlib import Path

import numpy as np
import pytest
import torch

from raysl.errors import ConfigError
from raysl.models.load import load_encoder
from raysl.models.resnet import ResNet
from raysl.models.vision import ImageFormat
from raysl.models.vision_config import ResNetConfig
from raysl.train.loop import Trainer
from raysl.train.optimizers import decay_groups
from raysl.train.session import TrainJob, main, train_rank
from raysl.train.world import single
from tests.pixel_shards import random_images
from tests.tiny_image_run import MODEL, make_image_run

SMALL = {"global_batch_size": 16, "max_steps": 3, "num_workers": 1, "tensorboard": False, "precision": "fp32"}
RESNET = {"type": "resnet", "width": 8}


@pytest.mark.parametrize(("objective", "model"), [("mae", MODEL), ("simclr", RESNET)])
def test_a_run_on_images_leaves_an_encoder_that_knows_its_pixels(objective: str, model: object, tmp_path: Path) -> None:
    config = make_image_run(tmp_path, pretrain={"objective": objective, "model": model, **SMALL})
    result = train_rank(TrainJob(config), single("cpu"))
    assert result["train_rows"] == 90
    assert {"held_out_loss", "knn_accuracy", "embedding_spread"} <= set(result)
    encoder, description = load_encoder(tmp_path / "pretrain")
    assert (description["image"]["size"], description["objective"]["type"], description["step"]) == (16, objective, 3)
    assert np.isclose(encoder.image.mean, description["image"]["mean"]).all()
    images = torch.from_numpy(random_images(3)[0].transpose(0, 3, 1, 2).copy())
    assert encoder.embed(images).shape == (3, encoder.width)


def test_the_description_names_the_step_of_the_weights_that_were_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([2.0, 1.0, 3.0, 1.0])  # of steps 1, 2 and 3, and of the weights that were kept
    monkeypatch.setattr(Trainer, "measure", lambda trainer: {"held_out_loss": next(losses)})
    best = {"evaluate_every_steps": 1, "checkpoint": {"save_model": "best"}}
    config = make_image_run(tmp_path, pretrain={"objective": "simclr", "model": RESNET, **SMALL, **best})
    assert train_rank(TrainJob(config), single("cpu"))["held_out_loss"] == 1.0
    assert load_encoder(tmp_path / "pretrain")[1]["step"] == 2


def test_mlflow_is_looked_for_before_anything_starts(smallest_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pretrain.mlflow=somewhere needs `pip install 'raysl\[mlflow\]'`"):
        main(str(smallest_yaml), "pretrain.mlflow=somewhere")


def test_text_and_images_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'bert' is for text"):
        make_image_run(tmp_path, pretrain={"objective": "simclr", "model": "bert"})


def test_every_filter_decays_and_no_norm_does() -> None:
    model = ResNet(ResNetConfig(depth=50, width=8), ImageFormat(8, 3, 8, (0.5,) * 3, (0.2,) * 3))
    decayed, kept = (group["params"] for group in decay_groups(model, 0.1))
    assert {p.ndim for p in decayed} == {4}
    assert {p.ndim for p in kept} == {1}
    assert len(decayed) + len(kept) == len(list(model.parameters()))
