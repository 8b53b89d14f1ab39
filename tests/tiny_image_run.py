"""A tiny run on images: prepared shards of three kinds of pictures, and an encoder with weights as they were drawn."""

from pathlib import Path

import torch

from raysl.data.pixels import PixelFormat, PixelRows, channel_statistics
from raysl.models import load
from raysl.models.vision import ImageFormat
from raysl.models.vision_config import VitConfig
from raysl.run_config import RunConfig
from raysl.stage import Stage
from raysl.storage import hash_folder
from tests.pixel_shards import write_shards

FORM = PixelFormat(size=16, channels=3, patch_size=4)
MODEL = {"type": "vit", "num_layers": 1, "width": 16, "num_heads": 2, "patch_size": 4}


def make_image_run(folder: Path, **sections: object) -> RunConfig:
    """A run folder with finished prepare and pretrain stages, and its config."""
    for number, (split, count) in enumerate({"train": 90, "validation": 30, "test": 40}.items()):
        write_shards(folder / "prepare" / "pixels" / split, count, FORM, seed=number)
    rows = PixelRows(folder / "prepare" / "pixels" / "train")
    torch.manual_seed(0)
    encoder = load.build(VitConfig.model_validate(MODEL), ImageFormat(16, 3, 4, *channel_statistics(rows))).eval()
    load.save(encoder, folder / "pretrain", load.describe(encoder, objective="mae"))
    for name in ("prepare", "pretrain"):
        Stage(folder, name, {}, {}).finish({}, {}, hash_folder(folder / name))
    data = {
        "name": "tiny-images", "run_dir": str(folder), "prepare": {"source": "digits"},
        "pretrain": {"objective": "mae", "model": MODEL},
        "finetune": {"num_classes": 3, "epochs": 2, "labels_per_class": 8},
        "evaluate": {"labels_per_class": [10], "num_draws": 2, "scratch_epochs": 2}, **sections,
    }  # fmt: skip
    return RunConfig.model_validate(data)
