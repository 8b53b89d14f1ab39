"""Writes what stays of one unit of pictures: shards of each split, and a table of ids, labels and clusters."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysl import storage
from raysl.data.clean import values_at
from raysl.data.config import ImagesConfig
from raysl.data.decode import Decoding, write_encoded
from raysl.data.dedup import ROW
from raysl.data.image_clean import ROWS, least_side
from raysl.data.pixels import PixelFormat, to_rows, write_pixels
from raysl.data.prints import mapped
from raysl.schema import ENCODED, ID, IMAGE, LABEL, PIXELS, SPLIT, SPLITS

SHARD_BYTES = 64_000_000
"""Pixels of one shard, at most."""
SHARDS_PER_UNIT = 1000
"""Shards are numbered unit * 1000 + place, so that their order is that of the source."""


def shard_name(unit: int, place: int) -> str:
    """Names in the order of units and places. A row group may hold more pictures than fit the shards with a number."""
    numbered, rest = min(place, SHARDS_PER_UNIT - 1), place - SHARDS_PER_UNIT
    more = f"_{rest:06d}" if rest >= 0 else ""  # behind the dot, which ends the last name with a number
    return f"shard-{unit * SHARDS_PER_UNIT + numbered:08d}{more}.arrow"


def format_of(settings: ImagesConfig) -> PixelFormat:
    return PixelFormat(settings.size, settings.channels, settings.patch_size or settings.size)


def decoding_of(settings: ImagesConfig) -> Decoding:
    """How stored pictures become the pixels that would have been stored."""
    form = format_of(settings)
    return Decoding(**asdict(form), resize=settings.resize, least_side=least_side(settings), max_pixels=settings.max_pixels)


@dataclass(frozen=True)
class PixelWriter:
    """Pickled to the workers."""

    folder: Path
    settings: ImagesConfig

    def __call__(self, unit: Path, plan: Path, number: int, done: Path) -> dict[str, Any]:
        """Every file is whole or absent; `done` is written last and holds the counts."""
        part = pq.read_table(plan / f"part-{number:05d}.parquet")
        with storage.atomic_path(self.folder / "images" / f"part-{number:05d}.parquet") as temporary:
            pq.write_table(part.select(IMAGE.names).cast(IMAGE), temporary)
        stats: dict[str, Any] = {split: self._write_split(unit, part, split, number) for split in SPLITS}
        stats["labels"] = dict(Counter(label for label in part[LABEL].to_pylist() if label is not None))
        storage.write_json(done, stats)
        return stats

    def _write_split(self, unit: Path, part: pa.Table, split: str, number: int) -> int:
        form = format_of(self.settings)
        own = part.filter(pc.equal(part[SPLIT], split))
        step = max(SHARD_BYTES // form.row_bytes, 1)
        for place, start in enumerate(range(0, len(own), step)):
            chosen = own.slice(start, step)
            taken = values_at(mapped(unit / ROWS)[0], chosen[ROW].to_numpy()).combine_chunks()
            name = shard_name(number, place)
            ids, labels = chosen[ID].to_pylist(), chosen[LABEL].to_pylist()
            if self.settings.store == "encoded":
                path = self.folder / ENCODED / split / name
                write_encoded(path, ids, labels, taken.to_pylist(), decoding_of(self.settings))
                continue
            pictures = np.asarray(taken.flatten()).reshape(-1, form.size, form.size, form.channels)
            write_pixels(self.folder / PIXELS / split / name, ids, labels, to_rows(pictures, form), form)
        return len(own)
