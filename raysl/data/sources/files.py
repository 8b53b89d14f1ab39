"""Documents in files: text, tables and web pages, plain, gzip or zstd; one path, a folder or a glob."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import pyarrow.parquet as pq

from raysl.config import AnyPath, PluginConfig
from raysl.data.sources import readers, stores
from raysl.data.sources.base import BadRows, Item, Partition, Row, Source, files_fingerprint, missing, packed, plain
from raysl.data.sources.stores import StoredFile
from raysl.errors import DataError
from raysl.progress import say

MOST_HELD = 2_000_000_000
"""Bytes of text that a task reads without a word to the user: it takes some three times as much memory."""
LOOKED_AT = 100
"""Rows of the first .jsonl in which the columns are looked for."""
COMPRESSED_TEXT_RATIO = 3
"""Text shrinks to about a third; only used to size partitions."""


class FilesConfig(PluginConfig):
    """Documents in files."""

    later: ClassVar[frozenset[str]] = frozenset({"title_column"})

    type: str = "files"
    path: AnyPath
    """A file, a folder (read with all below it) or a glob; on this machine, or s3://bucket/..., gs://bucket/..."""
    text_column: str = "text"
    """Column or key that holds the text (.jsonl, .csv, .parquet)."""
    title_column: str | None = None
    """Column or key that holds the title, if there is one: it becomes the first line of the text."""
    label_column: str | None = None
    """Column or key that holds the label, if there is one."""
    id_column: str | None = None
    """Column or key that holds the id; without it an id is made of the file's name and the row's place."""
    txt_unit: Literal["file", "paragraph", "line"] = "file"
    """What one document is in a .txt file: all of it, a paragraph, or a line."""


class StoredFiles(Source):
    """What sources over files share: which files, how they are cut into partitions, whether their columns are there.

    Plain .jsonl files and row groups of .parquet are split between partitions; any other file is read by one task.
    """

    formats: ClassVar[Sequence[str]] = readers.FORMATS
    held: ClassVar[bool] = False
    """Whether a task holds in memory all that it reads of a file."""

    def columns(self) -> dict[str, str]:
        """Key of the config -> the column it names; a table has to have all of them."""
        raise NotImplementedError

    def parts(self, partition: Partition) -> Iterator[readers.Part]:
        root = stores.root_of(self.config.path)
        for name, start, stop in partition:
            yield readers.Part(f"{root}/{name}", plain(name), start, stop)

    def size_mb(self) -> float:
        return sum(_text_bytes(file) for file in self._files()) / 1e6

    def partitions(self, partition_mb: float) -> list[Partition]:
        """Raises DataError for a table that cannot be got at: how it is cut is not known."""
        files = self._files()
        readers.check_installed(readers.format_of(file.path) for file in files)
        self._tell_of_absent_keys(files)

        large: list[tuple[int, str]] = []

        def divided(file: StoredFile) -> list[tuple[Item, int]]:
            self._check_columns(file.path)
            found = list(_items(file, int(partition_mb * 1e6)))
            large.extend((size, file.path) for _, size in found if size > MOST_HELD)
            return found

        found = packed((entry for entries in stores.looked_at(divided, files) for entry in entries), partition_mb * 1e6)
        self._tell_of_large([(size, path) for size, path in large if readers.format_of(path) not in readers.NEEDS])
        return found

    def _tell_of_large(self, large: Sequence[tuple[int, str]]) -> None:
        """Of a web page little is held."""
        if self.held and large:
            size, path = max(large)
            say(
                f"One task reads about {size / 1e9:.1f} GB of {path} and holds it in memory ({len(large):,} such tasks): "
                "only plain .jsonl and row groups of .parquet are divided. Store it as several files where that is too much."
            )

    def fingerprint(self) -> str:
        return files_fingerprint((file.name, file.size, file.time_ns) for file in self._files())

    def _files(self) -> list[StoredFile]:
        path = self.config.path
        found = stores.find(path)
        known = [
            file for file in found if readers.format_of(file.path) in self.formats and readers.is_wanted(file.path, path)
        ]
        if not known:
            raise missing(path, f"{', '.join(self.formats)}, also with {' or '.join(readers.COMPRESSIONS)}")
        return known

    def _check_columns(self, path: str) -> None:
        """A column that a table does not have is a mistake in the config, not a bad row."""
        columns = readers.columns_of(path)
        absent = [(key, name) for key, name in self.columns().items() if columns is not None and name not in columns]
        if columns is not None and absent:
            key, name = absent[0]
            raise DataError(
                f"{path} has no column '{name}'. Its columns: {', '.join(columns) or 'none'}. Set prepare.source.{key}."
            )

    def _tell_of_absent_keys(self, files: Sequence[StoredFile]) -> None:
        """Rows of .jsonl may lack a key; one that all lack is misspelt: labels would silently be none."""
        path = next((file.path for file in files if readers.format_of(file.path) == ".jsonl"), None)
        keys = readers.first_keys(path, LOOKED_AT) if path is not None else []
        absent = [(key, name) for key, name in self.columns().items() if keys and name not in keys]
        for key, name in absent:
            say(f"The first {LOOKED_AT} rows of {path} have no '{name}' (source.{key}). They have: {', '.join(keys[:30])}.")


class Files(StoredFiles):
    """Reads what it can: a row or file that is broken is counted under a reason, the rest goes through."""

    Config: ClassVar[type[PluginConfig]] = FilesConfig
    config: FilesConfig
    held = True

    def columns(self) -> dict[str, str]:
        named = {key: getattr(self.config, key) for key in ("text_column", "title_column", "label_column", "id_column")}
        return {key: name for key, name in named.items() if name is not None}

    def rows(self, partition: Partition, bad: BadRows) -> Iterator[Row]:
        for part in self.parts(partition):
            yield from readers.read(part, self.config, bad)


def _text_bytes(file: StoredFile) -> int:
    return file.size * (COMPRESSED_TEXT_RATIO if file.name.lower().endswith(readers.COMPRESSIONS) else 1)


def _items(file: StoredFile, num_bytes: int) -> Iterator[tuple[Item, int]]:
    name, size = file.name, file.size
    form = readers.format_of(file.path)
    if form == ".parquet":
        yield from _row_groups(file)
    elif form == ".jsonl" and not name.lower().endswith(readers.COMPRESSIONS):
        for start in range(0, max(size, 1), num_bytes):
            yield (name, start, min(start + num_bytes, size)), min(num_bytes, size - start)
    else:
        yield (name, 0, -1), _text_bytes(file)


def _row_groups(file: StoredFile) -> Iterator[tuple[Item, int]]:
    try:
        num_groups = pq.read_metadata(stores.arrow_file(file.path)).num_row_groups
    except readers.UNREADABLE as error:
        stores.raise_out_of_reach(file.path, error)
        yield (file.name, 0, -1), file.size
        return
    for group in range(num_groups):
        yield (file.name, group, group + 1), file.size // num_groups
