"""Documents in files: text, tables and web pages, plain, gzip or zstd; one path, a folder or a glob."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from raysl.config import PluginConfig
from raysl.data.sources import readers
from raysl.data.sources.base import BadRows, Item, Partition, Row, Source, files_fingerprint, missing, packed
from raysl.errors import DataError

COMPRESSED_TEXT_RATIO = 3
"""Text shrinks to about a third; only used to size partitions."""


class FilesConfig(PluginConfig):
    """Documents in files."""

    type: str = "files"
    path: str
    """A file, a folder (read with all below it) or a glob."""
    text_column: str = "text"
    """Column or key that holds the text (.jsonl, .csv, .parquet)."""
    label_column: str | None = None
    """Column or key that holds the label, if there is one."""
    id_column: str | None = None
    """Column or key that holds the id; without it an id is made of the file's name and the row's place."""
    txt_unit: str = Field("file", pattern="^(file|paragraph|line)$")
    """What one document is in a .txt file: all of it, a paragraph, or a line."""


class Files(Source):
    """Reads what it can: a row or file that is broken is counted under a reason, the rest goes through.

    Plain .jsonl files and row groups of .parquet are split between partitions; any other file is read by one task.
    """

    Config: ClassVar[type[PluginConfig]] = FilesConfig
    config: FilesConfig

    def partitions(self, partition_mb: float) -> list[Partition]:
        paths = self._paths()
        readers.check_installed(readers.format_of(path) for path in paths)
        for path in paths:
            self._check_columns(path)
        sized = (entry for path in paths for entry in _items(path, self._name(path), int(partition_mb * 1e6)))
        return packed(sized, partition_mb * 1e6)

    def fingerprint(self) -> str:
        return files_fingerprint((self._name(p), p.stat().st_size, p.stat().st_mtime_ns) for p in self._paths())

    def rows(self, partition: Partition, bad: BadRows) -> Iterator[Row]:
        for name, start, stop in partition:
            yield from readers.read(readers.Part(self._root() / name, name, start, stop), self.config, bad)

    def _paths(self) -> list[Path]:
        path = self.config.path
        if os.path.isdir(path):
            found = [p for p in Path(path).rglob("*") if p.is_file() and readers.format_of(p)]
        elif os.path.exists(path):
            found = [Path(path)]
        else:
            found = [Path(p) for p in glob.glob(path, recursive=True) if os.path.isfile(p) and readers.format_of(Path(p))]
        if not found and not os.path.isdir(path) and not glob.has_magic(path):
            raise DataError(f"{path} does not exist. Give prepare.source.path a file, a folder or a glob.")
        if not found or not all(readers.format_of(p) for p in found):
            raise missing(path, f"{', '.join(readers.FORMATS)}, also with {' or '.join(readers.COMPRESSIONS)}")
        return sorted(p.absolute() for p in found)

    def _root(self) -> Path:
        """The folder that names in the source are relative to."""
        path = Path(self.config.path).absolute()
        if path.is_dir():
            return path
        magic = [place for place, part in enumerate(path.parts) if glob.has_magic(part)]
        return Path(*path.parts[: magic[0]]) if magic and not path.exists() else path.parent

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root()).as_posix()

    def _check_columns(self, path: Path) -> None:
        """A column that a table does not have is a mistake in the config, not a bad row."""
        columns = readers.columns_of(path)
        wanted = (self.config.text_column, self.config.label_column, self.config.id_column)
        absent = [name for name in wanted if columns is not None and name is not None and name not in columns]
        if columns is not None and absent:
            raise DataError(
                f"{path} has no column '{absent[0]}'. Its columns: {', '.join(columns) or 'none'}. "
                f"Set prepare.source.text_column, label_column or id_column."
            )


def _items(path: Path, name: str, num_bytes: int) -> Iterator[tuple[Item, int]]:
    size = path.stat().st_size
    if readers.format_of(path) == ".parquet":
        yield from _row_groups(path, name, size)
    elif path.suffix == ".jsonl":
        for start in range(0, max(size, 1), num_bytes):
            yield (name, start, min(start + num_bytes, size)), min(num_bytes, size - start)
    else:
        yield (name, 0, -1), size * (COMPRESSED_TEXT_RATIO if path.suffix in readers.COMPRESSIONS else 1)


def _row_groups(path: Path, name: str, size: int) -> Iterator[tuple[Item, int]]:
    try:
        num_groups = pq.read_metadata(path).num_row_groups
    except (OSError, pa.ArrowInvalid):
        yield (name, 0, -1), size
        return
    for group in range(num_groups):
        yield (name, group, group + 1), size // num_groups
