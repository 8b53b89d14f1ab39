"""Events of each partition, divided into buckets of users.

A user lies in one bucket, by a hash of the name; so each bucket can be put in order on its own, and memory holds one at
a time.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raysl import storage
from raysl.catalog import SOURCES
from raysl.data.clean import STATS, read_stats
from raysl.data.config import PrepareConfig
from raysl.data.sources import Partition
from raysl.data.sources.interactions import EventDrops
from raysl.schema import EVENT, TIME, USER

EVENTS = "events.arrow"
FLUSH_ROWS = 200_000
"""Events held in memory before they are written: some 50 MB."""


@dataclass(frozen=True)
class EventReader:
    """Everything a read task needs besides its partition; it is pickled to the workers."""

    config: PrepareConfig
    seed: int
    num_buckets: int

    def __call__(self, partition: Partition, folder: Path) -> dict[str, Any]:
        """Writes the events of the partition, bucket by bucket, to `folder` (whole or absent); returns the counts."""
        source = SOURCES.load(self.config.source.type)(self.config.source)
        drops = EventDrops(self.seed)
        with storage.atomic_path(folder) as temporary:
            temporary.mkdir()
            with BucketWriter(temporary / EVENTS, self.num_buckets) as writer:
                for table in source.events(partition, drops):
                    writer.add(table)
            dropped = drops.bad + drops.unwanted
            stats = {
                "documents_in": writer.num_events + dropped.total(), "clean": writer.num_events, "bad": drops.bad,
                "dropped": dropped, "examples": drops.examples.found, "buckets": writer.buckets, "span": writer.span,
            }  # fmt: skip
            (temporary / STATS).write_text(json.dumps(stats))
        return stats


class BucketWriter:
    """One Arrow file; each record batch holds events of one bucket, `buckets` says of which."""

    def __init__(self, path: Path, num_buckets: int) -> None:
        self.path, self.num_buckets = path, num_buckets
        self.buckets: list[int] = []
        self.span: tuple[int, int] | None = None
        """Earliest and latest time."""
        self.num_events = 0
        self._tables: list[pa.Table] = []
        self._waiting = 0

    def __enter__(self) -> Self:
        self._file = pa.ipc.new_file(str(self.path), EVENT)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._file.close()

    def add(self, events: pa.Table) -> None:
        self._tables.append(events)
        self._waiting += len(events)
        if self._waiting >= FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        events = pa.concat_tables([EVENT.empty_table(), *self._tables])
        self._tables, self._waiting = [], 0
        if not len(events):
            return
        times = pc.min_max(events[TIME]).as_py()
        first, last = self.span or (times["min"], times["max"])
        self.span = min(first, times["min"]), max(last, times["max"])
        self.num_events += len(events)
        bucket = buckets_of(events[USER], self.num_buckets)
        events = events.take(pa.array(np.argsort(bucket, kind="stable"))).combine_chunks()
        stops = np.cumsum(np.bincount(bucket, minlength=self.num_buckets))
        for number, (start, stop) in enumerate(zip([0, *stops[:-1]], stops, strict=True)):
            if stop > start:
                self._file.write_batch(events.slice(start, stop - start).to_batches()[0])
                self.buckets.append(number)


def buckets_of(users: pa.ChunkedArray, num_buckets: int) -> NDArray[np.int64]:
    """The same for a user wherever the name stands."""
    return np.asarray(hashes(users) % np.uint64(num_buckets), np.int64)


def hashes(names: pa.ChunkedArray) -> NDArray[np.uint64]:
    """A hash of each name; each distinct one is hashed once."""
    encoded = names.combine_chunks().dictionary_encode()
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in encoded.dictionary.to_pylist())
    numbers = np.array([int.from_bytes(digest) for digest in digests], np.uint64)
    return np.asarray(numbers[encoded.indices.to_numpy()])


def read_bucket(units: Sequence[Path], bucket: int) -> pa.Table:
    """All events of one bucket, schema.EVENT, in no order that means anything."""
    return pa.concat_tables([EVENT.empty_table(), *(pa.Table.from_batches([b]) for b in _batches(units, bucket))])


def _batches(units: Sequence[Path], bucket: int) -> Iterator[pa.RecordBatch]:
    for unit in units:
        with pa.OSFile(str(unit / EVENTS)) as source:  # mapped, all units of a bucket would be: Linux allows 65,530
            file = pa.ipc.open_file(source)
            for place, number in enumerate(read_stats(unit)["buckets"]):
                if number == bucket:
                    yield file.get_batch(place)
