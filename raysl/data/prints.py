"""What de-duplication keeps of each document (its print): digest, band keys, shingle hashes. No text.

Stored as memory-mapped Arrow files, so that only the shingles of candidates are ever read. The prints of kept documents
are the index against which later data is de-duplicated.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raysl import storage
from raysl.data import minhash
from raysl.data.config import DeduplicateConfig
from raysl.schema import ID, LABEL, TEXT

DIGEST, KEYS, SHINGLES, NUM_BYTES = "digest", "keys", "shingles", "num_bytes"


@dataclass(frozen=True)
class PrintSettings:
    """What prints depend on; prints of other settings cannot be compared."""

    threshold: float
    ngram: int
    num_bands: int
    rows_per_band: int
    seed: int = 1
    scheme: int = 2
    """Goes up when the same text gets other hashes."""

    @classmethod
    def of(cls, config: DeduplicateConfig) -> "PrintSettings":
        if config.num_bands is None or config.rows_per_band is None:
            return cls(config.threshold, config.ngram, *minhash.lsh_parameters(config.threshold))
        return cls(config.threshold, config.ngram, config.num_bands, config.rows_per_band)


def make_prints(table: pa.Table, settings: PrintSettings, compiled: bool) -> pa.Table:
    """Columns id, label, digest (16 bytes), num_bytes, keys and shingles for each row of id, text, label."""
    texts = table[TEXT]
    parts = []
    for chunk in minhash.chunks(texts, compiled):
        hashes, starts = minhash.shingle_hashes(chunk, settings.ngram, compiled)
        size = settings.num_bands * settings.rows_per_band
        signature = minhash.signatures(hashes, starts, size, settings.seed, compiled)
        keys = minhash.band_keys(signature, settings.num_bands, settings.rows_per_band)
        parts.append((pa.FixedSizeListArray.from_arrays(pa.array(keys.ravel()), settings.num_bands),
                      pa.LargeListArray.from_arrays(pa.array(starts), pa.array(hashes))))  # fmt: skip
    encoded = [text.encode() for text in texts.to_pylist()]
    digests = [hashlib.blake2b(text, digest_size=16).digest() for text in encoded]
    return pa.table({
        ID: table[ID], LABEL: table[LABEL], DIGEST: pa.array(digests, pa.binary(16)),
        NUM_BYTES: pa.array([len(text) for text in encoded], pa.int64()),
        KEYS: pa.chunked_array([keys for keys, _ in parts], pa.list_(pa.uint64(), settings.num_bands)),
        SHINGLES: pa.chunked_array([shingles for _, shingles in parts], pa.large_list(pa.uint64())),
    })  # fmt: skip


def write_prints(table: pa.Table, path: Path) -> None:
    """One record batch, not compressed: the file can be mapped."""
    with storage.atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), table.schema) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)


OPEN_PARTS = 4
"""Files that are mapped at a time: what was read of a mapped file counts as memory of the process."""


class Prints:
    """The prints of many documents in many files, numbered over all of them; a file is mapped while it is needed."""

    def __init__(self, parts: Sequence[pa.Table | Path], num_bands: int, sizes: Sequence[int] | None = None) -> None:
        """`sizes` are the documents of each part; without them every file is opened to see."""
        self._parts = list(parts)
        self._mapped: dict[int, pa.Table] = {}
        self.num_bands = num_bands
        self.firsts = np.cumsum([0, *(sizes if sizes is not None else (len(self._table(n)) for n in range(len(parts))))])

    def __len__(self) -> int:
        return int(self.firsts[-1])

    @property
    def num_parts(self) -> int:
        return len(self._parts)

    def keys_of_part(self, part: int) -> NDArray[np.uint64]:
        """Band keys of the documents of one part, (documents, bands), read rather than mapped: all of them are needed."""
        source = self._parts[part]
        column = source[KEYS] if isinstance(source, pa.Table) else read_column(source, KEYS)
        return self._keys(column.combine_chunks())

    def ids_of_part(self, part: int) -> list[str]:
        source = self._parts[part]
        ids: list[str] = (source[ID] if isinstance(source, pa.Table) else read_column(source, ID)).to_pylist()
        return ids

    def keys(self, first_band: int = 0, last_band: int | None = None) -> NDArray[np.uint64]:
        """Keys of all documents in some bands, (documents, bands)."""
        last = self.num_bands if last_band is None else last_band
        found = np.empty((len(self), last - first_band), np.uint64)
        for part, (first, stop) in enumerate(pairwise(self.firsts)):  # a slice would hold all bands of its part
            found[first:stop] = self.keys_of_part(part)[:, first_band:last]
        return found

    def keys_of(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        return self._keys(self.column(KEYS, rows))

    def column(self, name: str, rows: NDArray[np.int64]) -> pa.Array:
        """The values of some documents, in the order of `rows`; no others are read."""
        order = np.argsort(rows, kind="stable")
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        taken = [table[name].take(pa.array(own)).combine_chunks() for table, own in self._tables_of(rows[order])]
        return pa.concat_arrays(taken or [self._table(0)[name].slice(0, 0).combine_chunks()]).take(pa.array(back))

    def num_shingles(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many shingles each of the sorted rows has, repeats counted."""
        sizes = [pc.list_value_length(table[SHINGLES]).to_numpy()[own] for table, own in self._tables_of(rows)]
        return np.concatenate([np.zeros(0, np.int64), *sizes])

    def shingles_of(self, rows: NDArray[np.int64]) -> minhash.Shingles:
        """Reads the shingles of the (sorted) rows into memory; the others stay on disk."""
        parts = []
        for table, own in self._tables_of(rows):
            taken = table[SHINGLES].take(pa.array(own)).combine_chunks()
            parts.append((taken.flatten().to_numpy(), np.asarray(taken.offsets) - taken.offsets[0].as_py()))
        return minhash.joined(parts)

    def _tables_of(self, rows: NDArray[np.int64]) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
        """The parts in which the sorted rows lie, and their places there."""
        for part in np.unique(np.searchsorted(self.firsts, rows, side="right") - 1).tolist():
            first, stop = np.searchsorted(rows, self.firsts[part : part + 2])
            yield self._table(part), rows[first:stop] - self.firsts[part]

    def _table(self, part: int) -> pa.Table:
        source = self._parts[part]
        if isinstance(source, pa.Table):
            return source
        found = self._mapped.pop(part, None)
        if found is None:
            found = mapped(source)
        self._mapped[part] = found  # the last one used stands last
        if len(self._mapped) > OPEN_PARTS:
            del self._mapped[next(iter(self._mapped))]
        return found

    def _keys(self, column: pa.Array) -> NDArray[np.uint64]:
        keys: NDArray[np.uint64] = column.flatten().to_numpy().reshape(-1, self.num_bands)
        return keys


def mapped(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def read_column(path: Path, name: str) -> pa.ChunkedArray:
    """Reads one column of an Arrow file into memory and nothing else of it."""
    with pa.OSFile(str(path)) as source:
        place = pa.ipc.open_file(source).schema.get_field_index(name)
        return pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=[place])).read_all()[name]
