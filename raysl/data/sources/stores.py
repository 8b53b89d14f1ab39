"""Where files lie: this machine, or an object store (s3://, gs://) through pyarrow.fs.

Credentials and endpoints are the store's own: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS and so on.
"""

import errno
import fnmatch
import glob
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import pyarrow as pa
from pyarrow import fs

from raysl.data.sources.base import plain
from raysl.errors import DataError, StoreError

OF_THE_CONTENT = (None, 0, errno.EINVAL)
"""`errno` of errors that a damaged file causes: none from readers, EINVAL where it sends them to before its start."""
OF_A_STORE = re.compile("AWS Error|google::cloud|google-cloud")
"""What pyarrow writes into an error of the network or the store, which has no `errno` either."""
LOOKS, WAITING = 16, 1000
"""Files of a store that are looked at side by side before the work is divided; those that wait for it, of maybe millions."""
READ_AHEAD = 1 << 20
"""Bytes of one request to a store: each takes some 30 ms, however little it asks for. Python's 8 KB would be 0.3 MB/s."""

T = TypeVar("T")


@dataclass(frozen=True)
class StoredFile:
    """One file under a root."""

    path: str
    """Absolute path or URI."""
    name: str
    """Relative to the root: ids begin with it, so that moved data keeps its ids."""
    size: int
    time_ns: int


def is_remote(path: str) -> bool:
    return "://" in path


def root_of(path: str) -> str:
    """The folder that names are relative to: the path itself, or its part before a file's name or a glob."""
    if is_remote(path):
        if glob.has_magic(path):
            return re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0]
        return path.rstrip("/") if _info(path).type == fs.FileType.Directory else path.rpartition("/")[0]
    local = Path(path).absolute()
    if local.is_dir():
        return str(local)
    magic = [place for place, part in enumerate(local.parts) if glob.has_magic(part)]
    return str(Path(*local.parts[: magic[0]]) if magic and not local.exists() else local.parent)


def find(path: str) -> list[StoredFile]:
    """All files that a path, a folder or a glob names, in the order of their names, without those of `left_by_macos`.

    Raises DataError where a path without a glob does not exist, a folder cannot be listed, or the store cannot be reached.
    """
    root = root_of(path)
    try:
        found = list(_remote_files(path, root) if is_remote(path) else _local_files(path, root))
    except OSError as error:
        raise_out_of_reach(str(error.filename or path), error)
        raise
    if not found and not glob.has_magic(path) and (is_remote(path) or not os.path.isdir(path)):
        raise DataError(f"{path} does not exist. Give prepare.source.path a file, a folder or a glob.")
    wanted = (file for file in found if not left_by_macos(file.name))
    return sorted(wanted, key=lambda file: file.name.split("/"))


def left_by_macos(name: str) -> bool:
    """What it puts beside the files that it copies or packs, under names of the same kind: ._notes.txt, __MACOSX/..."""
    return any(part.startswith("._") or part == "__MACOSX" for part in name.split("/"))


def _local_files(path: str, root: str) -> Iterator[StoredFile]:
    if os.path.isdir(path):
        paths = list(_files_below(root))
    elif os.path.exists(path):
        paths = [Path(path)]
    else:
        paths = _named_by(Path(path).absolute().parts)
    for one in (p.absolute() for p in paths):
        stat = one.stat()
        yield StoredFile(str(one), one.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns)


def _named_by(parts: Sequence[str]) -> list[Path]:
    """Files that a glob of these parts names; as everywhere, `*` and `**` name nothing that begins with a dot.

    Raises OSError for a folder that cannot be listed, which Python's own glob leaves out.
    """
    places = [Path(parts[0])]
    for number, part in enumerate(parts[1:], start=1):
        if part == "**":
            wanted = _pattern("/".join(parts[number:]))
            below = ((place, path) for place in places if place.is_dir() for path in _files_below(str(place)))
            names = ((path, path.relative_to(place).as_posix()) for place, path in below)
            return [path for path, name in names if wanted.fullmatch(name) and not name.startswith(".") and "/." not in name]
        if glob.has_magic(part):
            listed = ((place, name) for place in places if place.is_dir() for name in os.listdir(place))
            places = [place / name for place, name in listed
                      if fnmatch.fnmatchcase(name, part) and name.startswith(".") <= part.startswith(".")]  # fmt: skip
        else:
            places = [place / part for place in places]
    return [place for place in places if place.is_file()]


def _files_below(root: str) -> Iterator[Path]:
    """A folder that links lead to more than once, or in a circle, is read once: where it lies, if that is below the root.

    Raises OSError for a folder that cannot be listed.
    """
    seen, tops = set[str](), [root]
    while tops:
        links = []
        for top in sorted(tops):
            for place, folders, files in os.walk(top, onerror=_raise_unlisted):  # links are for later
                whole = os.path.realpath(place)
                if whole in seen:
                    folders.clear()
                    continue
                seen.add(whole)
                links += [link for name in folders if os.path.islink(link := os.path.join(place, name))]
                yield from (path for name in files if (path := Path(place, name)).is_file())
        tops = links


def _raise_unlisted(error: OSError) -> None:
    if os.path.basename(error.filename) == "lost+found":  # a file system's own, for root alone
        return
    raise error


