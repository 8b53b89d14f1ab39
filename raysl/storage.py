"""Files that are whole or absent: atomic writes, content hashes, manifests.

A stage writes to temporary names, renames, and writes its manifest last; a folder without a manifest is unfinished work.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raysl.errors import DataError

HASHED_AT_ONCE = 8
"""Files of a folder: one core hashes a terabyte in half an hour."""
_REMOVED = ".removed-"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` (a file or a folder); renames it to `path` when the block succeeds.

    A file replaces the one before it. A folder that has come meanwhile stays: it is whole, readers may be in it, and two
    processes make the same folder only when one of them is what a killed run left behind.
    """
    final = Path(path)
    _make_folders(final.parent)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    remove(temporary)
    try:
        yield temporary
        _rename(temporary, final)
    finally:
        remove(temporary)


def _make_folders(folder: Path) -> None:
    """Makes what is missing of a path, but no folder that was being written whole: a later start has removed it, and what
    is written from now on would come to its final name without what was written before.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        if each.match(".*.tmp"):
            raise FileNotFoundError(f"{each} was removed while this process wrote in it")
        each.mkdir(exist_ok=True)


def _rename(temporary: Path, final: Path) -> None:
    try:
        os.replace(temporary, final)
    except OSError:
        if not (temporary.is_dir() and final.is_dir()):
            raise


def sync(path: Path) -> None:
    """Returns when a file's bytes, or a folder's names, are on disk: what a rename alone does not promise."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there.

    A folder loses its name first: a process that a killed run left behind, still at work in it, then cannot rename it to
    its final name half emptied. What a removal that was killed has left goes with the next one in the same place.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    try:
        os.rename(path, path.with_name(f"{_REMOVED}{uuid.uuid4().hex}.tmp"))
    except OSError:  # gone meanwhile, or a mount point, whose content can go
        shutil.rmtree(path, ignore_errors=True)
    for left in path.parent.glob(f"{_REMOVED}*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Removes what a killed process left below `folder` under temporary names."""
    for path in [*folder.rglob(".*.tmp")]:
        remove(path)


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, default=_plain_number) + "\n")


def _plain_number(value: Any) -> Any:
    """numpy scalars reach manifests; JSON knows only Python's numbers."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def read_json(path: str | Path) -> dict[str, Any]:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {path}: {error}.") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} holds no JSON object.")
    return data


def append_jsonl(path: str | Path, record: Mapping[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record, default=_plain_number) + "\n")


def write_jsonl(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(record, default=_plain_number) + "\n" for record in records))


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_json(data: Any) -> str:
    """The same for equal data whatever the order of its keys."""
    return hash_text(json.dumps(data, sort_keys=True, default=str))


def hash_file(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: str | Path, keep: Callable[[Path], bool] = lambda _: True) -> dict[str, str]:
    """Relative path -> content hash of every finished file below `folder` for which `keep` holds."""
    root = Path(folder)
    files = sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".") and keep(p))
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        return {p.relative_to(root).as_posix(): found for p, found in zip(files, pool.map(hash_file, files), strict=True)}
