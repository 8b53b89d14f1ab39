"""Checkpoints on disk: whole or absent, written beside the training, the newest and the best kept."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from raysl import checkpoint, storage


def test_only_whole_checkpoints_count_and_old_ones_go(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"step": step}, keep_last=2)
    (tmp_path / ".step-000000009.123.tmp").mkdir()
    assert [c.step for c in checkpoint.list_all(tmp_path)] == [2, 3]
    latest = checkpoint.latest(tmp_path)
    assert latest is not None
    assert checkpoint.load(latest, torch.device("cpu")) == {"step": 3}
    storage.remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000002", "step-000000003"]


def test_the_best_one_stays_beside_the_last(tmp_path: Path) -> None:
    for step, score in ((1, 0.2), (2, 0.9), (3, None), (4, 0.5), (5, None)):
        checkpoint.save(tmp_path, step, {}, keep_last=1, score=score)
    assert [c.step for c in checkpoint.list_all(tmp_path)] == [2, 5]
    best = checkpoint.best(tmp_path)
    assert best is not None
    assert (best.step, best.score) == (2, 0.9)


def test_a_step_does_not_wait_for_the_disk_and_later_steps_do_not_change_what_is_written(tmp_path: Path) -> None:
    disk = threading.Event()

    def slow(*arguments: Any) -> checkpoint.Checkpoint:
        assert disk.wait(30)
        return checkpoint.save(*arguments)

    weights = torch.zeros(3)
    with checkpoint.Writer(tmp_path, 2, slow) as writer:
        writer.save(1, {"model": {"weight": weights}})
        weights += 1  # the next step, while the disk is still busy
        assert checkpoint.latest(tmp_path) is None
        disk.set()
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert torch.equal(checkpoint.load(found, torch.device("cpu"))["model"]["weight"], torch.zeros(3))


def test_an_error_of_the_disk_is_not_lost(tmp_path: Path) -> None:
    def full(*_: Any) -> checkpoint.Checkpoint:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"), checkpoint.Writer(tmp_path, 2, full) as writer:
        writer.save(1, {})
