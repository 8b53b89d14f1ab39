"""Pictures in one file of each kind, and how such a file is divided. A new kind is one index, one reader and two lines.

An index names ranges (first, last excluded) that can be read on their own: places of members (.zip), bytes (.tar),
row groups (.parquet). A damaged file is one range, whose reader counts it; one that cannot be got at raises DataError: where
its ranges lie is not known, and the next start would cut it otherwise.
"""

import io
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import PurePosixPath
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from raysl.data.images import SUFFIXES
from raysl.data.sources.base import INVALID_UTF8, BadRows, as_text, plain, records
from raysl.data.sources.image_source import ImageRow
from raysl.data.sources.stores import arrow_file, left_by_macos, open_bytes, raise_out_of_reach, stamp

MAX_MEMBERS = 1024
"""Pictures of one unit, at most, where they can be counted without reading them."""
MAX_BYTES = 100_000_000
"""Longer files are refused, so that memory stays bounded."""
UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile, tarfile.TarError, pa.ArrowException,
)  # fmt: skip
"""A RuntimeError is an encrypted archive, or a compression that Python does not know."""
UNREADABLE_FILE, TOO_LARGE, MISSING = "unreadable_file", "file_too_large", "missing_image"
NO_MEMBERS = b"PK\5\6" + bytes(18)
"""A .zip of nothing."""
MEMBERS_AT_ONCE = 128
"""Members of a .zip that are unpacked together from what is remembered of it."""
Range = tuple[int, int, int]
"""First, last (excluded; -1 is the end), and about how many bytes lie between."""


class Columns(Protocol):
    """The part of the source's config that readers need."""

    @property
    def folder_labels(self) -> bool: ...
    @property
    def image_column(self) -> str: ...
    @property
    def label_column(self) -> str | None: ...
    @property
    def id_column(self) -> str | None: ...


def read(path: str, name: str, start: int, stop: int, columns: Columns, bad: BadRows) -> Iterator[ImageRow]:
    """Pictures of a range; their ids begin with `name`, the path relative to the source.

    Raises DataError for a file that cannot be got at.
    """
    reader = READERS.get(PurePosixPath(name).suffix.lower(), _picture)
    try:
        yield from reader(path, name, start, stop, columns, bad)
    except UNREADABLE as error:  # what came before the break has been yielded
        raise_out_of_reach(path, error)
        bad.add(UNREADABLE_FILE, name)


def is_hidden(name: str) -> bool:
    """Files that systems leave beside pictures: ._photo.jpg, __MACOSX/..., .thumbnails/..."""
    return left_by_macos(name) or any(part.startswith(".") and part != "." for part in name.split("/"))


def columns_of(path: str) -> list[str] | None:
    """Column names of a table; None where it is damaged. Raises DataError where it cannot be got at."""
    try:
        return list(pq.read_schema(arrow_file(path)).names)
    except UNREADABLE as error:
        raise_out_of_reach(path, error)
        return None


def _picture(path: str, name: str, start: int, stop: int, columns: Columns, bad: BadRows) -> Iterator[ImageRow]:
    with open_bytes(path) as file:
        yield from _limited(file, name, _folder_label(name, columns), bad)


def _limited(file: IO[bytes], name: str, label: str | None, bad: BadRows) -> Iterator[ImageRow]:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        bad.add(TOO_LARGE, name)
    else:
        yield plain(name), data, label


def _folder_label(name: str, columns: Columns) -> str | None:
    folder = PurePosixPath(name).parent.name
    return plain(folder) if folder and columns.folder_labels else None


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def _is_class(name: str) -> bool:
    return name.lower().endswith(".cls")


def _members(path: str) -> list[zipfile.ZipInfo]:
    with open_bytes(path) as file, zipfile.ZipFile(file) as archive:
        return [info for info in archive.infolist() if not info.is_dir() and _is_picture(info.filename)]


