"""Checkpoints on disk: whole or absent, written beside the training, the newest and the best kept."""

import threading
from collections.abc import Callable
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


def test_a_checkpoint_saved_on_notice_gets_its_score_when_it_is_measured(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 10, {"step": 10}, keep_last=2)
    assert checkpoint.save(tmp_path, 10, {"step": 10}, keep_last=2, score=5.0).score == 5.0
    assert checkpoint.best(tmp_path) == checkpoint.at(tmp_path, 10)
    assert checkpoint.save(tmp_path, 10, {"step": 10}, keep_last=2).score == 5.0


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def zero(path: Path) -> None:
    """As blocks that were never written read."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3] + bytes(400) + data[len(data) // 3 + 400 :])


@pytest.mark.parametrize("spoil", [lambda p: cut(p, 0), lambda p: cut(p, 0.5), zero, Path.unlink])
def test_one_that_is_not_whole_is_set_aside_with_a_warning(
    tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"w": torch.arange(1000.0)}, keep_last=3, score=step)
    spoil(tmp_path / "step-000000003" / checkpoint.STATE)
    assert checkpoint.whole(checkpoint.latest, tmp_path) == checkpoint.at(tmp_path, 2)
    assert checkpoint.whole(checkpoint.best, tmp_path) == checkpoint.at(tmp_path, 2)
    assert checkpoint.latest(tmp_path) == checkpoint.at(tmp_path, 2)
    (warning,) = caplog.messages
    assert "step 3 cannot be read" in warning
    assert "unreadable-step-000000003" in warning
    assert checkpoint.save(tmp_path, 3, {}, keep_last=3).whole, "the broken one is in the way"


def test_a_score_that_was_cut_short_is_none(tmp_path: Path) -> None:
    cut(checkpoint.save(tmp_path, 1, {}, keep_last=1, score=1.0).path / checkpoint.SCORE, 0)
    assert checkpoint.best(tmp_path) is None


def test_all_of_a_checkpoint_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = list[str]()
    monkeypatch.setattr(storage, "sync", lambda path: synced.append(path.name if path != tmp_path else str(path.exists())))
    path = checkpoint.save(tmp_path, 1, {}, keep_last=1, score=1.0).path
    assert synced[:2] == [checkpoint.STATE, checkpoint.SCORE]
    assert synced[2].startswith(f".{path.name}.")
    assert synced[3:] == ["True"]


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
