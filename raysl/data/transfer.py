"""Single files between a node's disk and an object store; a store that fails is asked again."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from raysl.data.sources import stores
from raysl.errors import StoreError

PAUSES_S = (0.5, 2.0, 8.0)
"""Between two attempts; the store's own client has made several in each of them."""
CHUNK = 1 << 22

T = TypeVar("T")


def fetch(uri: str, path: Path, content_hash: str | None = None) -> None:
    """Writes the file at `uri` to `path`. Raises StoreError when no attempt gave the bytes that `content_hash` names."""

    def attempt() -> None:
        digest = hashlib.sha256()
        with stores.open_bytes(uri) as source, open(path, "wb") as target:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                target.write(chunk)
        if content_hash is not None and digest.hexdigest() != content_hash:
            raise _OtherBytes(f"its bytes are not those that its manifest names (sha256 {digest.hexdigest()[:12]}...)")

    patiently(attempt, f"{uri} cannot be read")


def read(uri: str) -> bytes:
    def attempt() -> bytes:
        with stores.open_bytes(uri) as source:
            return source.read()

    return patiently(attempt, f"{uri} cannot be read")


def send(path: Path, uri: str) -> None:
    """Writes a file to a store. One that is interrupted may stay there, shorter."""

    def attempt() -> None:
        with open(path, "rb") as source, stores.create(uri) as target:
            while chunk := source.read(CHUNK):
                target.write(chunk)

    patiently(attempt, f"{uri} cannot be written")


class _OtherBytes(OSError):
    pass


def patiently(attempt: Callable[[], T], failure: str) -> T:
    """Tries once more after each pause; a file that is not there is not waited for."""
    for pause in (*PAUSES_S, None):
        try:
            return attempt()
        except FileNotFoundError as error:
            raise StoreError(f"{failure}: it is not there. Was everything copied there (prepare.copy_to)?") from error
        except OSError as error:
            if pause is None:
                tries = len(PAUSES_S) + 1
                raise StoreError(
                    f"{failure} after {tries} attempts: {error}. Check the store, the network and the credentials."
                ) from error
            time.sleep(pause)
    raise AssertionError
