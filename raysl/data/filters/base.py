"""What every filter is: a test per named reason; the base counts what is dropped and keeps examples."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysl import storage
from raysl.config import PluginConfig
from raysl.schema import ID, TEXT

Bools = NDArray[np.bool_]
Example = tuple[str, str, str]
"""Seeded rank, id, beginning of the text."""

NUM_EXAMPLES = 10
EXAMPLE_CHARS = 240


class Filter:
    """Base of all filters. A subclass names its reasons in `keep`; it sees every row of the batch."""

    Config: ClassVar[type[PluginConfig]]
    has_kernels: ClassVar[bool] = False
    """Whether `compiled` makes it faster."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.dropped: dict[str, int] = {}
        self.edits: Counter[str] = Counter()
        """What `edit` did, by reason."""
        self.examples = Examples()
        self.compiled = False
        """Whether kernels are compiled where numba is installed: same decisions, but faster after some seconds."""

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        """Reason -> which rows of the batch (columns id, text, label) pass that test."""
        raise NotImplementedError

    def edit(self, batch: pa.Table) -> pa.Table:
        """The batch as later filters and stages see it; called after `keep` with the same rows. Most change nothing."""
        return batch

    def count(self, reason: str, batch: pa.Table, rows: NDArray[np.int64]) -> None:
        if len(rows):
            self.dropped[reason] = self.dropped.get(reason, 0) + len(rows)
            self.examples.add(reason, batch.take(rows))


class Examples:
    """The rows of lowest seeded rank under each reason: the same ones however the rows are divided into batches."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.found: dict[str, list[Example]] = {}

    def add(self, reason: str, rows: pa.Table) -> None:
        ids, texts = rows[ID].to_pylist(), rows[TEXT].to_pylist()
        ranked = [(storage.hash_text(f"{self.seed}:{name}")[:16], name, place) for place, name in enumerate(ids)]
        chosen = [(rank, name, texts[place][:EXAMPLE_CHARS]) for rank, name, place in heapq.nsmallest(NUM_EXAMPLES, ranked)]
        self.merge({reason: chosen})

    def merge(self, other: Mapping[str, Sequence[Sequence[str]]]) -> None:
        for reason, examples in other.items():
            both = {*self.found.get(reason, []), *((rank, name, text) for rank, name, text in examples)}
            self.found[reason] = heapq.nsmallest(NUM_EXAMPLES, both)


@dataclass(frozen=True)
class Filtered:
    """A batch after all filters: every row, which rows pass, and the first reason of each of the others."""

    batch: pa.Table
    passed: Bools
    reasons: list[str | None]


def run_filters(filters: Sequence[Filter], batch: pa.Table) -> Filtered:
    """Applies the filters in their order; what one of them changes in a text, the later ones see.

    Every filter sees the whole batch, so that statistics are computed once for all of them.
    """
    passed = np.ones(len(batch), np.bool_)
    reasons: list[str | None] = [None] * len(batch)
    for one in filters:
        for reason, keep in one.keep(batch).items():
            rows = np.flatnonzero(passed & ~np.asarray(keep, np.bool_))
            one.count(reason, batch, rows)
            passed[rows] = False
            for row in rows.tolist():
                reasons[row] = reason
        batch = one.edit(batch)
    return Filtered(batch, passed, reasons)


def apply_filters(filters: Sequence[Filter], batch: pa.Table) -> tuple[Bools, list[str | None]]:
    """Which rows pass all filters, and for each of the others the first reason in the order of the filters."""
    found = run_filters(filters, batch)
    return found.passed, found.reasons
