"""Reader of the token shards that `prepare` wrote: memory-mapped, so a row costs no parsing and no copy in memory.

A shard is an Arrow IPC file of one record batch, one row per document (its token ids and a closing [SEP]). Its values
buffer read end to end is the packed text: packed rows are windows of it, documents are slices of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysl import schema
from raysl.data.rows import LocalShards, Rows, Shards
from raysl.data.shard_facts import ShardFacts, mapped_batch
from raysl.errors import DataError

Tokens = npt.NDArray[np.int32]
RowKind = Literal["packed", "documents", "titled"]


@dataclass(frozen=True)
class Shard:
    """One memory-mapped file; the Arrow batch is kept so that its memory stays valid."""

    batch: pa.RecordBatch
    values: Tokens
    offsets: npt.NDArray[np.int32]
    title_tokens: npt.NDArray[np.int32] | None
    """Of each document; None where `prepare` was told of no titles."""

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1


def open_shard(path: Path) -> Shard:
    batch = mapped_batch(path)
    column = batch.column(schema.TOKENS)
    titled = schema.TITLE_TOKENS in batch.schema.names
    titles = batch.column(schema.TITLE_TOKENS).to_numpy() if titled else None
    return Shard(batch, column.values.to_numpy(), column.offsets.to_numpy(), titles)


class TokenRows(Rows):
    """Rows of one split, numbered 0..len-1 over all shards.

    `packed` rows are windows of `length` tokens, every token in exactly one row (the last window of a shard may be
    shorter). `documents` are whole documents of at least `min_tokens` tokens; `titled` are the same with a [SEP] between
    title and body, where a document has a title.
    """

    def __init__(self, where: Path | Shards, kind: RowKind, length: int, min_tokens: int = 1) -> None:
        shards = LocalShards(where) if isinstance(where, Path) else where
        if not len(shards):
            raise DataError(f"No token shards in {where}. Run `raysl prepare` first, or give this split a larger share.")
        self.kind, self.length, self.min_tokens = kind, length, min_tokens
        facts = [shards.facts(number) for number in range(len(shards))]
        super().__init__(shards, [self._count(one) for one in facts])
        self.left_out = 0 if kind == "packed" else sum(one.rows for one in facts) - len(self)
        if not len(self):
            raise DataError(f"No {kind} of at least {min_tokens} tokens in {where}. Lower the length or prepare more text.")

    @property
    def labels(self) -> list[str | None]:
        """Label of each row of whole documents, None where there is none; packed rows hold parts of many documents."""
        if self.kind == "packed":
            return [None] * len(self)
        opened = (self._shard(number) for number in range(len(self.shards)))
        return [label for shard, places in opened for label in shard.batch.column(schema.LABEL).take(places).to_pylist()]

    def _count(self, facts: ShardFacts) -> int:
        if self.kind == "packed":
            return -(-facts.tokens // self.length)
        return sum(count for length, count in facts.lengths.items() if int(length) >= self.min_tokens)

    def _open(self, path: Path) -> Any:
        shard = open_shard(path)
        if self.kind == "titled" and shard.title_tokens is None:
            raise DataError(f"{path} holds no titles. Set prepare.source.title_column and run `raysl prepare --redo`.")
        chosen = None if self.kind == "packed" else np.flatnonzero(np.diff(shard.offsets) >= self.min_tokens)
        return shard, chosen

    def _row(self, shard: Any, place: int) -> Tokens:
        """1 to `length` tokens (packed) or one whole document."""
        mapped, chosen = shard
        if chosen is None:
            return mapped.values[place * self.length : (place + 1) * self.length]  # type: ignore[no-any-return]
        document = chosen[place]
        tokens: Tokens = mapped.values[mapped.offsets[document] : mapped.offsets[document + 1]]
        if self.kind == "titled" and (size := int(mapped.title_tokens[document])):
            return np.concatenate([tokens[:size], np.array([schema.SEPARATOR], np.int32), tokens[size:]])
        return tokens
