"""Tables: one row is a document; columns or keys are named by the config."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from raysl.data.sources.base import BadRows, Row
from raysl.data.sources.readers.base import Columns, Part, opened, row_of
from raysl.data.sources.stores import arrow_file

if TYPE_CHECKING:
    import _csv

Record = tuple[int, dict[str, Any]]
"""Where a row stands in its file (the byte of .jsonl, the line of .csv), and its values by column."""


def jsonl(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    """One document a line; ids name the byte at which it begins."""
    for place, record in json_records(part, bad):
        yield from row_of(record, f"{part.name}:{place}", columns, bad)


def csv_rows(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    """One document a row; ids name the line at which it ends."""
    for place, record in csv_records(part, bad):
        yield from row_of(record, f"{part.name}:{place}", columns, bad)


def json_records(part: Part, bad: BadRows) -> Iterator[Record]:
    """Objects of the lines that begin in the byte range."""
    start, stop = part.start, part.stop
    with opened(part.path) as file:
        if start > 0:
            file.seek(start - 1)
            start += len(file.readline()) - 1
        position = start
        while (stop < 0 or position < stop) and (line := file.readline()):
            if line.strip():
                yield from _json_record(line, position, part.name, bad)
            position += len(line)


def _json_record(line: bytes, place: int, name: str, bad: BadRows) -> Iterator[Record]:
    where = f"{name}:{place}"
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        bad.add("invalid_utf8", where)
        return
    except (ValueError, RecursionError):
        bad.add("broken_line", where)
        return
    if not isinstance(record, dict):
        bad.add("broken_line", where)
        return
    yield place, record


def csv_records(part: Part, bad: BadRows) -> Iterator[Record]:
    """Rows below the header, all values as text."""
    csv.field_size_limit(sys.maxsize)
    with opened(part.path) as file:
        # A wrong byte becomes a lone surrogate, so that one bad field does not end the file.
        lines = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(lines, strict=True)
        header = next(reader, [])
        for values in _csv_values(reader, part.name, bad):
            where = f"{part.name}:{reader.line_num}"
            if len(values) != len(header):
                if values:
                    bad.add("broken_line", where)
                continue
            if any("\ud800" <= char <= "\udfff" for value in values for char in value if not value.isascii()):
                bad.add("invalid_utf8", where)
                continue
            yield reader.line_num, dict(zip(header, values, strict=True))


def _csv_values(reader: "_csv.Reader", name: str, bad: BadRows) -> Iterator[list[str]]:
    """Rows below the header; one whose quotes are wrong is counted, and reading goes on with the next line."""
    while True:
        try:
            values = next(reader, None)
        except csv.Error:
            bad.add("broken_line", f"{name}:{reader.line_num}")
            continue
        if values is None:
            return
        yield values


def parquet(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    file = pq.ParquetFile(arrow_file(part.path))
    named = (columns.text_column, columns.title_column, columns.label_column, columns.id_column)
    wanted = [column for column in named if column is not None]
    groups = range(part.start, file.num_row_groups if part.stop < 0 else part.stop)
    number = sum(file.metadata.row_group(g).num_rows for g in range(part.start))
    for batch in file.iter_batches(batch_size=1024, row_groups=list(groups), columns=wanted):
        for record in batch.to_pylist():
            yield from row_of(record, f"{part.name}:{number}", columns, bad)
            number += 1
