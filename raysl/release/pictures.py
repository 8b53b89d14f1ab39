"""Prepared pictures as a release needs them: the first ones to search in, and a fair draw of those held out. Torch-free.

Their shards are mapped into memory, so a table of all of them takes none.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysl.data.decode import decoding_of
from raysl.data.pixels import PixelFormat, Pixels, to_images
from raysl.data.shard_facts import mapped_batch
from raysl.errors import DataError
from raysl.release.documents import kept
from raysl.schema import ENCODED, ID, LABEL, PIXELS, SPLITS


class StoredPictures(Sequence[Pixels]):
    """Pictures (channel, height, width) of a table of shards, each read, and decoded where it was stored, when asked for."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        self._encoded = ENCODED in rows.column_names

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Pixels: ...

    @overload
    def __getitem__(self, place: slice) -> list[Pixels]: ...

    def __getitem__(self, place: int | slice) -> Pixels | list[Pixels]:
        if isinstance(place, int):
            if not -len(self) <= place < len(self):
                raise IndexError(place)
            return self._read(place % len(self), 1)[0]
        start, stop, step = place.indices(len(self))
        return self._read(start, max(stop - start, 0))[::step]

    def _read(self, start: int, count: int) -> list[Pixels]:
        rows = self._rows.slice(start, count)
        if not len(rows):
            return []
        if self._encoded:
            how = decoding_of(rows.schema)
            pictures = zip(rows[ENCODED].to_pylist(), rows[ID].to_pylist(), strict=True)
            form, flat = how.form, np.stack([how.row(data, name) for data, name in pictures])
        else:
            form = PixelFormat(**{name.decode(): int(value) for name, value in rows.schema.metadata.items()})
            flat = rows[PIXELS].combine_chunks().flatten().to_numpy().reshape(-1, form.row_bytes)
        return list(to_images(flat, form))


def first_pictures(prepared: Path, count: int) -> pa.Table:
    """The first `count` prepared pictures, those of the train split first: id, label, and pixels or the stored picture."""
    return pa.concat_tables([_split(prepared, split) for split in SPLITS if _paths(prepared, split)]).slice(0, count)


def draw_pictures(prepared: Path, split: str, count: int, seed: int, labelled: bool = False) -> pa.Table:
    """At most `count` pictures of a split, drawn with `seed`, in their order; only those with a label where `labelled`."""
    if not _paths(prepared, split):
        raise DataError(f"No picture in {prepared} is held out. Give prepare.split.{split} a share above 0.")
    rows = _split(prepared, split)
    places = np.flatnonzero(pc.is_valid(rows[LABEL]).to_numpy()) if labelled else np.arange(len(rows))
    chosen = np.zeros(len(rows), bool)
    chosen[np.random.default_rng(seed).permutation(places)[:count]] = True
    return kept(rows, chosen)


def _split(prepared: Path, split: str) -> pa.Table:
    return pa.Table.from_batches([mapped_batch(path) for path in _paths(prepared, split)])


def _paths(prepared: Path, split: str) -> list[Path]:
    return sorted(path for kind in (PIXELS, ENCODED) for path in (prepared / kind / split).glob("shard-*.arrow"))
