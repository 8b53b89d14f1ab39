"""Pixel shards written by hand, as `prepare` leaves them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from raysl.data.pixels import PixelFormat, Pixels, to_rows, write_pixels

CLASSES = ("bars", "boxes", "dots")


def random_images(count: int, size: int = 16, channels: int = 3, seed: int = 0) -> tuple[Pixels, list[str]]:
    """Images (count, size, size, channel) of three kinds with noise on them, and the kind of each."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    shapes = [columns % 4 < 2, (rows > size // 3) & (columns > size // 3), (rows % 4 < 2) & (columns % 4 < 2)]
    kinds = generator.integers(0, len(shapes), count)
    colours = generator.integers(60, 200, (count, 1, 1, channels))
    clean = np.stack([shapes[kind] for kind in kinds])[..., None] * colours
    noisy = clean + generator.integers(0, 40, (count, size, size, channels))
    return noisy.astype(np.uint8), [CLASSES[kind] for kind in kinds]


def write_shards(folder: Path, count: int, form: PixelFormat, num_shards: int = 2, seed: int = 0) -> Path:
    """Shards of random images of the given form; `folder` is one split."""
    images, labels = random_images(count, form.size, form.channels, seed)
    rows = to_rows(images, form)
    for number, places in enumerate(np.array_split(np.arange(count), num_shards)):
        ids, own = [f"{folder.name}-{p}" for p in places], [labels[p] for p in places]
        write_pixels(folder / f"shard-{number:05}.arrow", ids, own, rows[places], form)
    return folder


def file_of(picture: Pixels, kind: str = "PNG") -> bytes:
    """(height, width, channel) as the bytes of a picture file."""
    written = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(written, kind)
    return written.getvalue()
