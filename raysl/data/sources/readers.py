"""Rows of one file of each format. A new format is one function here and one line in READERS."""

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from raysl.data.sources.base import BadRows, Row

COMPRESSIONS = (".gz", ".zst")
UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowException, csv.Error)
PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")


@dataclass(frozen=True)
class Part:
    """A part of a file: from `start` to `stop`, in bytes of .jsonl or row groups of .parquet; -1 is the end."""

    path: Path
    name: str
    """What ids begin with: the path relative to the source, so that moved data keeps its ids."""
    start: int = 0
    stop: int = -1


class Columns(Protocol):
    """The part of FilesConfig that readers need."""

    @property
    def text_column(self) -> str: ...
    @property
    def label_column(self) -> str | None: ...
    @property
    def id_column(self) -> str | None: ...
    @property
    def txt_unit(self) -> str: ...


def format_of(path: Path) -> str:
    """`.jsonl` for docs.jsonl.gz; empty for a format that nobody reads."""
    name = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    return name.suffix if name.suffix in READERS else ""


def read(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    """Yields the good rows of a part; the others go to `bad`."""
    try:
        yield from READERS[format_of(part.path)](part, columns, bad)
    except UNREADABLE:  # what came before the break has been yielded
        bad.add("unreadable_file", part.name)


def columns_of(path: Path) -> list[str] | None:
    """Column names where the file itself names them; None where it does not or cannot be read."""
    try:
        if format_of(path) == ".parquet":
            return list(pq.read_schema(path).names)
        if format_of(path) == ".csv":
            with opened(path) as file:
                return next(csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline="")), [])
    except (*UNREADABLE, UnicodeDecodeError):
        return None
    return None


def opened(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
    return open(path, "rb")


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def _txt(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    if columns.txt_unit == "line":
        yield from _txt_lines(part, bad)
        return
    with opened(part.path) as file:
        data = file.read()
    try:
        text = _decoded(data)
    except UnicodeDecodeError:
        bad.add("invalid_utf8", part.name)
        return
    if columns.txt_unit == "file":
        yield part.name, text, None
        return
    for number, paragraph in enumerate(PARAGRAPH.split(text)):
        if paragraph.strip():
            yield f"{part.name}:{number}", paragraph, None


def _txt_lines(part: Part, bad: BadRows) -> Iterator[Row]:
    with opened(part.path) as file:
        for number, line in enumerate(file, start=1):
            try:
                text = _decoded(line)
            except UnicodeDecodeError:
                bad.add("invalid_utf8", f"{part.name}:{number}")
                continue
            if text.strip():
                yield f"{part.name}:{number}", text, None


def _jsonl(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    """Lines that begin in the byte range; ids name the byte at which a line begins."""
    start, stop = part.start, part.stop
    with opened(part.path) as file:
        if start > 0:
            file.seek(start - 1)
            start += len(file.readline()) - 1
        position = start
        while (stop < 0 or position < stop) and (line := file.readline()):
            where = f"{part.name}:{position}"
            position += len(line)
            if line.strip():
                yield from _json_row(line, where, columns, bad)


def _json_row(line: bytes, where: str, columns: Columns, bad: BadRows) -> Iterator[Row]:
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
    yield from _row(record, where, columns, bad)


def _row(record: dict[str, Any], where: str, columns: Columns, bad: BadRows) -> Iterator[Row]:
    text = record.get(columns.text_column)
    if not isinstance(text, str) or not text.strip():
        bad.add("missing_text", where)
        return
    label = record.get(columns.label_column) if columns.label_column else None
    name = record.get(columns.id_column) if columns.id_column else None
    yield (where if name is None else str(name)), text, (None if label is None else str(label))


def _csv(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with opened(part.path) as file:
        # A wrong byte becomes a lone surrogate, so that one bad field does not end the file.
        lines = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
        reader = csv.reader(lines, strict=True)
        header = [name.removeprefix("\ufeff") for name in next(reader, [])]
        for values in reader:
            where = f"{part.name}:{reader.line_num}"
            if len(values) != len(header):
                if values:
                    bad.add("broken_line", where)
                continue
            if any("\ud800" <= char <= "\udfff" for value in values for char in value if not value.isascii()):
                bad.add("invalid_utf8", where)
                continue
            yield from _row(dict(zip(header, values, strict=True)), where, columns, bad)


def _parquet(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    file = pq.ParquetFile(part.path)
    wanted = [c for c in (columns.text_column, columns.label_column, columns.id_column) if c is not None]
    groups = range(part.start, file.num_row_groups if part.stop < 0 else part.stop)
    number = sum(file.metadata.row_group(g).num_rows for g in range(part.start))
    for batch in file.iter_batches(batch_size=1024, row_groups=list(groups), columns=wanted):
        for record in batch.to_pylist():
            yield from _row(record, f"{part.name}:{number}", columns, bad)
            number += 1


READERS: dict[str, Callable[[Part, Columns, BadRows], Iterator[Row]]] = {
    ".txt": _txt,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
FORMATS = tuple(READERS)
