"""The files of a folder of weights; DataError, with the file's name, where one cannot be read."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from raysl.errors import DataError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
POINTER = b"version https://git-lfs"

Shapes = Mapping[str, tuple[int, ...]]
"""Of the tensors of a file, by their names."""


def read_shapes(path: Path) -> Shapes:
    """From the head of the file; no weights are read."""
    _no_pointer(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except SafetensorError as error:
        raise DataError(f"{path} is no safetensors file, or a part of one ({error}).") from error


def read_object(path: Path) -> dict[str, Any]:
    """What a JSON file says."""
    _no_pointer(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}).") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is no JSON object.")
    return found


def _no_pointer(path: Path) -> None:
    with open(path, "rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise DataError(f"{path} is a Git LFS pointer, not the file itself. Fetch it with `git lfs pull`.")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """While what `path` holds is looked at: a name that it lacks, or sizes that cannot be, are a mistake in it."""
    try:
        yield
    except KeyError as error:
        raise DataError(f"{path} lacks {error}.") from error
    except (TypeError, ZeroDivisionError, IndexError, RuntimeError) as error:
        raise DataError(f"{path} holds something else than expected ({error}).") from error
