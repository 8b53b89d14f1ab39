"""A tiny run on images: prepared shards of three kinds of pictures, and an encoder with weights as they were drawn.

`add_classifier` adds what `finetune` leaves: the class whose mean embedding is the nearest.
"""

from pathlib import Path

import numpy as np
import torch

from raysl.data.pixels import PixelFormat, PixelRows, channel_statistics
from raysl.models import load
from raysl.models.heads import Classifier
from raysl.models.vision import ImageFormat
from raysl.models.vision_config import VitConfig
from raysl.run_config import RunConfig
from raysl.stage import Stage
from raysl.storage import hash_folder, write_json
from tests.pixel_shards import CLASSES, random_images, write_shards

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
        "name": "tiny-images", "run_dir": str(folder),
        "prepare": {"source": "digits", "images": {"size": 16, "patch_size": 4}},
        "pretrain": {"objective": "mae", "model": MODEL},
        "finetune": {"num_classes": 3, "epochs": 2, "labels_per_class": 8},
        "evaluate": {"labels_per_class": [10], "num_draws": 2, "scratch_epochs": 2}, **sections,
    }  # fmt: skip
    return RunConfig.model_validate(data)


def add_classifier(config: RunConfig) -> RunConfig:
    """Finishes the finetune stage of a run."""
    encoder, description = load.load_encoder(config.folder / "pretrain")
    images, labels = random_images(200, FORM.size, FORM.channels, seed=7)
    classifier = Classifier(encoder, len(CLASSES))
    with torch.no_grad():
        embeddings = encoder.embed(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
        means = torch.stack([embeddings[[label == name for label in labels]].mean(0) for name in CLASSES])
        classifier.head.weight.copy_(40 * means)
        classifier.head.bias.copy_(-20 * (means**2).sum(1))
    load.save(classifier, config.folder / "finetune", description)
    write_json(config.folder / "finetune" / load.CLASSES, {"classes": list(CLASSES)})
    Stage(config.folder, "finetune", {}, {}).finish({}, {}, hash_folder(config.folder / "finetune"))
    return config
