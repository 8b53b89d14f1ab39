"""What every source is: a fixed list of partitions, each read on its own, and a cheap name for its content."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import pyarrow as pa

from raysl import storage
from raysl.config import PluginConfig
from raysl.errors import DataError
from raysl.schema import ID, LABEL, RAW_DOCUMENT, TEXT

Item = tuple[str, int, int]
"""A file, or a part of it: path relative to the source, first and last (excluded) unit. Plain data: it travels as JSON."""
Partition = list[Item]
"""What one task reads. It depends on the source alone, never on the number of workers."""
Row = tuple[str, str, str | None]
"""id, text, label."""

ROWS_PER_TABLE, CHARS_PER_TABLE = 4096, 200_000_000
"""What ends a table: Arrow's text columns hold 2 GiB, and a row may be a book."""
INVALID_UTF8 = "invalid_utf8"


class BadRows:
    """Rows that could not be read, each under a named reason."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.reasons: list[str] = []

    def add(self, reason: str, where: str) -> None:
        self.reasons.append(reason)
        self.ids.append(plain(where))

    def counts(self) -> dict[str, int]:
        return dict(Counter(self.reasons))


class Source:
    """Base of all sources. A subclass yields rows of a partition; the base turns them into tables."""

    Config: ClassVar[type[PluginConfig]]

    def __init__(self, config: Any) -> None:
        self.config = config

    def partitions(self, partition_mb: float) -> list[Partition]:
        """Units of parallel work and of restart, about `partition_mb` MB of text each, in a fixed order.

        Raises DataError that names the path, where there is nothing to read.
        """
        raise NotImplementedError

    def rows(self, partition: Partition, bad: BadRows) -> Iterator[Row]:
        """Yields the readable rows of a partition; the others go to `bad`."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Names the content without reading it: paths, sizes and modification times."""
        raise NotImplementedError

    def size_mb(self) -> float:
        """Raw text in MB, where it can be told before reading; 0 elsewhere."""
        return 0.0

    def read(self, partition: Partition, bad: BadRows) -> Iterator[pa.Table]:
        """Yields tables of schema.RAW_DOCUMENT: 4,096 rows or about 200 million characters each."""
        rows: list[Row] = []
        num_chars = 0
        for row in self.rows(partition, bad):
            rows.append(row)
            num_chars += len(row[1])
            if len(rows) == ROWS_PER_TABLE or num_chars >= CHARS_PER_TABLE:
                yield as_table(rows, bad)
                rows, num_chars = [], 0
        if rows:
            yield as_table(rows, bad)


def as_table(rows: list[Row], bad: BadRows) -> pa.Table:
    """Rows as Arrow; those that UTF-8 cannot hold (lone surrogates) are counted."""
    try:
        return _table(rows)
    except UnicodeEncodeError:
        good = []
        for row in rows:
            if _encodable(row):
                good.append(row)
            else:
                bad.add("lone_surrogate", row[0])
        return _table(good)


def _table(rows: list[Row]) -> pa.Table:
    columns = zip((ID, TEXT, LABEL), zip(*rows, strict=True) if rows else ((), (), ()), strict=True)
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns}, schema=RAW_DOCUMENT)


def _encodable(row: Row) -> bool:
    try:
        "".join(value for value in row if value is not None).encode()
    except UnicodeEncodeError:
        return False
    return True


def packed(items: Iterable[tuple[Item, int]], bytes_per_partition: float) -> list[Partition]:
    """Groups (item, bytes) in their order into partitions of at least `bytes_per_partition`, the last one aside."""
    partitions: list[Partition] = []
    current: Partition = []
    size = 0
    for item, num_bytes in items:
        current.append(item)
        size += num_bytes
        if size >= bytes_per_partition:
            partitions.append(current)
            current, size = [], 0
    if current:
        partitions.append(current)
    return partitions


def files_fingerprint(stats: Iterable[tuple[str, int, int]]) -> str:
    """Content identity from (path, size, modification time in ns)."""
    return storage.hash_text("\n".join(f"{path}\0{size}\0{time}" for path, size, time in sorted(stats)))


def plain(name: str) -> str:
    """A name that UTF-8 can hold: file systems allow any bytes."""
    return name.encode("utf-8", "replace").decode("utf-8")


def records(batch: pa.RecordBatch) -> list[dict[str, Any] | None]:
    """The rows of a .parquet; None for one with text that is no UTF-8, which those who write such files need not check."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        return [_record(batch.slice(row, 1)) for row in range(len(batch))]


def _record(row: pa.RecordBatch) -> dict[str, Any] | None:
    try:
        return dict(row.to_pylist()[0])
    except UnicodeDecodeError:
        return None


def as_text(value: Any) -> str | None:
    """What a table says, without blanks around it: 17850.0 is 17850; None for null, NaN, blanks, bytes that are no UTF-8."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if value is None or value != value:  # only NaN is not itself
        return None
    try:
        text = value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        return None
    return text.strip() or None


def missing(path: str, allowed: str) -> DataError:
    return DataError(f"{path} holds nothing that can be read. Allowed: {allowed}. Check prepare.source.path.")
