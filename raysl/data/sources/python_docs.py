"""The documentation installed with Python: docstrings of the standard library and of site-packages.

A real corpus that every machine has: some 50,000 texts of 200 characters or more, with natural exact and near
duplicates. A document's label is the library it belongs to; neither that nor its own name stands in its text.
"""

import os
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from raysl.config import PluginConfig
from raysl.data.sources.base import BadRows, Partition, Row, Source, files_fingerprint, missing, packed, plain
from raysl.data.sources.docstrings import docstrings
from raysl.data.sources.stores import raise_out_of_reach

SOURCE_BYTES_PER_TEXT_BYTE = 6
"""Python source is about six times the length of the docstrings in it (measured on 306 MB)."""


class PythonDocsConfig(PluginConfig):
    """Docstrings of modules, classes and functions."""

    type: str = "python_docs"
    min_chars: int = Field(200, ge=1)
    """Characters a docstring needs to count as a document."""
    skip: tuple[str, ...] = ("raysl",)
    """Top-level packages that are left out."""


class PythonDocs(Source):
    """Reads every .py file without importing it. Costs about 10 CPU seconds for 20,000 files."""

    Config: ClassVar[type[PluginConfig]] = PythonDocsConfig
    config: PythonDocsConfig

    def partitions(self, partition_mb: float) -> list[Partition]:
        files = self._files()
        if not files:
            raise missing(" and ".join(str(root) for root in roots().values()), "folders with .py files")
        items = (((name, 0, -1), size) for name, size, _ in files)
        return packed(items, partition_mb * 1e6 * SOURCE_BYTES_PER_TEXT_BYTE)

    def fingerprint(self) -> str:
        return files_fingerprint(self._files())

    def _files(self) -> list[tuple[str, int, int]]:
        return list(_listed(self.config.skip))

    def rows(self, partition: Partition, bad: BadRows) -> Iterator[Row]:
        places = roots()
        for name, _, _ in partition:
            kind, _, relative = name.partition("/")
            path = places[kind] / relative
            try:
                found = docstrings(path.read_bytes(), self.config.min_chars)
            except (OSError, SyntaxError, ValueError) as error:  # not decodable, or a broken escape in a docstring
                raise_out_of_reach(str(path), error)
                bad.add("unreadable_source", name)
                continue
            yield from named(found, kind, plain(relative))


def roots() -> dict[str, Path]:
    return {"stdlib": Path(sysconfig.get_paths()["stdlib"]), "site": Path(sysconfig.get_paths()["purelib"])}


@cache
def _listed(skip: tuple[str, ...]) -> tuple[tuple[str, int, int], ...]:
    """(name, bytes, modification time) of every .py file, in a fixed order."""
    return tuple(entry for kind, root in roots().items() for entry in _walk(kind, root, skip))


def _walk(kind: str, root: Path, skip: tuple[str, ...]) -> Iterator[tuple[str, int, int]]:
    for folder, folders, files in os.walk(root):
        top = Path(folder) == root
        hidden = {"__pycache__", *(skip if top else ()), *(["site-packages", "dist-packages"] if top else ())}
        folders[:] = sorted(name for name in folders if name not in hidden)
        for file in sorted(files):
            path = Path(folder, file)
            if file.endswith(".py") and path.is_file():
                stat = path.stat()
                yield f"{kind}/{path.relative_to(root).as_posix()}", stat.st_size, stat.st_mtime_ns


def named(found: list[tuple[str, str]], kind: str, relative: str) -> Iterator[Row]:
    """Rows with ids that are unique in the file: the second definition of a name ends with #2."""
    module = relative.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    label = "python" if kind == "stdlib" else relative.split("/")[0].removesuffix(".py")
    seen: dict[str, int] = {}
    for name, text in found:
        full = f"{module}.{name}" if name else module
        seen[full] = seen.get(full, 0) + 1
        yield (full if seen[full] == 1 else f"{full}#{seen[full]}"), text, label