class _Members:
    """Pictures of a .zip, packed: what Python says of a member takes 600 bytes, and an archive may have millions."""

    def __init__(self, infos: list[zipfile.ZipInfo]) -> None:
        self.count = len(infos)
        starts = range(0, len(infos), MEMBERS_AT_ONCE)
        self._packed = [zlib.compress(pickle.dumps(infos[start : start + MEMBERS_AT_ONCE]), 1) for start in starts]

    def between(self, start: int, stop: int) -> Iterator[zipfile.ZipInfo]:
        for block in range(start // MEMBERS_AT_ONCE, -(-stop // MEMBERS_AT_ONCE)):
            first = block * MEMBERS_AT_ONCE
            infos: list[zipfile.ZipInfo] = pickle.loads(zlib.decompress(self._packed[block]))
            yield from infos[max(start - first, 0) : stop - first]


@lru_cache(maxsize=2)
def _remembered(path: str, size: int, time_ns: int) -> _Members:
    """Read once by a process: the list of an archive of a million members takes ten seconds, and has 70,000 ranges."""
    return _Members(_members(path))


def _zip_index(path: str, size: int, num_bytes: int) -> Iterator[Range]:
    try:
        sizes = [info.compress_size for info in _members(path)]
    except UNREADABLE as error:
        raise_out_of_reach(path, error)
        yield 0, -1, size
        return
    yield from _ranges(((place, place + 1, one) for place, one in enumerate(sizes)), num_bytes)


def _ranges(members: Iterable[Range], num_bytes: int) -> Iterator[Range]:
    """Neighbouring members together: about `num_bytes`, MAX_MEMBERS at most."""
    start, stop, total, count = 0, 0, 0, 0
    for first, last, size in members:
        start, stop, total, count = (start if count else first), last, total + size, count + 1
        if total >= num_bytes or count == MAX_MEMBERS:
            yield start, stop, total
            total = count = 0
    if count:
        yield start, stop, total


def _zip(path: str, name: str, start: int, stop: int, columns: Columns, bad: BadRows) -> Iterator[ImageRow]:
    members = _remembered(path, *stamp(path))
    with open_bytes(path) as file, zipfile.ZipFile(io.BytesIO(NO_MEMBERS)) as archive:
        archive.fp = file  # of what it opens it is told the place, so it need not read the list itself
        for info in members.between(start, members.count if stop < 0 else min(stop, members.count)):
            inner = f"{name}/{info.filename}"
            try:
                with archive.open(info) as member:
                    found = list(_limited(member, inner, _folder_label(info.filename, columns), bad))
            except UNREADABLE as error:  # one damaged member
                raise_out_of_reach(path, error)
                bad.add(UNREADABLE_FILE, inner)
                continue
            yield from found


def _tar_members(path: str, start: int = 0) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Regular files from a byte on; raises one of UNREADABLE where the archive breaks off."""
    with open_bytes(path) as file:
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.isfile():
                    yield member, archive
                archive.members = []  # type: ignore[attr-defined]  # else it remembers every member it has seen
        file.seek(0, 2)
        if file.tell() % tarfile.BLOCKSIZE:  # the library itself takes a cut for the end
            raise tarfile.ReadError("cut off")


def _tar_index(path: str, size: int, num_bytes: int) -> Iterator[Range]:
    keys: list[tuple[str, int]] = []  # key of a group of members, byte at which it begins
    try:
        for member, _ in _tar_members(path):
            if not keys or keys[-1][0] != _key(member.name):
                keys.append((_key(member.name), member.offset))
    except UNREADABLE as error:  # damage is for the reader of the last range to count
        raise_out_of_reach(path, error)
    starts = [start for _, start in keys] or [0]
    bounds = [*starts[1:], size]
    ranges = list(_ranges(((a, b, b - a) for a, b in zip(starts, bounds, strict=True)), num_bytes))
    yield from ((a, -1 if b == size else b, total) for a, b, total in ranges)


def _key(name: str) -> str:
    """What members of one row share in a WebDataset: the path up to the first dot of the file's name."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _tar(path: str, name: str, start: int, stop: int, columns: Columns, bad: BadRows) -> Iterator[ImageRow]:
    row, broken = _TarRow(name, columns), None
    try:
        for member, archive in _tar_members(path, start):
            if 0 <= stop <= member.offset:
                break
            if _key(member.name) != row.key:
                yield from row.finished()
                row = _TarRow(name, columns, _key(member.name))
            if member.size > MAX_BYTES:
                bad.add(TOO_LARGE, f"{name}/{member.name}")
            elif _is_picture(member.name) or _is_class(member.name):
                row.add(member.name, archive.extractfile(member).read())  # type: ignore[union-attr]
    except UNREADABLE as error:
        broken = error
    yield from row.finished()
    if broken is not None:
        raise broken


class _TarRow:
    """Members of one key: as a rule a picture and its class."""

    def __init__(self, name: str, columns: Columns, key: str = "") -> None:
        self.name, self.columns, self.key = name, columns, key
        self.pictures: list[tuple[str, bytes]] = []
        self.label: str | None = None

    def add(self, member: str, data: bytes) -> None:
        if _is_class(member):
            self.label = data.decode("utf-8", "replace").strip() or None
        else:
            self.pictures.append((member, data))

    def finished(self) -> Iterator[ImageRow]:
        for member, data in self.pictures:
            label = _folder_label(member, self.columns) if self.label is None else self.label
            yield plain(f"{self.name}/{member}"), data, label


def _parquet_index(path: str, size: int, num_bytes: int) -> Iterator[Range]:
    try:
        metadata = pq.read_metadata(arrow_file(path))
    except UNREADABLE as error:
        raise_out_of_reach(path, error)
        yield 0, -1, size
        return
    for group in range(metadata.num_row_groups):
        yield group, group + 1, size // metadata.num_row_groups


def _parquet(path: str, name: str, start: int, stop: int, columns: Columns, bad: BadRows) -> Iterator[ImageRow]:
    file = pq.ParquetFile(arrow_file(path))
    wanted = [column for column in (columns.image_column, columns.label_column, columns.id_column) if column is not None]
    groups = range(start, file.num_row_groups if stop < 0 else stop)
    number = sum(file.metadata.row_group(group).num_rows for group in range(start))
    for batch in file.iter_batches(batch_size=64, row_groups=list(groups), columns=wanted):
        for record in records(batch):
            if record is None:
                bad.add(INVALID_UTF8, f"{name}:{number}")
            else:
                yield from _record(record, f"{plain(name)}:{number}", columns, bad)
            number += 1


def _record(record: dict[str, Any], where: str, columns: Columns, bad: BadRows) -> Iterator[ImageRow]:
    data = record[columns.image_column]
    data = data.get("bytes") if isinstance(data, dict) else data
    if not isinstance(data, bytes):
        bad.add(MISSING, where)
        return
    named = (columns.label_column, columns.id_column)
    label, name = (as_text(record[column]) if column else None for column in named)
    yield name or where, data, label


INDEXES: dict[str, Callable[[str, int, int], Iterator[Range]]] = {
    ".zip": _zip_index, ".tar": _tar_index, ".parquet": _parquet_index,
}  # fmt: skip
READERS: dict[str, Callable[[str, str, int, int, Columns, BadRows], Iterator[ImageRow]]] = {
    ".zip": _zip, ".tar": _tar, ".parquet": _parquet,
}  # fmt: skip
CONTAINERS = tuple(READERS)
