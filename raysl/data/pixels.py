"""Pixel shards: images of one size as rows of bytes, in memory-mapped Arrow files.

A row is (patch row, patch column, row in patch, column in patch, channel) flattened: patches for MAE are a view of it, and
where a patch is the whole image it is plain (height, width, channel). Size, channels and patch size stand in the schema.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysl import storage
from raysl.data.rows import LocalShards, Rows, Shards
from raysl.data.shard_facts import ShardFacts, mapped_batch
from raysl.errors import DataError
from raysl.schema import ID, LABEL, PIXELS

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PixelFormat:
    """How the bytes of a row are to be read."""

    size: int
    """Pixels along each side."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    patch_size: int
    """Pixels along each side of a patch; divides `size`."""

    @classmethod
    def of(cls, facts: ShardFacts) -> "PixelFormat":
        """The format that the schema of a shard states."""
        return cls(**{name: int(facts.said[name]) for name in ("size", "channels", "patch_size")})

    @property
    def row_bytes(self) -> int:
        return self.size * self.size * self.channels

    @property
    def num_patches(self) -> int:
        return (self.size // self.patch_size) ** 2


def to_rows(images: Pixels, form: PixelFormat) -> Pixels:
    """Images (n, height, width, channel) -> rows (n, row bytes) as they lie in a shard."""
    grid, patch = form.size // form.patch_size, form.patch_size
    cut = images.reshape(-1, grid, patch, grid, patch, form.channels).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(cut).reshape(len(images), form.row_bytes)


def to_images(rows: Pixels, form: PixelFormat) -> Pixels:
    """Rows (n, row bytes) -> images (n, channel, height, width), as networks read them."""
    grid, patch = form.size // form.patch_size, form.patch_size
    cut = rows.reshape(-1, grid, grid, patch, patch, form.channels).transpose(0, 5, 1, 3, 2, 4)
    return np.ascontiguousarray(cut).reshape(len(rows), form.channels, form.size, form.size)


def to_patches(rows: Pixels, form: PixelFormat) -> Pixels:
    """Rows (n, row bytes) -> patches (n, patches, bytes of a patch); a view."""
    return rows.reshape(len(rows), form.num_patches, form.patch_size**2 * form.channels)


def pixel_batch(ids: Sequence[str], labels: Sequence[str | None], rows: Pixels, form: PixelFormat) -> pa.RecordBatch:
    """What a shard holds. `rows` is (n, row bytes), see `to_rows`."""
    values = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), form.row_bytes)
    said = {name: str(value) for name, value in vars(form).items()}
    schema = pa.schema([(ID, pa.string()), (LABEL, pa.string()), (PIXELS, values.type)], metadata=said)
    return pa.record_batch([pa.array(ids, pa.string()), pa.array(labels, pa.string()), values], schema=schema)


def write_pixels(path: Path, ids: Sequence[str], labels: Sequence[str | None], rows: Pixels, form: PixelFormat) -> None:
    """One shard, whole or absent."""
    batch = pixel_batch(ids, labels, rows, form)
    with storage.atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), batch.schema) as writer:
        writer.write_batch(batch)


class PixelRows(Rows):
    """Rows of one split, numbered 0..len-1 over all its shards; DataError where there are none."""

    def __init__(self, where: Path | Shards) -> None:
        shards = LocalShards(where) if isinstance(where, Path) else where
        if not len(shards):
            raise DataError(f"No pixel shards in {where}. Run `raysl prepare` first, or give this split a larger share.")
        facts = [shards.facts(number) for number in range(len(shards))]
        self.form = PixelFormat.of(facts[0])
        super().__init__(shards, [one.rows for one in facts])

    @property
    def ids(self) -> list[str]:
        return self._column(ID)

    @property
    def labels(self) -> list[str | None]:
        return self._column(LABEL)

    def _open(self, path: Path) -> Any:
        batch = mapped_batch(path)
        pixels: Pixels = batch.column(PIXELS).flatten().to_numpy().reshape(-1, self.form.row_bytes)
        return batch, pixels

    def _row(self, shard: Any, place: int) -> Pixels:
        """(row bytes,)"""
        row: Pixels = shard[1][place]
        return row

    def _column(self, name: str) -> list[Any]:
        return [value for number in range(len(self.shards)) for value in self._shard(number)[0].column(name).to_pylist()]


STATISTICS_ROWS = 10_000


def channel_statistics(rows: PixelRows) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the scale 0 to 1, over evenly spaced rows, 10,000 at most.

    A channel that never changes has deviation 1.
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), STATISTICS_ROWS)).astype(np.int64))
    counts = np.zeros((rows.form.channels, 256), np.int64)
    for index in chosen:
        pixels = rows.row(int(index)).reshape(-1, rows.form.channels)
        for channel in range(rows.form.channels):
            counts[channel] += np.bincount(pixels[:, channel], minlength=256)
    values, total = np.arange(256) / 255, counts.sum(1)
    mean = counts @ values / total
    deviation = np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist())
