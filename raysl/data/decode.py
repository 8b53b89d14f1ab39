"""Shards of stored pictures (JPEG, PNG, ...) and their decoding to pixel shards, by the code of `prepare` itself."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raysl import storage
from raysl.data import images, transfer
from raysl.data.images import BadImage, Pixels, Resize
from raysl.data.pixels import PixelFormat, PixelRows, pixel_batch, to_rows
from raysl.data.shard_facts import mapped_batch
from raysl.data.sources.stores import is_remote
from raysl.errors import DataError
from raysl.schema import ENCODED, ID, LABEL


@dataclass(frozen=True)
class Decoding:
    """How bytes become the pixels of a row; stands in the schema of every shard of stored pictures."""

    size: int
    """Pixels along each side."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    patch_size: int
    """Pixels along each side of a patch."""
    resize: Resize
    """How a picture becomes a square."""
    least_side: int
    """Pixels that both sides have after decoding, where the picture has so many."""
    max_pixels: int
    """Pixels of a whole picture at most."""

    @property
    def form(self) -> PixelFormat:
        return PixelFormat(self.size, self.channels, self.patch_size)

    def row(self, data: bytes, name: str) -> Pixels:
        """Bytes as they were found -> (row bytes,). Raises DataError, since `prepare` stores only what it could read."""
        try:
            row: Pixels = to_rows(self._square(data)[None], self.form)[0]
        except BadImage as error:
            raise DataError(f"The picture {name} cannot be decoded: {error.reason}. Run `raysl prepare` again.") from error
        return row

    def picture(self, data: bytes) -> Pixels:
        """Bytes from anywhere -> (channel, height, width), as networks read them. Raises BadImage."""
        return np.ascontiguousarray(self._square(data).transpose(2, 0, 1))

    def _square(self, data: bytes) -> Pixels:
        """(height, width, channel)"""
        picture = images.decode(data, self.channels, self.least_side, self.max_pixels)
        return images.to_pixels(images.fitted(picture.image, self.size, self.resize))


def write_encoded(
    path: Path, ids: Sequence[str], labels: Sequence[str | None], pictures: Sequence[bytes], how: Decoding
) -> None:
    """One shard of pictures as they were found, whole or absent."""
    fields = [(ID, pa.string()), (LABEL, pa.string()), (ENCODED, pa.large_binary())]
    schema = pa.schema(fields, metadata={name: str(value) for name, value in asdict(how).items()})
    columns = zip((ids, labels, pictures), schema.types, strict=True)
    batch = pa.record_batch([pa.array(values, kind) for values, kind in columns], schema=schema)
    with storage.atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(batch)


def decode_file(where: str) -> bytes:
    """The pixel shard, byte for byte as `prepare` would have written it, of a shard of pictures at a path or URI."""
    batch = _read(where)
    how = decoding_of(batch.schema)
    ids, pictures = batch.column(ID).to_pylist(), batch.column(ENCODED)
    rows = np.empty((len(ids), how.form.row_bytes), np.uint8)
    for place, name in enumerate(ids):
        rows[place] = how.row(pictures[place].as_py(), f"{name} in {where}")
    decoded = pixel_batch(ids, batch.column(LABEL).to_pylist(), rows, how.form)
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, decoded.schema) as writer:
        writer.write_batch(decoded)
    return sink.getvalue()


def decoding_of(shard: pa.Schema) -> Decoding:
    said = {name.decode(): value.decode() for name, value in shard.metadata.items()}
    resize: Resize = said.pop("resize")
    return Decoding(resize=resize, **{name: int(value) for name, value in said.items()})


def _read(where: str) -> pa.RecordBatch:
    if is_remote(where):
        return pa.ipc.open_file(pa.BufferReader(transfer.read(where))).get_batch(0)
    return mapped_batch(Path(where))


class EncodedRows(PixelRows):
    """Rows of stored pictures, each decoded when it is read: for the few that statistics need."""

    def _open(self, path: Path) -> Any:
        batch = mapped_batch(path)
        return batch, decoding_of(batch.schema)

    def _row(self, shard: Any, place: int) -> Pixels:
        batch, how = shard
        row: Pixels = how.row(batch.column(ENCODED)[place].as_py(), batch.column(ID)[place].as_py())
        return row
