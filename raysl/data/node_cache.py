"""Files that the processes of one node share: one makes a file, the others wait for it, none goes while it is held.

To hold a file is to have a shared lock (flock) on a file beside it. The system lets go of the lock when a process dies, so
a killed rank leaves nothing behind that blocks the others.
"""

import fcntl
import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Container
from pathlib import Path

from raysl import storage
from raysl.errors import StoreError

LOCK = ".lock"
Make = Callable[[str, Path], None]
"""make(name, path) writes the file `name` to `path`, or raises."""


class NodeCache:
    """One folder on a node's own disk; safe for any number of threads and processes."""

    def __init__(self, folder: Path, make: Make) -> None:
        self.folder, self.make = folder, make
        self._held: dict[str, int] = {}
        self._mine: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def hold(self, name: str) -> Path:
        """The file, made unless it is there; it stays until `let_go`."""
        path = self.folder / name
        with self._mine[name]:
            if name not in self._held:
                self._held[name] = self._locked(name, path)
        return path

    def _locked(self, name: str, path: Path) -> int:
        """Descriptor of a shared lock under which the file is there."""
        lock = self._lock(name)
        try:
            while True:
                fcntl.flock(lock, fcntl.LOCK_SH)  # waits while another process makes it
                if path.is_file():
                    return lock
                if not _alone(lock):  # whoever makes it may hold it long: wait for the file, not for them to let go
                    time.sleep(random.uniform(0.001, 0.02))
                elif not path.is_file():
                    self._make(name, path)
        except BaseException:
            os.close(lock)
            raise

    def _make(self, name: str, path: Path) -> None:
        for left in path.parent.glob(f".{path.name}.*.tmp"):  # by a maker that was killed
            storage.remove(left)
        try:
            with storage.atomic_path(path) as temporary:
                self.make(name, temporary)
        except OSError as error:
            raise _cannot_be_written(path, error) from error

    def let_go(self, name: str) -> bool:
        """Gives the file up and removes it unless another process holds it; whether it is gone."""
        with self._mine[name]:
            lock = self._held.pop(name, None)
            lock = self._lock(name) if lock is None else lock
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (self.folder / name).unlink(missing_ok=True)
            except BlockingIOError:
                return False
            finally:
                os.close(lock)
        return True

    def names(self) -> list[str]:
        """Files that are there."""
        return [path.name for path in self.folder.glob("*") if path.suffix != LOCK and not path.name.startswith(".")]

    def clear(self, but: Container[str] = ()) -> bool:
        """Lets go of all files except `but`; whether the others are gone."""
        gone = [self.let_go(name) for name in self.names() if name not in but]
        return all(gone)

    def _lock(self, name: str) -> int:
        path = self.folder / f"{name}{LOCK}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _cannot_be_written(path, error) from error


def _cannot_be_written(path: Path, error: OSError) -> StoreError:
    """May meet this node alone."""
    return StoreError(
        f"{path} cannot be written: {error}. Name a folder with more room in pretrain.feed.cache_dir, "
        f"or lower pretrain.window_shards."
    )


def _alone(lock: int) -> bool:
    """Makes our lock exclusive; where another process has one too, we have none afterwards."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(lock, fcntl.LOCK_UN)
        return False
    return True
