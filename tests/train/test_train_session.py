"""A run on images from prepared shards to a model on disk, and settings that cannot work."""

from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch

from raysl import config as base
from raysl import storage
from raysl.data.decode import decode_file, write_encoded
from raysl.data.prepared import Decoder
from raysl.errors import ConfigError
from raysl.models.load import load_encoder
from raysl.models.resnet import ResNet
from raysl.models.vision import ImageFormat
from raysl.models.vision_config import ResNetConfig
from raysl.run_config import RunConfig
from raysl.stage import read_manifest
from raysl.train.loop import Trainer
from raysl.train.optimizers import decay_groups
from raysl.train.session import TrainJob, main, train_rank
from raysl.train.world import single
from tests.picture_shards import HOW, pictures, write_prepared
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


def test_without_ray_it_is_the_same_stage(tmp_path: Path) -> None:
    """It went on from the checkpoints of another config, and left its weights in place of those of a finished stage."""
    config = make_image_run(tmp_path / "run", pretrain={"objective": "mae", "model": MODEL, **SMALL})
    path, model = str(tmp_path / "run.yaml"), tmp_path / "run" / "pretrain" / "model.safetensors"
    storage.write_text(path, base.dump(config))
    made = storage.hash_file(model)
    with pytest.raises(ConfigError, match=r"pretrain was made with another config.*Name another folder with run_dir="):
        main(path)
    assert storage.hash_file(model) == made
    storage.remove(model.parent)
    main(path)
    manifest = read_manifest(tmp_path / "run", "pretrain")
    assert manifest is not None
    assert manifest.files["model.safetensors"] == storage.hash_file(model)
    main(path)  # done already
    assert read_manifest(tmp_path / "run", "pretrain") == manifest
    with pytest.raises(ConfigError, match=r"pretrain.max_steps: 3 -> 4"):
        main(path, "pretrain.max_steps=4")


def test_held_out_pictures_are_decoded_side_by_side(tmp_path: Path) -> None:
    write_prepared(tmp_path, encoded=True, shards=2)
    ids, labels = [f"{number}" for number in range(12)], ["class 0", "class 1"] * 6
    write_encoded(tmp_path / "prepare/encoded/validation/shard-00009.arrow", ids, labels, pictures(12, seed=9), HOW)
    both = Barrier(2)

    def decode(where: str) -> bytes:
        if "validation" in where:
            both.wait(timeout=5)
        return decode_file(where)

    feed = {"cache_dir": str(tmp_path / "cache")}
    config = RunConfig.model_validate({
        "name": "images", "run_dir": str(tmp_path), "prepare": {"source": "digits"},
        "pretrain": {"objective": "simclr", "model": RESNET, "feed": feed, **SMALL, "max_steps": 1},
    })  # fmt: skip
    assert train_rank(TrainJob(config), single("cpu"), decoder=Decoder(decode, 2))["knn_rows"] == 24


def test_text_and_images_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'bert' is for text"):
        make_image_run(tmp_path, pretrain={"objective": "simclr", "model": "bert"})


def test_every_filter_decays_and_no_norm_does() -> None:
    model = ResNet(ResNetConfig(depth=50, width=8), ImageFormat(8, 3, 8, (0.5,) * 3, (0.2,) * 3))
    decayed, kept = (group["params"] for group in decay_groups(model, 0.1))
    assert {p.ndim for p in decayed} == {4}
    assert {p.ndim for p in kept} == {1}
    assert len(decayed) + len(kept) == len(list(model.parameters()))
