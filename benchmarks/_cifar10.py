"""CIFAR-10 as the benchmarks read it: 20,000 training images without labels, 5,000 to choose settings on, 10,000 to test."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from raysl import storage
from raysl.data.pixels import PixelFormat, Pixels, to_rows, write_pixels
from raysl.run_config import RunConfig
from raysl.stage import Stage, read_manifest

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("RAYSL_SHARED", ROOT.parent / "shared"))
CIFAR10 = SHARED / "data" / "images" / "cifar10"
FORM = PixelFormat(size=32, channels=3, patch_size=4)
SPLITS = {"train": ("train", 0, 20_000), "validation": ("train", 20_000, 25_000), "test": ("test", 0, 10_000)}
"""Split -> file, first and last row."""
SIMCLR: dict[str, Any] = {
    "objective": {"type": "simclr", "temperature": 0.2},
    "model": {"type": "resnet", "depth": 18, "width": 16, "stem": "small"},
}
MAE: dict[str, Any] = {
    "objective": {"type": "mae", "decoder_layers": 2, "decoder_width": 64},
    "model": {"type": "vit", "num_layers": 6, "width": 128, "num_heads": 4, "patch_size": 4},
}
NEIGHBOURS, TEMPERATURE = 200, 0.1
"""Of the kNN classifier: how many vote, and how much more the nearest count."""
PRETRAIN = {"simclr": SIMCLR, "mae": MAE}


def config(kind: str, folder: Path, **sections: Any) -> RunConfig:
    """The run of one objective; `sections` go over what stands in PRETRAIN."""
    pretrain = PRETRAIN[kind] | {"global_batch_size": 256, "num_workers": 1} | sections.pop("pretrain", {})
    source = {"type": "images", "path": str(CIFAR10 / "train.parquet"), "label_column": "name"}
    data = {
        "name": f"cifar10-{kind}", "run_dir": str(folder), "prepare": {"source": source}, "pretrain": pretrain, **sections,
    }  # fmt: skip
    return RunConfig.model_validate(data)


def prepare(folder: Path) -> None:
    """Writes <folder>/prepare as the stage would, with the rows of SPLITS."""
    if read_manifest(folder, "prepare") is not None:
        return
    classes = json.loads(pq.read_schema(CIFAR10 / "train.parquet").metadata[b"classes"])
    for split, (name, start, stop) in SPLITS.items():
        images, numbers = images_of(name, start, stop)
        labels = [classes[number] for number in numbers]
        ids = [f"{name}-{number}" for number in range(start, stop)]
        write_pixels(
            folder / "prepare" / "pixels" / split / "shard-00000000.arrow", ids, labels, to_rows(images, FORM), FORM
        )
    Stage(folder, "prepare", {}, {}).finish({}, {}, storage.hash_folder(folder / "prepare"))


def images_of(name: str, start: int = 0, stop: int | None = None) -> tuple[Pixels, list[int]]:
    """Pixels (n, 32, 32, 3) and class numbers of the rows start to stop of a file, `train` or `test`."""
    table = pq.read_table(CIFAR10 / f"{name}.parquet").slice(start, None if stop is None else stop - start)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(stored))) for stored in table["image"].to_pylist()])
    return pixels, table["label"].to_pylist()


def voted(bank: torch.Tensor, classes: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Class number of each query: its nearest in `bank` vote, each with exp(cosine / temperature) (Wu et al., 2018)."""
    nearest = (queries @ bank.T).topk(NEIGHBOURS, dim=1)
    votes = torch.zeros(len(queries), int(classes.max()) + 1, device=bank.device)
    votes.scatter_add_(1, classes[nearest.indices], (nearest.values / TEMPERATURE).exp())
    return votes.argmax(1)
