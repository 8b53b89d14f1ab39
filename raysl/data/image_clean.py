"""One unit of work of `prepare` on pictures: read a partition, decode, check, hash, bring to size. Plain Python."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from raysl import storage
from raysl.catalog import SOURCES
from raysl.data import image_hash, images
from raysl.data.clean import DROPPED, PRINTS, STATS
from raysl.data.config import ImagesConfig, PrepareConfig
from raysl.data.image_examples import ImageExamples
from raysl.data.images import BadImage, Picture
from raysl.data.prints import DIGEST, write_prints
from raysl.data.sources import BadRows, ImageSource, Partition
from raysl.schema import ENCODED, ID, LABEL, PIXELS, REMOVED_IMAGE

ROWS = "rows.arrow"
HASH = "hash"
TOO_SMALL, ASPECT, BLANK, BLURRED = "too_small", "aspect", "blank", "blurred"
BATCH, BATCH_BYTES = 128, 64_000_000
"""Pictures that are held in memory at a time, and their bytes as they are stored."""
HASH_SIDE, SHARPNESS_SIDE = 64, 256
"""Pixels at which a picture is decoded at least, to be hashed and to be judged for blur."""


@dataclass(frozen=True)
class ImageCleaner:
    """Everything a clean task needs besides its partition; it is pickled to the workers."""

    config: PrepareConfig
    settings: ImagesConfig
    seed: int

    def __call__(self, partition: Partition, folder: Path) -> dict[str, Any]:
        """Writes the good pictures of the partition to `folder` (whole or absent); returns and keeps the counts."""
        source: ImageSource = SOURCES.load(self.config.source.type)(self.config.source)
        with storage.atomic_path(folder) as temporary:
            temporary.mkdir()
            with UnitWriter(temporary / ROWS, self.settings) as unit:
                result = self._clean(source, partition, unit)
            write_prints(unit.prints(), temporary / PRINTS)
            pq.write_table(removed_images(result.ids, result.reasons), temporary / DROPPED)
            stats = {"documents_in": unit.count + len(result.ids), "bad": result.bad, "clean": unit.count,
                     "dropped": dict(Counter(result.reasons)), "examples": result.examples.found}  # fmt: skip
            (temporary / STATS).write_text(json.dumps(stats))
        return stats

    def _clean(self, source: ImageSource, partition: Partition, unit: "UnitWriter") -> "Dropped":
        bad, dropped = BadRows(), Dropped(ImageExamples(self.seed))
        least = least_side(self.settings)
        for name, data, label in source.images(partition, bad):
            try:
                picture = images.decode(data, self.settings.channels, least, self.settings.max_pixels)
            except BadImage as error:
                bad.add(error.reason, name)
                continue
            reason = failed(picture, self.settings)
            if reason is None:
                unit.add(name, label, picture, data)
            else:
                dropped.add(reason, name, picture)
        for reason, name in zip(bad.reasons, bad.ids, strict=True):
            dropped.add(reason, name, None)
        dropped.bad = bad.counts()
        return dropped


@dataclass
class Dropped:
    """Pictures that went, each under its reason."""

    examples: ImageExamples
    ids: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    bad: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, name: str, picture: Picture | None) -> None:
        self.ids.append(name)
        self.reasons.append(reason)
        said = "" if picture is None else f"{picture.width} x {picture.height}"
        self.examples.add(reason, name, said, None if picture is None else lambda: picture.image)


def least_side(settings: ImagesConfig) -> int:
    """Twice the size it is brought to, so that reduced decoding costs no sharpness."""
    return max(2 * settings.size, HASH_SIDE, SHARPNESS_SIDE if settings.min_sharpness else 0)


def failed(picture: Picture, settings: ImagesConfig) -> str | None:
    """The first test that a picture does not pass."""
    short, long = sorted((picture.width, picture.height))
    if short < settings.min_side:
        return TOO_SMALL
    if settings.max_aspect is not None and long > settings.max_aspect * short:
        return ASPECT
    if not (settings.min_contrast or settings.min_sharpness):
        return None
    grey = picture.image.convert("L")
    if images.contrast(grey) < settings.min_contrast:
        return BLANK
    if settings.min_sharpness and images.sharpness(grey, SHARPNESS_SIDE) < settings.min_sharpness:
        return BLURRED
    return None


class UnitWriter:
    """Writes prepared pictures batch by batch; keeps only what de-duplication compares."""

    def __init__(self, path: Path, settings: ImagesConfig) -> None:
        self.settings, self.count, self._num_bytes = settings, 0, 0
        row_bytes = settings.size * settings.size * settings.channels
        pixels, encoded = (PIXELS, pa.list_(pa.uint8(), row_bytes)), (ENCODED, pa.large_binary())
        self._schema = pa.schema([encoded if settings.store == "encoded" else pixels])
        self._writer = pa.ipc.new_file(str(path), self._schema)
        self._rows: list[images.Pixels | bytes] = []
        self._squares: list[images.Pixels] = []
        self._ids: list[str] = []
        self._labels: list[str | None] = []
        self._digests: list[bytes] = []
        self._hashes: list[int | None] = []

    def __enter__(self) -> "UnitWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, name: str, label: str | None, picture: Picture, data: bytes) -> None:
        self._ids.append(name)
        self._labels.append(label)
        self._digests.append(digest(picture))
        fitted = images.fitted(picture.image, self.settings.size, self.settings.resize)
        row = data if self.settings.store == "encoded" else np.asarray(fitted)
        self._rows.append(row)
        self._squares.append(image_hash.grey_square(picture.image))
        self.count += 1
        self._num_bytes += len(row) if isinstance(row, bytes) else row.nbytes
        if len(self._rows) == BATCH or self._num_bytes > BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        found = image_hash.hashes(np.stack(self._squares))
        self._hashes += [bits if known else None for bits, known in zip(found.bits.tolist(), found.known, strict=True)]
        row_type = self._schema.field(0).type
        if self.settings.store == "encoded":
            rows = pa.array(self._rows, row_type)
        else:
            rows = pa.FixedSizeListArray.from_arrays(pa.array(np.stack(self._rows).ravel()), row_type.list_size)
        self._writer.write_batch(pa.record_batch([rows], schema=self._schema))
        self._rows, self._squares, self._num_bytes = [], [], 0

    def prints(self) -> pa.Table:
        """Columns id, label, digest (16 bytes) and hash (null for pictures without structure)."""
        return pa.table({
            ID: pa.array(self._ids, pa.string()), LABEL: pa.array(self._labels, pa.string()),
            DIGEST: pa.array(self._digests, pa.binary(16)), HASH: pa.array(self._hashes, pa.uint64()),
        })  # fmt: skip


def digest(picture: Picture) -> bytes:
    """Names the decoded picture: other bytes with the same pixels have the same digest."""
    image: Image.Image = picture.image
    said = f"{image.mode} {image.size} {picture.width} {picture.height}".encode()
    return hashlib.blake2b(image.tobytes(), digest_size=16, key=hashlib.blake2b(said, digest_size=16).digest()).digest()


def removed_images(ids: list[str], reasons: list[str], kept_ids: list[str] | None = None,
                   distances: list[int] | None = None) -> pa.Table:  # fmt: skip
    """Rows of schema.REMOVED_IMAGE."""
    nothing = [None] * len(ids)
    columns = (ids, reasons, kept_ids or nothing, nothing if distances is None else distances)
    arrays = [pa.array(values, column.type) for values, column in zip(columns, REMOVED_IMAGE, strict=True)]
    return pa.Table.from_arrays(arrays, schema=REMOVED_IMAGE)
