"""Tables column by column: what sources need that look at many columns of many rows, not at one text."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysl.data.sources.base import INVALID_UTF8, BadRows, as_text
from raysl.data.sources.readers import format_of, tables
from raysl.data.sources.readers.base import TABLES, UNREADABLE, Part
from raysl.data.sources.stores import arrow_file, raise_out_of_reach

FORMATS = TABLES
PLACE = " place"
"""Column that says where a row stands in its file."""
ROWS = 65536


def read_columns(part: Part, wanted: Sequence[str], bad: BadRows) -> Iterator[pa.Table]:
    """Tables of the wanted columns and PLACE, at most 65,536 rows each; broken rows and files go to `bad`.

    Columns of .parquet keep their types, those of .jsonl and .csv are text; what a row lacks is null. Raises DataError for
    a file that cannot be got at.
    """
    form = format_of(part.path)
    try:
        if form == ".parquet":
            yield from _parquet(part, wanted, bad)
        else:
            records = tables.json_records(part, bad) if form == ".jsonl" else tables.csv_records(part, bad)
            yield from _tables(part.name, records, wanted, bad)
    except UNREADABLE as error:  # what came before the break has been yielded
        raise_out_of_reach(part.path, error)
        bad.add("unreadable_file", part.name)


def _parquet(part: Part, wanted: Sequence[str], bad: BadRows) -> Iterator[pa.Table]:
    file = pq.ParquetFile(arrow_file(part.path))
    groups = range(part.start, file.num_row_groups if part.stop < 0 else part.stop)
    place = sum(file.metadata.row_group(group).num_rows for group in range(part.start))
    for batch in file.iter_batches(batch_size=ROWS, row_groups=list(groups), columns=list(wanted)):
        places = pa.array(range(place, place + len(batch)), pa.int64())
        table = pa.Table.from_batches([batch]).append_column(PLACE, places)
        if not _is_valid(batch):  # those who write such files need not check their texts
            good = [_is_valid(batch.slice(row, 1)) for row in range(len(batch))]
            for row in np.flatnonzero(~np.array(good)).tolist():
                bad.add(INVALID_UTF8, f"{part.name}:{place + row}")
            table = table.filter(pa.array(good))
        yield table
        place += len(batch)


def _is_valid(batch: pa.RecordBatch) -> bool:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _tables(name: str, records: Iterator[tables.Record], wanted: Sequence[str], bad: BadRows) -> Iterator[pa.Table]:
    """What is read before a file breaks off is yielded before the error rises."""
    broken: BaseException | None = None
    while broken is None:
        rows: list[tables.Record] = []
        try:
            rows.extend(itertools.islice(records, ROWS))
        except UNREADABLE as error:
            broken = error
        if not rows and broken is None:
            return
        yield _table(name, rows, wanted, bad)
    raise broken


def _table(name: str, rows: Sequence[tables.Record], wanted: Sequence[str], bad: BadRows) -> pa.Table:
    places, kept = [], []
    for place, record in rows:
        values = [_as_text(record.get(column)) for column in wanted]
        if all(value is None or value.isascii() or _encodable(value) for value in values):
            places.append(place)
            kept.append(values)
        else:
            bad.add("lone_surrogate", f"{name}:{place}")
    columns = zip(*kept, strict=True) if kept else [()] * len(wanted)
    arrays = [pa.array(values, pa.string()) for values in columns]
    return pa.table([*arrays, pa.array(places, pa.int64())], names=[*wanted, PLACE])


def _as_text(value: Any) -> str | None:
    """Lists and records say nothing; true and false are what Arrow makes of them."""
    if isinstance(value, bool):
        return str(value).lower()
    return as_text(value) if isinstance(value, str | int | float) else None


def _encodable(value: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in value)
