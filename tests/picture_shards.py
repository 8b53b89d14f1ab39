"""A prepare folder of pictures, once as pixels and once as stored pictures."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from raysl.data.decode import Decoding, write_encoded
from raysl.data.pixels import write_pixels
from raysl.stage import Stage
from raysl.storage import hash_folder

HOW = Decoding(size=16, channels=3, patch_size=16, resize="crop", least_side=16, max_pixels=10_000)


def pictures(count: int, seed: int = 0) -> list[bytes]:
    """JPEG and PNG files of different sizes: smooth colours with some noise, one colour for each of four classes."""
    rng = np.random.default_rng(seed)
    files = []
    for number in range(count):
        height, width = rng.integers(20, 48, 2)
        base = np.linspace(0, 120, width)[None, :, None] + np.array([60, 10, 90]) * (number % 4) / 3
        noise = rng.normal(0, 12, (height, width, 3))
        file = io.BytesIO()
        image = Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8))
        image.save(file, "JPEG" if number % 3 else "PNG")
        files.append(file.getvalue())
    return files


def write_prepared(run_folder: Path, encoded: bool, shards: int = 6, rows: int = 12) -> None:
    """<run_folder>/prepare with the splits train (`shards` shards) and validation (one), and its manifest."""
    folder = run_folder / "prepare"
    for split, number in [("train", n) for n in range(shards)] + [("validation", shards)]:
        files = pictures(rows, seed=number)
        ids, labels = [f"{split}-{number}-{n}" for n in range(rows)], [f"class {n % 4}" for n in range(rows)]
        name = f"{split}/shard-{number:05d}.arrow"
        if encoded:
            write_encoded(folder / "encoded" / name, ids, labels, files, HOW)
        else:
            decoded = np.stack([HOW.row(file, "a picture") for file in files])
            write_pixels(folder / "pixels" / name, ids, labels, decoded, HOW.form)
    Stage(run_folder, "prepare", {}, {}).finish({"kept": shards * rows}, {}, hash_folder(folder))