def _remote_files(path: str, root: str) -> Iterator[StoredFile]:
    if path.rstrip("/") != root and not glob.has_magic(path):
        infos = [_info(path)]
    else:
        system, key = _opened(root)
        infos = system.get_file_info(fs.FileSelector(key, recursive=True))
    wanted = _pattern(path) if glob.has_magic(path) else None
    key = _opened(root)[1]
    for info in infos:
        name = info.path.removeprefix(key).lstrip("/")
        if info.type == fs.FileType.File and (wanted is None or wanted.fullmatch(f"{root}/{name}")):
            yield StoredFile(f"{root}/{name}", name, info.size, info.mtime_ns)


def looked_at(look: Callable[[StoredFile], T], files: Sequence[StoredFile]) -> Iterator[T]:
    """What `look` finds in each file, in their order; in a store many at a time, since nearly all of it is waiting."""
    if not files or not is_remote(files[0].path):
        yield from map(look, files)
        return
    with ThreadPoolExecutor(LOOKS) as pool:
        for start in range(0, len(files), WAITING):
            yield from pool.map(look, files[start : start + WAITING])


def _info(uri: str) -> Any:
    system, key = _opened(uri.rstrip("/"))
    try:
        return system.get_file_info(key)
    except OSError as error:
        raise DataError(f"{uri} cannot be reached: {error}. Check the address and the credentials.") from error


def _pattern(path: str) -> re.Pattern[str]:
    """A glob as a regular expression; only ** goes through folders."""
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", path.replace("[!", "[^"))
    return re.compile("".join(signs.get(part, part if part.startswith("[") else re.escape(part)) for part in parts))


def _opened(uri: str) -> tuple[Any, str]:
    """The file system of a URI and the path inside it. A key may hold blanks, # and %, so it is taken as it stands."""
    scheme, _, rest = uri.partition("://")
    top, _, key = rest.partition("/")
    try:
        system, root = _system(scheme, top, os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} cannot be opened: {error}. Allowed: a path, s3://bucket/... or gs://bucket/...") from error
    return system, f"{root.rstrip('/')}/{key}" if key else root


@cache
def _system(scheme: str, top: str, endpoint: str | None) -> tuple[Any, str]:
    """One client for a bucket, however many folders are read."""
    if endpoint and scheme == "s3":  # pyarrow itself does not look there
        protocol, _, host = endpoint.rstrip("/").rpartition("://")
        return fs.S3FileSystem(endpoint_override=host, scheme=protocol or "https"), top
    found: tuple[Any, str] = fs.FileSystem.from_uri(f"{scheme}://{top or '/'}")
    return found


def open_bytes(path: str) -> BinaryIO:
    """The bytes as they are stored; the file can be searched."""
    if not is_remote(path):
        return open(path, "rb")
    return cast(BinaryIO, _Ahead(arrow_file(path), READ_AHEAD))


class _Ahead(io.BufferedReader):
    """Asks a store for READ_AHEAD bytes at a time. `read1`, with which lines of .csv are read, goes past that by itself."""

    def read1(self, size: int = -1, /) -> bytes:
        self.peek(1)
        return super().read1(size)


def stamp(path: str) -> tuple[int, int]:
    """Size and modification time in ns of one file: other ones are another content. OSError where it is gone."""
    if not is_remote(path):
        stat = os.stat(path)
        return stat.st_size, stat.st_mtime_ns
    system, key = _opened(path.rpartition("/")[0])
    info = system.get_file_info(f"{key}/{path.rpartition('/')[2]}")
    if info.type != fs.FileType.File:
        raise FileNotFoundError(errno.ENOENT, "No such file", path)
    return info.size, info.mtime_ns


def is_out_of_reach(error: BaseException) -> bool:
    """Whether the file could not be got at (gone, forbidden, disk or network), so that nothing is known of its content."""
    if isinstance(error, FileNotFoundError | PermissionError | ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and (error.errno not in OF_THE_CONTENT or bool(OF_A_STORE.search(str(error))))


def raise_out_of_reach(path: str, error: BaseException) -> None:
    """Raises DataError or StoreError where the file could not be got at; a damaged file is left to the caller."""
    if isinstance(error, zipfile.BadZipFile) and error.__context__ is not None:  # what it makes of a disk that fails
        error = error.__context__
    if not is_out_of_reach(error):
        return
    if is_remote(path):
        raise StoreError(
            f"{path} cannot be read: {error}. Check the store, the network and the credentials, then start again."
        ) from error
    raise DataError(
        f"{path} cannot be read: {error}. Every machine of the cluster has to see it, and this user has to be allowed to "
        "read it. Set that right, then start again."
    ) from error


def arrow_file(path: str) -> Any:
    """What pyarrow reads from: the path itself on this machine, an open file in a store or where the path is no UTF-8."""
    if not is_remote(path):
        return path if plain(path) == path else pa.OSFile(os.fsencode(path))  # of a text, pyarrow makes UTF-8
    system, key = _opened(path.rpartition("/")[0])
    return system.open_input_file(f"{key}/{path.rpartition('/')[2]}")


def create(uri: str) -> BinaryIO:
    """A new file in a store; it appears when it is closed after everything was written."""
    system, key = _opened(uri.rpartition("/")[0])
    return cast(BinaryIO, system.open_output_stream(f"{key}/{uri.rpartition('/')[2]}"))


def delete(uri: str) -> None:
    """Removes a file from a store, if it is there."""
    system, key = _opened(uri.rpartition("/")[0])
    if system.get_file_info(f"{key}/{uri.rpartition('/')[2]}").type == fs.FileType.File:
        system.delete_file(f"{key}/{uri.rpartition('/')[2]}")
