"""What has to be known of a shard before it is read: how many rows there are, and of which kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raysl.errors import DataError
from raysl.schema import TOKENS


@dataclass(frozen=True)
class ShardFacts:
    """Plain numbers, so that a store holds them for all shards in one small file."""

    rows: int
    """Documents or images."""
    tokens: int = 0
    """Tokens of all documents (text)."""
    lengths: Mapping[str, int] = field(default_factory=dict)
    """Tokens of a document -> how many documents have so many (text)."""
    said: Mapping[str, str] = field(default_factory=dict)
    """What the schema says of the rows: size, channels and so on (images)."""


def mapped_batch(path: Path) -> pa.RecordBatch:
    """The one record batch of an Arrow file, memory-mapped; DataError where the file is cut off or none."""
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).get_batch(0)
    except (pa.ArrowInvalid, pa.ArrowIndexError) as error:
        raise DataError(f"{path} is no whole shard: {error}. Run `raysl prepare` again.") from error


def shard_facts(path: Path) -> ShardFacts:
    """Reads the header and, of token shards, the border of each document."""
    batch = mapped_batch(path)
    said = {name.decode(): value.decode() for name, value in (batch.schema.metadata or {}).items()}
    if TOKENS not in batch.schema.names:
        return ShardFacts(batch.num_rows, said=said)
    column: Any = batch.column(TOKENS)
    lengths, counts = np.unique(np.diff(column.offsets.to_numpy()), return_counts=True)
    by_length = {str(length): count for length, count in zip(lengths.tolist(), counts.tolist(), strict=True)}
    return ShardFacts(batch.num_rows, int((lengths * counts).sum()), by_length, said)
