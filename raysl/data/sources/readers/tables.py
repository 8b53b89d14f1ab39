"""Tables: one row is a document; columns or keys are named by the config."""

import csv
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from raysl.data.sources.base import INVALID_UTF8, BadRows, Row, records
from raysl.data.sources.readers.base import Columns, Part, csv_text, opened, row_of
from raysl.data.sources.stores import arrow_file

if TYPE_CHECKING:
    import _csv

Record = tuple[int, dict[str, Any]]
"""Where a row stands in its file (the byte of .jsonl, the line of .csv), and its values by column."""
MAX_ROW_CHARS = 100_000_000
"""A row of .csv that goes on for longer has a quote that nothing closes: memory stays bounded."""


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
        bad.add(INVALID_UTF8, where)
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
        lines = _Lines(csv_text(file, "surrogateescape"))
        reader = csv.reader(lines, strict=True)
        header = next(filter(None, reader), [])  # blank lines above it are no header
        for number, values in _csv_values(reader, lines):
            where = f"{part.name}:{number}"
            if values is None or len(values) != len(header):
                if values != []:
                    bad.add("broken_line", where)
                continue
            if any("\ud800" <= char <= "\udfff" for value in values for char in value if not value.isascii()):
                bad.add(INVALID_UTF8, where)
                continue
            yield number, dict(zip(header, values, strict=True))


class _Lines:
    """Lines of a file for a csv.reader; those of the row in its hands are kept, so that they can be read again."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.row: list[str] = []
        self.number = 0
        """Which line of the file was given out last."""
        self._lines = lines
        self._num_chars = 0
        self._held: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self._num_chars > MAX_ROW_CHARS:  # the reader takes it for the end of the file
            raise StopIteration
        line = self._held.pop() if self._held else next(self._lines)
        self.row.append(line)
        self.number += 1
        self._num_chars += len(line)
        return line

    def begin_row(self) -> None:
        self.row, self._num_chars = [], 0

    def hold_last(self) -> None:
        """Gives out the last line again."""
        self._held.append(self.row[-1])
        self.number -= 1


def _csv_values(reader: "_csv.Reader", lines: _Lines) -> Iterator[tuple[int, list[str] | None]]:
    """Rows below the header, each with the line at which it ends; None for a line whose quotes are wrong.

    A quote that nothing closes takes in the lines below, up to the next quote. Only its own line is lost: those below are
    read again, each as a whole row, and the last, where the reader gave up, as the begin of one. None is read a third time.
    """
    while True:
        lines.begin_row()
        try:
            values = next(reader, None)
        except csv.Error:
            yield from _without_the_first(lines)
            continue
        if values is None:
            return
        yield lines.number, values


def _without_the_first(lines: _Lines) -> Iterator[tuple[int, list[str] | None]]:
    row, first = lines.row, lines.number - len(lines.row) + 1
    yield first, None
    for number, line in enumerate(row[1:-1], start=first + 1):
        yield number, _whole_row(line)
    if len(row) > 1:
        lines.hold_last()


def _whole_row(line: str) -> list[str] | None:
    try:
        return next(csv.reader([line], strict=True), None)
    except csv.Error:
        return None


def parquet(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    file = pq.ParquetFile(arrow_file(part.path))
    named = (columns.text_column, columns.title_column, columns.label_column, columns.id_column)
    wanted = [column for column in named if column is not None]
    groups = range(part.start, file.num_row_groups if part.stop < 0 else part.stop)
    number = sum(file.metadata.row_group(g).num_rows for g in range(part.start))
    for batch in file.iter_batches(batch_size=1024, row_groups=list(groups), columns=wanted):
        for record in records(batch):
            if record is None:
                bad.add(INVALID_UTF8, f"{part.name}:{number}")
            else:
                yield from row_of(record, f"{part.name}:{number}", columns, bad)
            number += 1
