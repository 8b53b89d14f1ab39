"""Micro-batches of each optimizer step: the same rows and random numbers whatever the number of workers."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from raysl.data.order import RowOrder
from raysl.data.rows import RowFeed, Rows
from raysl.objectives.base import Batch, Objective, Uniform


def uniform_for(seed: int, step: int, num_rows: int, places: npt.NDArray[np.int64]) -> Uniform:
    """Random numbers of the rows at `places` of a global batch of `num_rows`, drawn from (seed, step) alone."""
    return Uniform(np.random.default_rng((seed, 1, step)), num_rows, places)


@dataclass(frozen=True)
class StepRows:
    """What one rank reads for one optimizer step."""

    batches: list[Batch]
    """Its micro-batches."""
    numbers: npt.NDArray[np.int64]
    """Its rows."""
    units: int
    """Tokens or images in them."""


class StepBatches:
    """Builds the micro-batches of one rank, one step ahead of the training in a thread."""

    def __init__(
        self, objective: Objective, rows: Rows, seed: int, global_batch_size: int, accumulation_steps: int,
        rank: int, world_size: int, pinned: bool = False,
    ) -> None:  # fmt: skip
        """`pinned` memory is copied to a GPU while it computes."""
        self.objective, self.feed, self.seed, self.pinned = objective, RowFeed(rows, seed), seed, pinned
        self.global_batch_size, self.accumulation_steps = global_batch_size, accumulation_steps
        self.rank, self.world_size = rank, world_size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ahead: tuple[int, Future[StepRows]] | None = None

    def step(self, step: int, last: bool = False) -> StepRows:
        """Rows of optimizer step `step`; starts on the next one unless this is the `last`."""
        if self._ahead is not None and self._ahead[0] == step:
            rows = self._ahead[1].result()
        else:
            rows = self.build(step)
        self._ahead = None if last else (step + 1, self._thread.submit(self.build, step + 1))
        return rows

    def build(self, step: int) -> StepRows:
        size = self.global_batch_size
        first = step * size
        numbers = self.feed.order.rows(first, size)
        mine = np.arange(self.rank, size, self.world_size)
        batches = [
            self.objective.collate(
                self.feed.read((first + places).tolist(), numbers[places].tolist()),
                uniform_for(self.seed, step, size, places),
            )
            for places in np.array_split(mine, self.accumulation_steps)
            if len(places)
        ]
        if self.pinned:
            batches = [{name: tensor.pin_memory() for name, tensor in batch.items()} for batch in batches]
        return StepRows(batches, numbers[mine], sum(self.objective.units(batch) for batch in batches))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.shutdown(cancel_futures=True)


def held_out_batches(
    objective: Objective, rows: Rows, num_rows: int, batch_size: int, rank: int, world_size: int
) -> list[Callable[[], Batch]]:
    """The same held-out batches at every call: this rank's share of the first `num_rows` rows in a fixed order.

    All of one size, whatever the number of ranks: a contrast among few rows is an easy one, and would count as much. Rows
    that do not fill a batch are left out; fewer than one batch are a batch.
    """
    numbers = RowOrder([len(rows)], 0).rows(0, min(num_rows, len(rows)))
    size = min(batch_size, len(numbers))
    if size < world_size:
        return []
    batches: list[Callable[[], Batch]] = []
    places = np.arange(rank, size, world_size)
    for start in range(0, len(numbers) - size + 1, size):
        chosen = [rows.row(int(n)) for n in numbers[start + places]]
        batches.append(partial(objective.collate, chosen, uniform_for(0, start, size, places)))
    return batches
