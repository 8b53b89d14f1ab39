"""What de-duplication keeps of each document (its print): digest, band keys, shingle hashes. No text.

Stored as memory-mapped Arrow files, so that only the shingles of candidates are ever read. The prints of kept documents
are the index against which later data is de-duplicated.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
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


class Prints:
    """The prints of many documents in many mapped files, numbered over all of them."""

    def __init__(self, tables: Sequence[pa.Table], num_bands: int) -> None:
        columns = (ID, LABEL, DIGEST, NUM_BYTES, KEYS)
        small = pa.concat_tables([table.select(columns) for table in tables])
        self.ids: list[str] = small[ID].to_pylist()
        self.labels: list[str | None] = small[LABEL].to_pylist()
        self.digests: list[bytes] = small[DIGEST].to_pylist()
        self.num_bytes: NDArray[np.int64] = small[NUM_BYTES].to_numpy()
        keys = [chunk.flatten().to_numpy().reshape(-1, num_bands) for chunk in small[KEYS].chunks if len(chunk)]
        self.keys: NDArray[np.uint64] = np.concatenate([np.zeros((0, num_bands), np.uint64), *keys])
        self._lists = [chunk for table in tables for chunk in table[SHINGLES].chunks]
        self._firsts = np.cumsum([0, *(len(chunk) for chunk in self._lists)])

    def __len__(self) -> int:
        return len(self.ids)

    def shingles_of(self, rows: NDArray[np.int64]) -> minhash.Shingles:
        """Reads the shingles of the (sorted) rows into memory; the others stay on disk."""
        parts = []
        for chunk, first, stop in zip(self._lists, self._firsts, self._firsts[1:], strict=False):
            own = rows[np.searchsorted(rows, first) : np.searchsorted(rows, stop)] - first
            if len(own):
                taken = chunk.take(pa.array(own))
                parts.append((taken.flatten().to_numpy(), np.asarray(taken.offsets) - taken.offsets[0].as_py()))
        return minhash.joined(parts)


def open_prints(paths: Sequence[Path], num_bands: int) -> Prints:
    return Prints([mapped(path) for path in paths], num_bands)


def mapped(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
