"""What readers of all formats share: parts of files, opening them, what they need of the config."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from csv import Error as CsvError
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa

from raysl.data.sources.base import INVALID_UTF8, BadRows, Row, as_text
from raysl.data.sources.stores import open_bytes

TABLES = (".jsonl", ".csv", ".parquet")
"""Formats of rows with columns."""
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
COMPRESSIONS = (".gz", ".zst")
UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowException, CsvError, UnicodeDecodeError)
"""A UnicodeDecodeError is a damaged .parquet, whose names are no UTF-8."""


@dataclass(frozen=True)
class Part:
    """A part of a file: from `start` to `stop`, in bytes of .jsonl or row groups of .parquet; -1 is the end."""

    path: str
    name: str
    """What ids begin with: the path relative to the source, so that moved data keeps its ids."""
    start: int = 0
    stop: int = -1


class Columns(Protocol):
    """The part of FilesConfig that readers need."""

    @property
    def text_column(self) -> str: ...
    @property
    def title_column(self) -> str | None: ...
    @property
    def label_column(self) -> str | None: ...
    @property
    def id_column(self) -> str | None: ...
    @property
    def txt_unit(self) -> str: ...


def opened(path: str) -> BinaryIO:
    """The bytes of a file, decompressed."""
    if path.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(open_bytes(path), "rb"))
    if path.lower().endswith(".zst"):
        return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(open_bytes(path), "zstd")))
    return open_bytes(path)


def csv_text(file: BinaryIO, errors: str = "strict") -> io.TextIOWrapper:
    """The lines of a .csv in UTF-8 or, where it is marked as such, in UTF-16, as other programs export it."""
    if cast(io.BufferedReader, file).peek(2).startswith(UTF_16):
        return io.TextIOWrapper(file, "utf-16", "surrogatepass", newline="")
    return io.TextIOWrapper(file, "utf-8-sig", errors, newline="")


def row_of(record: dict[str, Any], where: str, columns: Columns, bad: BadRows) -> Iterator[Row]:
    text = record.get(columns.text_column)
    try:
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError:
        bad.add(INVALID_UTF8, where)
        return
    if not isinstance(text, str) or not text.strip():
        bad.add("missing_text", where)
        return
    named = (columns.title_column, columns.label_column, columns.id_column)
    title, label, name = (as_text(record.get(column)) if column else None for column in named)
    if columns.title_column:
        text = f"{' '.join((title or '').split())}\n{text}"
    yield name or where, text, label
