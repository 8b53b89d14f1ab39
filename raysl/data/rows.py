"""What a training run reads: numbered rows of one split, whatever they hold and wherever their shards lie."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from raysl.data.order import RowOrder, Window
from raysl.data.shard_facts import ShardFacts, shard_facts

Row = npt.NDArray[Any]
"""Tokens (int32) or pixels (uint8) of one row, one-dimensional."""

MAX_OPEN = 4096
"""Shards that a process maps at a time; Linux ends one with more than 65,530 mapped files (vm.max_map_count)."""


class Shards(Protocol):
    """The shards of a split, numbered in the order of their names, each of them a local file when it is asked for."""

    window_shards: int | None
    """Shards of one window of the order; None: all."""

    def __len__(self) -> int: ...

    def facts(self, number: int) -> ShardFacts:
        """What is known of a shard without reading it."""
        ...

    def path(self, number: int) -> Path:
        """The shard as a file of this node; waits until it is there. DataError where it cannot be had."""
        ...

    def hold(self, now: Sequence[int], ahead: Sequence[int]) -> None:
        """Says which shards are read from here on and which come after them; others may go."""
        ...


class LocalShards:
    """Shards that lie in a folder of this machine, all of them, all the time."""

    def __init__(self, folder: Path, window_shards: int | None = None) -> None:
        self.paths, self.window_shards = sorted(folder.glob("shard-*.arrow")), window_shards

    def __len__(self) -> int:
        return len(self.paths)

    def facts(self, number: int) -> ShardFacts:
        return shard_facts(self.paths[number])

    def path(self, number: int) -> Path:
        return self.paths[number]

    def hold(self, now: Sequence[int], ahead: Sequence[int]) -> None:
        pass


class Rows:
    """Base of `TokenRows` and `PixelRows`: rows 0..len-1 over all shards; a shard is opened when a row of it is read."""

    left_out: int = 0
    """Documents of the shards that are too short to be rows."""

    def __init__(self, shards: Shards, counts: Sequence[int]) -> None:
        """`counts` are the rows of each shard."""
        self.shards, self.counts = shards, list(counts)
        self._starts = [0]
        for count in counts:
            self._starts.append(self._starts[-1] + count)
        self._opened: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._starts[-1]

    def row(self, index: int) -> Row:
        """A view into the mapped file."""
        number = bisect_right(self._starts, index) - 1
        return self._row(self._shard(number), index - self._starts[number])

    def hold(self, now: Sequence[int], ahead: Sequence[int]) -> None:
        """Closes the shards that are not read `now`; see Shards.hold."""
        kept = set(now)
        self._opened = {number: shard for number, shard in self._opened.items() if number in kept}
        self.shards.hold(now, ahead)

    def _shard(self, number: int) -> Any:
        shard = self._opened.pop(number, None)
        if shard is None:
            if len(self._opened) >= MAX_OPEN:
                del self._opened[next(iter(self._opened))]
            shard = self._open(self.shards.path(number))
        self._opened[number] = shard  # last: the first is the one that was not read for the longest time
        return shard

    def _open(self, path: Path) -> Any:
        raise NotImplementedError

    def _row(self, shard: Any, place: int) -> Row:
        """Row `place` of an opened shard."""
        raise NotImplementedError


class RowFeed:
    """Rows by their position in the order of a run; on entering a window it says which shards come next."""

    def __init__(self, rows: Rows, seed: int) -> None:
        self.rows = rows
        self.order = RowOrder(rows.counts, seed, rows.shards.window_shards)
        self._window: Window | None = None

    def read(self, positions: Sequence[int], numbers: Sequence[int]) -> list[Row]:
        """The rows `numbers` at `positions`, which rise from call to call."""
        found = []
        for position, number in zip(positions, numbers, strict=True):
            if self._window is None or not self._window.start <= position < self._window.end:
                self._enter(self.order.window(position))
            found.append(self.rows.row(number))
        return found

    def _enter(self, window: Window) -> None:
        self._window = window
        self.rows.hold(window.shards, self.order.window(window.end).shards)
