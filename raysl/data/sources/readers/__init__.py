"""Rows of one file of each format. A new format is one function and one line in READERS."""

import csv
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

import pyarrow.parquet as pq

from raysl.data.extras import require
from raysl.data.sources.base import BadRows, Row
from raysl.data.sources.readers import tables, text, web
from raysl.data.sources.readers.base import COMPRESSIONS, TABLES, UNREADABLE, Columns, Part, csv_text, opened
from raysl.data.sources.stores import arrow_file, raise_out_of_reach

__all__ = [
    "COMPRESSIONS",
    "FORMATS",
    "UNREADABLE",
    "Part",
    "check_installed",
    "columns_of",
    "first_keys",
    "format_of",
    "read",
]

READERS: dict[str, Callable[[Part, Columns, BadRows], Iterator[Row]]] = {
    ".txt": text.txt,
    ".jsonl": tables.jsonl,
    ".csv": tables.csv_rows,
    ".parquet": tables.parquet,
    ".html": web.html,
    ".htm": web.html,
    ".warc": web.warc,
}
FORMATS = tuple(READERS)
LINES = (".json", ".ndjson")
"""Other names of .jsonl. In a folder such a file may as well say something about the data."""
NEEDS = {".html": ("trafilatura",), ".htm": ("trafilatura",), ".warc": ("trafilatura", "fastwarc")}
"""Packages of the extra `web` that a format needs."""


def format_of(path: str) -> str:
    """`.jsonl` for docs.jsonl.gz, DOCS.JSONL and docs.json; empty for a format that nobody reads."""
    suffix = _suffix(path)
    return ".jsonl" if suffix in LINES else suffix if suffix in READERS else ""


def is_wanted(path: str, named: str) -> bool:
    """Whether a file that was found at `named` is meant: one of LINES only where it ends so itself."""
    return _suffix(path) not in LINES or _suffix(named) in LINES


def _suffix(path: str) -> str:
    name = PurePosixPath(path.replace("\\", "/").lower())
    return (name.with_suffix("") if name.suffix in COMPRESSIONS else name).suffix


def read(part: Part, columns: Columns, bad: BadRows) -> Iterator[Row]:
    """Yields the good rows of a part; the others go to `bad`. Raises DataError for a file that cannot be got at."""
    form = format_of(part.path)
    rows = READERS[form](part, columns, bad)
    if columns.title_column and form not in TABLES:  # a blank first line: there is no title
        rows = ((name, f"\n{text}", label) for name, text, label in rows)
    try:
        yield from rows
    except UNREADABLE as error:  # what came before the break has been yielded
        raise_out_of_reach(part.path, error)
        bad.add("unreadable_file", part.name)


def columns_of(path: str) -> list[str] | None:
    """Column names where the file itself names them; None where it does not, holds nothing or is damaged.

    Raises DataError for a file that cannot be got at.
    """
    try:
        if format_of(path) == ".parquet":
            return list(pq.read_schema(arrow_file(path)).names)
        if format_of(path) == ".csv":
            with opened(path) as file:
                return next(filter(None, csv.reader(csv_text(file))), None)
    except UNREADABLE as error:
        raise_out_of_reach(path, error)
        return None
    return None


def first_keys(path: str, num_rows: int) -> list[str]:
    """Keys of the first rows of a .jsonl, in the order in which they come; none where it is damaged."""
    found: dict[str, None] = {}
    try:
        for _, record in itertools.islice(tables.json_records(Part(path, path), BadRows()), num_rows):
            found.update(dict.fromkeys(record))
    except UNREADABLE as error:
        raise_out_of_reach(path, error)
    return list(found)


def check_installed(formats: Iterable[str]) -> None:
    """Raises ConfigError that says what to install, where a format needs a package that is not there."""
    for name in sorted(set(formats)):
        for package in NEEDS.get(name, ()):
            require(package, "web", f"Reading {name}")
