"""Resumable states of a run: whole or absent, written beside the training; the newest ones and the best are kept.

A checkpoint holds weights, optimizer state and the optimizer step. The step is the whole position: rows, masks and views of
step n are drawn from (seed, n), dropout from (seed, n, rank), so there is no generator state to keep.
"""

import logging
import re
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from raysl import storage
from raysl.errors import DataError

logger = logging.getLogger(__name__)

STATE, SCORE = "state.pt", "score.json"
_NAME = re.compile(r"step-(\d{9})")


@dataclass(frozen=True)
class Checkpoint:
    step: int
    """Optimizer steps that are done."""
    path: Path

    @property
    def score(self) -> float | None:
        """How good its weights are, more is better; None where they were not measured, or the file is cut short."""
        try:
            return float(storage.read_json(self.path / SCORE)["score"])
        except DataError:
            return None

    @property
    def whole(self) -> bool:
        """Whether all of the state is there: reads the file once and compares its checksums."""
        try:
            with zipfile.ZipFile(self.path / STATE) as parts:
                return parts.testzip() is None
        except (FileNotFoundError, EOFError, zipfile.BadZipFile):
            return False


def save(folder: Path, step: int, state: Mapping[str, Any], keep_last: int, score: float | None = None) -> Checkpoint:
    """Writes step-<n>/ under a temporary name and renames it, then drops older ones beyond `keep_last` but the best.

    It is on disk when this returns, also where the machine stops next. One that is there already, saved on notice before
    its weights were measured, gets its score.
    """
    checkpoint = at(folder, step)
    if not checkpoint.path.is_dir():
        with storage.atomic_path(checkpoint.path) as temporary:
            temporary.mkdir()
            torch.save(state, temporary / STATE)
            storage.sync(temporary / STATE)
            _write_score(temporary, score)
            storage.sync(temporary)
    elif checkpoint.score is None:
        _write_score(checkpoint.path, score)
    storage.sync(folder)
    kept = best(folder)
    for old in list_all(folder)[:-keep_last]:
        if old != kept:
            storage.remove(old.path)
    return checkpoint


def _write_score(path: Path, score: float | None) -> None:
    if score is not None:
        storage.write_json(path / SCORE, {"score": score})
        storage.sync(path / SCORE)


def at(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of a step, there or not."""
    return Checkpoint(step, folder / f"step-{step:09d}")


def load(checkpoint: Checkpoint, device: torch.device) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(checkpoint.path / STATE, map_location=device, weights_only=True)
    return state


def list_all(folder: Path) -> list[Checkpoint]:
    """Finished checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((Checkpoint(int(m[1]), path) for m, path in found if m), key=lambda c: c.step)


def latest(folder: Path) -> Checkpoint | None:
    found = list_all(folder)
    return found[-1] if found else None


def best(folder: Path) -> Checkpoint | None:
    """The one with the highest score, the newest of equal ones; None where none was measured."""
    scored = [(score, c) for c in list_all(folder) if (score := c.score) is not None]
    return max(scored, key=lambda pair: (pair[0], pair[1].step))[1] if scored else None


def whole(find: Callable[[Path], Checkpoint | None], folder: Path) -> Checkpoint | None:
    """The first that `find` (`latest` or `best`) gives and that is whole.

    Others, cut short when a machine stopped, are renamed, so that no list has them and their steps can be saved again.
    """
    while (found := find(folder)) is not None and not found.whole:
        aside = found.path.with_name(f"unreadable-{found.path.name}")
        storage.remove(aside)
        found.path.rename(aside)
        logger.warning(
            "The checkpoint of step %d cannot be read and is %s now; the one before it is taken.", found.step, aside
        )
    return found


def snapshot(value: Any) -> Any:
    """The same nested state with every tensor copied to CPU memory, so that training may go on changing its own."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: snapshot(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(inner) for inner in value)
    return value


@dataclass
class Writer:
    """Saves checkpoints from a thread: a step waits for the copy in memory, not for the disk.

    One write at a time, so at most one copy of the state is held; a second `save` waits for the first. An error of the disk
    is raised at the next `save` or at the end of the block.
    """

    folder: Path
    keep_last: int
    write: Callable[..., Checkpoint] = save
    _pending: Future[Checkpoint] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        return self

    def save(self, step: int, state: Mapping[str, Any], score: float | None = None) -> None:
        self.wait()
        self._pending = self._thread.submit(self.write, self.folder, step, snapshot(state), self.keep_last, score)

    def wait(self) -> None:
        """Returns when everything that was saved is on disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
