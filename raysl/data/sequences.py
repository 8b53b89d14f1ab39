"""Item sequences of one bucket of users: token shards to train on, and what is to be predicted after the cuts.

A user's sequence is cut by time. tokens/train holds what came before the first cut, so nothing of it is known to
training that happened later; tokens/validation and tokens/test hold what came after, without its history, so that
their loss is held out token by token. held_out/ has the same events as targets, with the history as their context.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raysl import storage
from raysl.data.events import EVENTS
from raysl.data.filters.base import Examples
from raysl.data.items import ITEMS
from raysl.data.ordering import named
from raysl.data.prints import mapped, write_prints
from raysl.schema import (
    GROUP,
    HELD_OUT,
    ID,
    ITEM,
    LABEL,
    SEPARATOR,
    SPECIAL_TOKENS,
    SPLITS,
    TIME,
    TOKENIZED,
    TOKENS,
    UNKNOWN,
    USER,
)

RARE = "rare_user"
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """Where each user's events of each period lie: places start..stop-1 of the bucket, and the user's first place."""

    start: Ints
    stop: Ints
    first: Ints
    period: Ints
    """Place in schema.SPLITS."""

    @classmethod
    def of(cls, user: Ints, time: Ints, cuts: tuple[int, int]) -> "Runs":
        """From columns sorted by user and time."""
        period = np.searchsorted(np.array(cuts), time, side="right")
        new_user = np.diff(user, prepend=-1) != 0
        start = np.flatnonzero(new_user | (np.diff(period, prepend=-1) != 0))
        first = np.maximum.accumulate(np.where(new_user, np.arange(len(user)), 0))[start]
        return cls(start, np.append(start[1:], len(user)), first, period[start])

    def where(self, chosen: NDArray[np.bool_]) -> "Runs":
        return Runs(self.start[chosen], self.stop[chosen], self.first[chosen], self.period[chosen])


@dataclass(frozen=True)
class SequenceWriter:
    """Everything a write task needs besides its bucket; it is pickled to the workers."""

    folder: Path
    cuts: tuple[int, int]
    min_user_events: int
    seed: int

    def __call__(self, unit: Path, number: int, done: Path) -> dict[str, Any]:
        """Every file is whole or absent; `done` is written last and holds the counts."""
        events = mapped(unit / EVENTS).combine_chunks()
        tokens = self._tokens(events[ITEM])
        users = np.unique(events[USER].to_numpy(zero_copy_only=False), return_inverse=True)[1]
        runs = Runs.of(users, events[TIME].to_numpy(), self.cuts)
        rare = (runs.period == 0) & (runs.stop - runs.start < self.min_user_events)
        examples, dropped = Examples(self.seed), places(runs.where(rare).start, runs.where(rare).stop)
        if len(dropped):
            examples.add(RARE, named(events.take(pa.array(dropped))))
        self._write_held_out(events, tokens, runs.where(runs.period > 0), number)
        stats = {
            "splits": {split: self._write_split(events, tokens, runs.where(~rare), place, number)
                       for place, split in enumerate(SPLITS)},
            "dropped": {RARE: len(dropped)} if len(dropped) else {}, "examples": examples.found,
        }  # fmt: skip
        storage.write_json(done, stats)
        return stats

    def _tokens(self, items: pa.ChunkedArray) -> NDArray[np.int32]:
        known = pq.read_table(self.folder / ITEMS, filters=[("token", ">=", len(SPECIAL_TOKENS))])
        places = pc.index_in(items, value_set=known[ITEM].combine_chunks())
        tokens = pc.fill_null(pc.add(places, len(SPECIAL_TOKENS)), UNKNOWN)
        return np.asarray(tokens.to_numpy(), np.int32)

    def _write_split(
        self, events: pa.Table, tokens: NDArray[np.int32], runs: Runs, place: int, number: int
    ) -> dict[str, int]:
        own = runs.where(runs.period == place)
        lengths = own.stop - own.start
        values = tokens[places(own.start, own.stop)]
        if len(lengths):
            closed = np.insert(values, np.cumsum(lengths), SEPARATOR)
            rows = pa.ListArray.from_arrays(offsets(lengths + 1), pa.array(closed, pa.int32()))
            names = events[USER].take(pa.array(own.start))
            table = pa.table({ID: names, LABEL: pa.nulls(len(names), pa.string()), TOKENS: rows}, schema=TOKENIZED)
            write_prints(table, self.folder / "tokens" / SPLITS[place] / f"shard-{number:05d}.arrow")
        return {"documents": len(lengths), "events": len(values), "tokens": len(values) + len(lengths),
                "unknown": int((values == UNKNOWN).sum())}  # fmt: skip

    def _write_held_out(self, events: pa.Table, tokens: NDArray[np.int32], runs: Runs, number: int) -> None:
        target, lengths = places(runs.start, runs.stop), runs.stop - runs.start
        columns = [
            events[USER].take(pa.array(runs.start)).combine_chunks(),
            pa.array(np.array(SPLITS)[runs.period]),
            lists(pa.array(tokens[places(runs.first, runs.start)]), runs.start - runs.first),
            lists(pa.array(tokens[target]), lengths),
            *(lists(events[name].take(pa.array(target)).combine_chunks(), lengths) for name in (ITEM, TIME, GROUP)),
        ]
        table = pa.table([column.cast(field.type) for column, field in zip(columns, HELD_OUT, strict=True)], schema=HELD_OUT)
        with storage.atomic_path(self.folder / "held_out" / f"part-{number:05d}.parquet") as temporary:
            pq.write_table(table, temporary)


def places(starts: Ints, stops: Ints) -> Ints:
    """All numbers of all ranges start..stop-1, one range after the other."""
    lengths = stops - starts
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def offsets(lengths: Ints) -> pa.Array:
    return pa.array(np.cumsum(np.append(0, lengths)), pa.int32())


def lists(values: pa.Array, lengths: Ints) -> pa.ListArray:
    """Values cut into lists of these lengths."""
    return pa.ListArray.from_arrays(offsets(lengths), values)
