"""The order in which a run reads its rows: shards in a seeded order, cut into windows, rows mixed inside a window.

A position is the number of rows read so far, so (seed, epoch, step) is all that a resumed run needs, and every rank on every
number of workers sees the same order. With one window over all shards it is a plain permutation of the rows.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
SHARDS, WINDOWS = 1, 2
"""Last words of the seeds: the order of the shards of an epoch; from here on, the rows of each of its windows."""


@dataclass(frozen=True)
class Window:
    """Shards whose rows are mixed with each other, and the positions of the endless order at which they are read."""

    epoch: int
    number: int
    """Place in its epoch."""
    shards: tuple[int, ...]
    start: int
    """Position of its first row."""
    end: int
    """Position behind its last row."""


class RowOrder:
    """A fresh seeded order each epoch, without end; each row comes once an epoch and none is dropped.

    A batch may reach over the end of a window or of an epoch into the next.
    """

    def __init__(self, rows_per_shard: Sequence[int], seed: int, window_shards: int | None = None) -> None:
        """`window_shards` shards are one window; None: all."""
        self.seed = seed
        self._counts = np.asarray(rows_per_shard, np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)])
        self.num_rows = int(self._starts[-1])
        self.window_shards = min(window_shards or len(self._counts), len(self._counts))
        self._epoch, self._windows = -1, list[Window]()
        self._mixed: tuple[Window, Numbers] | None = None

    def rows(self, start: int, count: int) -> Numbers:
        """Row numbers at positions start..start+count-1 of the endless order."""
        parts = []
        while count > 0:
            window = self.window(start)
            part = self._rows_of(window)[start - window.start :][:count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def window(self, position: int) -> Window:
        """The window that is read at `position`."""
        windows = self._of_epoch(position // self.num_rows)
        return windows[bisect_right(windows, position, key=lambda window: window.start) - 1]

    def _of_epoch(self, epoch: int) -> list[Window]:
        """The windows of an epoch, those without rows left out."""
        if epoch != self._epoch:
            self._epoch, self._windows = epoch, list(self._cut(epoch))
        return self._windows

    def _cut(self, epoch: int) -> Iterable[Window]:
        shards, position = self._shards(epoch), epoch * self.num_rows
        for number, first in enumerate(range(0, len(shards), self.window_shards)):
            chosen = shards[first : first + self.window_shards]
            end = position + int(self._counts[chosen].sum())
            if end > position:
                yield Window(epoch, number, tuple(chosen.tolist()), position, end)
            position = end

    def _shards(self, epoch: int) -> Numbers:
        if self.window_shards == len(self._counts):
            return np.arange(len(self._counts))
        return np.random.default_rng((self.seed, epoch, 0, SHARDS)).permutation(len(self._counts))

    def _rows_of(self, window: Window) -> Numbers:
        """Row numbers of a window in the order in which they are read."""
        if self._mixed is None or self._mixed[0] != window:
            self._mixed = (window, self._mix(window))
        return self._mixed[1]

    def _mix(self, window: Window) -> Numbers:
        if self.window_shards == len(self._counts):
            return np.random.default_rng((self.seed, window.epoch)).permutation(self.num_rows)
        rows = np.concatenate([np.arange(self._starts[shard], self._starts[shard + 1]) for shard in window.shards])
        return np.random.default_rng((self.seed, window.epoch, 0, WINDOWS + window.number)).permutation(rows)
