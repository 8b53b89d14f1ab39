"""Events of a bucket of users in the order in which they happened."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raysl import storage
from raysl.data.clean import STATS
from raysl.data.events import EVENTS, hashes, read_bucket
from raysl.data.filters.base import Examples
from raysl.schema import GROUP, ID, ITEM, ORDERED, TEXT, TIME, USER

REPEAT = "exact_repeat"
DRAW = "draw"


def in_order(events: pa.Table, seed: int) -> tuple[pa.Table, pa.Table]:
    """Events of many users (schema.EVENT) as schema.ORDERED, and the rows that only repeat another.

    Sorted by user and time. What belongs to one group happens at its latest time, so that no cut goes through a group;
    without groups, what happens at one moment is a group. Inside a group the order is drawn, anew for each: a fixed one,
    by code say, could be learned, and would pass for knowledge of what comes next. The result depends on the set of
    events and the seed alone.
    """
    events = _at_latest_time(events)
    events = events.append_column(DRAW, pa.array(draws(events, seed)))
    events = events.sort_by([(name, "ascending") for name in (USER, TIME, GROUP, DRAW, ITEM, TEXT)])
    user, time, group, item = (_codes(events[name]) for name in (USER, TIME, GROUP, ITEM))
    new_user = _changes(user)
    new_group = new_user | _changes(time) | _changes(group)
    repeated = ~(new_group | _changes(item))
    number = np.cumsum(new_group) - 1
    first = np.maximum.accumulate(np.where(new_user, number, 0))
    columns = [events[USER], events[ITEM], events[TIME], pa.array(number - first, pa.int32()), events[TEXT]]
    ordered = pa.table(columns, schema=ORDERED)
    return ordered.filter(pa.array(~repeated)), ordered.filter(pa.array(repeated))


def draws(events: pa.Table, seed: int) -> NDArray[np.uint64]:
    """A number for each event from its user, time and item, as good as random."""
    salted = hashes(events[USER]) + _mixed(events[TIME].to_numpy().view(np.uint64) + np.uint64(seed))
    return _mixed(_mixed(salted) + hashes(events[ITEM]))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele et al., 2014): each bit in touches all bits out."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


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
        return np.asarray(column.to_numpy(), np.int64)
    encoded = column.combine_chunks().dictionary_encode()
    return np.asarray(pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(), np.int64)


def _changes(codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a value differs from the one before it; the first does."""
    changes = np.ones(len(codes), np.bool_)
    changes[1:] = codes[1:] != codes[:-1]
    return changes


@dataclass(frozen=True)
class EventOrder:
    """Everything an ordering task needs besides its bucket; it is pickled to the workers."""

    units: Sequence[Path]
    """What the read tasks left."""
    seed: int
    bin_width: int | None
    """Microseconds in which events are counted, where cuts are to be drawn from that."""

    def __call__(self, bucket: int, folder: Path) -> dict[str, Any]:
        """Writes the events of one bucket in order to `folder` (whole or absent); returns the counts."""
        ordered, repeats = in_order(read_bucket(self.units, bucket), self.seed)
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
