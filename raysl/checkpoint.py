"""Resumable states of a run: whole or absent, the newest ones kept.

A checkpoint holds weights, optimizer state and the optimizer step. The step is the whole position: rows, masks, views and
dropout of step n are drawn from (seed, n), so there is no generator state to keep.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raysl import storage

STATE = "state.pt"
_NAME = re.compile(r"step-(\d{9})")


@dataclass(frozen=True)
class Checkpoint:
    step: int
    """Optimizer steps that are done."""
    path: Path


def save(folder: Path, step: int, state: dict[str, Any], keep_last: int) -> Checkpoint:
    """Writes step-<n>/ under a temporary name and renames it, then drops older ones beyond `keep_last`."""
    path = folder / f"step-{step:09d}"
    with storage.atomic_path(path) as temporary:
        temporary.mkdir()
        torch.save(state, temporary / STATE)
    for old in list_all(folder)[:-keep_last]:
        storage.remove(old.path)
    return Checkpoint(step, path)


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
