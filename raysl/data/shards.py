"""Reader of the token shards that `prepare` wrote: memory-mapped, so a row costs no parsing and no copy in memory.

A shard is an Arrow IPC file of one record batch, one row per document (its token ids and a closing [SEP]). Its values
buffer read end to end is the packed text: packed rows are windows of it, documents are slices of it.
"""

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysl import schema
from raysl.errors import DataError

Tokens = npt.NDArray[np.int32]
RowKind = Literal["packed", "documents"]


@dataclass(frozen=True)
class Shard:
    """One memory-mapped file; the Arrow batch is kept so that its memory stays valid."""

    batch: pa.RecordBatch
    values: Tokens
    offsets: npt.NDArray[np.int32]

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1


def open_shard(path: Path) -> Shard:
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    column = batch.column(schema.TOKENS)
    return Shard(batch, column.values.to_numpy(), column.offsets.to_numpy())


class TokenRows:
    """Rows of one split, numbered 0..len-1 over all shards.

    `packed` rows are windows of `length` tokens, every token in exactly one row (the last window of a shard may be
    shorter). `documents` are whole documents of at least `min_tokens` tokens.
    """

    def __init__(self, folder: Path, kind: RowKind, length: int, min_tokens: int = 1) -> None:
        paths = sorted(folder.glob("shard-*.arrow"))
        if not paths:
            raise DataError(f"No token shards in {folder}. Run `raysl prepare` first, or give this split a larger share.")
        self.kind, self.length = kind, length
        self.shards = [open_shard(path) for path in paths]
        if kind == "packed":
            counts = [-(-len(shard.values) // length) for shard in self.shards]
        else:
            self._chosen = [np.flatnonzero(np.diff(shard.offsets) >= min_tokens) for shard in self.shards]
            counts = [len(chosen) for chosen in self._chosen]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
        if not len(self):
            raise DataError(f"No {kind} of at least {min_tokens} tokens in {folder}. Lower the length or prepare more text.")

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def labels(self) -> list[str | None]:
        """Label of each row of whole documents, None where there is none; packed rows hold parts of many documents."""
        if self.kind == "packed":
            return [None] * len(self)
        chosen = zip(self.shards, self._chosen, strict=True)
        return [label for shard, places in chosen for label in shard.batch.column(schema.LABEL).take(places).to_pylist()]

    def row(self, index: int) -> Tokens:
        """A view into the mapped file: 1 to `length` tokens (packed) or one whole document."""
        shard_number = bisect_right(self._starts, index) - 1
        shard, local = self.shards[shard_number], index - self._starts[shard_number]
        if self.kind == "packed":
            return shard.values[local * self.length : (local + 1) * self.length]
        document = self._chosen[shard_number][local]
        return shard.values[shard.offsets[document] : shard.offsets[document + 1]]


class RowOrder:
    """The order in which a run reads its rows: a fresh seeded permutation each epoch, without end.

    The whole position is one number, the rows read so far; every rank and every worker count sees the same order.
    Each row comes once an epoch and none is dropped: a batch may reach over the end of an epoch into the next.
    """

    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows, self.seed = num_rows, seed
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def rows(self, start: int, count: int) -> npt.NDArray[np.int64]:
        """Row numbers at positions start..start+count-1 of the endless order."""
        parts = []
        while count > 0:
            epoch, offset = divmod(start, self.num_rows)
            part = self._of_epoch(epoch)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _of_epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng((self.seed, epoch)).permutation(self.num_rows)
        return self._permutation
