"""Events on their way to sequences: each partition's events are cut into buckets of users, then a bucket is put in order.

A user lies in one bucket, by a hash of the name; so each bucket is ordered on its own, and memory holds one at a time.
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
from raysl.data.filters.base import Examples
from raysl.data.sources import Partition
from raysl.data.sources.interactions import EventDrops
from raysl.schema import EVENT, GROUP, ID, ITEM, ORDERED, TEXT, TIME, USER

EVENTS = "events.arrow"
FLUSH_ROWS = 200_000
"""Events held in memory before they are written: some 50 MB."""
REPEAT = "exact_repeat"


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
    encoded = users.combine_chunks().dictionary_encode()
    numbers = [
        int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) % num_buckets
        for name in encoded.dictionary.to_pylist()
    ]
    return np.array(numbers, np.int64)[encoded.indices.to_numpy()]


def read_bucket(units: Sequence[Path], bucket: int) -> pa.Table:
    """All events of one bucket, schema.EVENT, in no order that means anything."""
    return pa.concat_tables([EVENT.empty_table(), *(pa.Table.from_batches([b]) for b in _batches(units, bucket))])


def _batches(units: Sequence[Path], bucket: int) -> Iterator[pa.RecordBatch]:
    for unit in units:
        with pa.memory_map(str(unit / EVENTS)) as source:
            file = pa.ipc.open_file(source)
            for place, number in enumerate(read_stats(unit)["buckets"]):
                if number == bucket:
                    yield file.get_batch(place)


def in_order(events: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Events of many users (schema.EVENT) as schema.ORDERED, and the rows that only repeat another.

    Sorted by user, time, group, item. What belongs to one group happens at its latest time, so that no cut goes through
    a group and none reaches back over one; without groups, what happens at one moment is a group. The result depends
    on the set of events alone.
    """
    events = _at_latest_time(events)
    events = events.sort_by([(name, "ascending") for name in (USER, TIME, GROUP, ITEM, TEXT)])
    user, time, group, item = (_codes(events[name]) for name in (USER, TIME, GROUP, ITEM))
    new_user = _changes(user)
    new_group = new_user | _changes(time) | _changes(group)
    repeated = ~(new_group | _changes(item))
    number = np.cumsum(new_group) - 1
    first = np.maximum.accumulate(np.where(new_user, number, 0))
    columns = [events[USER], events[ITEM], events[TIME], pa.array(number - first, pa.int32()), events[TEXT]]
    ordered = pa.table(columns, schema=ORDERED)
    return ordered.filter(pa.array(~repeated)), ordered.filter(pa.array(repeated))


def trained_on(events: pa.Table, train_until: int, min_user_events: int) -> NDArray[np.bool_]:
    """Which events of a bucket (schema.ORDERED) are trained on: early ones of users with enough of them."""
    early = events[TIME].to_numpy() < train_until
    users = _codes(events[USER])
    counts = np.bincount(users[early], minlength=users.max(initial=-1) + 1)
    return np.asarray(early & (counts[users] >= min_user_events))


def _at_latest_time(events: pa.Table) -> pa.Table:
    grouped = pc.is_valid(events[GROUP])
    some = events.filter(grouped).sort_by([(name, "ascending") for name in (USER, GROUP, TIME)])
    starts = np.flatnonzero(_changes(_codes(some[USER])) | _changes(_codes(some[GROUP])))
    lengths = np.diff(np.append(starts, len(some)))
    latest = np.repeat(some[TIME].to_numpy()[starts + lengths - 1], lengths) if len(some) else np.zeros(0, np.int64)
    some = some.set_column(some.schema.get_field_index(TIME), TIME, pa.array(latest, pa.int64()))
    return pa.concat_tables([some, events.filter(pc.invert(grouped))])


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Equal numbers for equal values; null is a value of its own."""
    if pa.types.is_integer(column.type):
        return column.to_numpy()
    encoded = column.combine_chunks().dictionary_encode()
    return pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy()


def _changes(codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a value differs from the one before it; the first does."""
    changes = np.ones(len(codes), np.bool_)
    changes[1:] = codes[1:] != codes[:-1]
    return changes


@dataclass(frozen=True)
class EventOrder:
    """Everything an ordering task needs besides its bucket; it is pickled to the workers."""

    seed: int
    bin_width: int | None
    """Microseconds in which events are counted, where cuts are to be drawn from that."""

    def __call__(self, units: Sequence[Path], bucket: int, folder: Path) -> dict[str, Any]:
        """Writes the events of one bucket in order to `folder` (whole or absent); returns the counts."""
        ordered, repeats = in_order(read_bucket(units, bucket))
        examples = Examples(self.seed)
        if len(repeats):
            examples.add(REPEAT, named(repeats))
        dropped = {REPEAT: len(repeats)} if len(repeats) else {}
        stats = {"events": len(ordered), "dropped": dropped, "examples": examples.found, "bins": self._bins(ordered)}
        with storage.atomic_path(folder) as temporary:
            temporary.mkdir()
            with pa.ipc.new_file(str(temporary / EVENTS), ORDERED) as writer:
                writer.write_table(ordered.combine_chunks())
            (temporary / STATS).write_text(json.dumps(stats))
        return stats

    def _bins(self, events: pa.Table) -> list[list[int]]:
        """(bin, events in it) pairs."""
        if self.bin_width is None:
            return []
        bins, counts = np.unique(events[TIME].to_numpy() // self.bin_width, return_counts=True)
        return np.stack([bins, counts], axis=1).tolist()  # type: ignore[no-any-return]


def named(events: pa.Table) -> pa.Table:
    """Rows as examples show them: user, item and time as the id, what the item is as the text."""
    time = pc.cast(pc.cast(events[TIME], pa.timestamp("us")), pa.string())
    name = pc.binary_join_element_wise(events[USER], events[ITEM], time, "  ")
    return pa.table({ID: name, TEXT: pc.fill_null(events[TEXT], "")})
