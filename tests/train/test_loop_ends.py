"""How a run of the loop ends: numbers that are none, notices, a collapse; and which weights it keeps."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from raysl import checkpoint
from raysl.data.shards import TokenRows
from raysl.errors import ConfigError, TrainingError
from raysl.train import loop
from raysl.train.loop import Trainer
from raysl.train.world import MUST_END, NODE_LEAVES, STAYS, World, single
from tests.loop_runs import config_of, loop_shards, trainer_of, weights


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return loop_shards(tmp_path_factory.mktemp("shards"))


def test_a_loss_that_is_no_number_stops_and_names_the_key(shards: Path) -> None:
    trainer = trainer_of(shards, "bert", config_of("bert", max_steps=3), single("cpu"))
    with torch.no_grad():
        trainer.objective.encoder.tokens.weight[:] = float("nan")
    with pytest.raises(TrainingError, match=r"pretrain\.optimizer\.learning_rate"):
        trainer.run()


def spoil_at(trainer: Trainer, step: int) -> None:
    """After this step the weights are no numbers."""

    def spoil(done: int, numbers: Sequence[int]) -> None:
        if done == step:
            with torch.no_grad():
                trainer.objective.encoder.tokens.weight[:] = float("nan")

    trainer.record = spoil


def test_weights_that_are_no_numbers_are_not_saved_between_logged_steps(shards: Path, tmp_path: Path) -> None:
    config = config_of("bert", log_every_steps=100, checkpoint={"every_steps": 3})
    trainer = trainer_of(shards, "bert", config, single("cpu"), checkpoints=tmp_path)
    spoil_at(trainer, 2)
    with pytest.raises(TrainingError, match=r"no number at step 3\. Lower pretrain\.optimizer\.learning_rate"):
        trainer.run()
    assert checkpoint.latest(tmp_path) is None


def test_an_evaluation_of_weights_that_are_no_numbers_names_the_key(shards: Path) -> None:
    trainer = trainer_of(shards, "bert", config_of("bert", evaluate_every_steps=2), single("cpu"))
    trainer.held_out = TokenRows(shards, "packed", 16)
    spoil_at(trainer, 2)
    with pytest.raises(TrainingError, match=r"no number at step 2\. Lower pretrain\.optimizer\.learning_rate"):
        trainer.run()


def test_the_best_by_a_probe_without_labels_is_refused(shards: Path) -> None:
    with pytest.raises(ConfigError, match=r"best_by=knn_accuracy needs labels.*pretrain\.probe\.source"):
        trainer_of(shards, "bert", config_of("bert", checkpoint={"best_by": "knn_accuracy"}), single("cpu"))


def test_the_saved_model_is_the_average_and_the_best_where_asked(shards: Path, tmp_path: Path) -> None:
    held_out = TokenRows(shards, "packed", 16)
    settings = {"max_steps": 8, "evaluate_every_steps": 2, "checkpoint": {"every_steps": 8, "save_model": "best"}}
    trainer = trainer_of(shards, "bert", config_of("bert", ema_decay=0.9, **settings), single("cpu"))
    trainer.held_out, trainer.checkpoints = held_out, tmp_path
    losses: dict[int, float] = {}
    trainer.report = lambda m: losses.__setitem__(m["step"], m["held_out_loss"]) if "held_out_loss" in m else None
    last = trainer.run()
    best = checkpoint.best(tmp_path)
    assert best is not None
    assert best.step == trainer.kept == min(losses, key=losses.__getitem__)
    kept = checkpoint.load(best, torch.device("cpu"))["average"]
    assert all(torch.equal(kept[name], value) for name, value in trainer.objective.state_dict().items())
    assert last["held_out_loss"] == pytest.approx(losses[best.step])


def test_a_run_tells_the_numbers_of_the_weights_that_it_keeps(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here those of step 4, which a start measured that was killed afterwards."""
    losses, seen = iter([3.0, 1.0, 2.0]), dict[float, float]()
    monkeypatch.setattr(Trainer, "measure", lambda trainer: {"held_out_loss": _loss_of(trainer, seen, losses)})
    settings = {"evaluate_every_steps": 2, "checkpoint": {"every_steps": 100, "save_model": "best"}}
    assert told_at(shards, tmp_path, {5: MUST_END}, log_every_steps=1, max_steps=6, **settings) == [4, 5]
    again = trainer_of(shards, "bert", config_of("bert", max_steps=6, **settings), single("cpu"), checkpoints=tmp_path)
    assert again.run() == {"held_out_loss": 1.0}
    assert (again.kept, again.step) == (4, 6)


def _loss_of(trainer: Trainer, seen: dict[float, float], losses: Iterator[float]) -> float:
    """The same for the same weights, else the next one."""
    key = float(weights(trainer).sum())
    if key not in seen:
        seen[key] = next(losses)
    return seen[key]


def told_at(shards: Path, folder: Path, notices: dict[int, int], **settings: object) -> list[int]:
    """Steps of the checkpoints of a run that is told of its end at some steps; none is due before the last one."""
    told = {"now": STAYS}
    world = World(0, 1, torch.device("cpu"), lambda: told["now"])
    config = config_of("bert", **{"max_steps": 9, "checkpoint": {"every_steps": 100}, **settings})
    trainer = trainer_of(shards, "bert", config, world, checkpoints=folder)
    trainer.record = lambda step, rows: told.update(now=notices.get(step, told["now"]))
    with pytest.raises(SystemExit) if MUST_END in notices.values() else nullcontext():
        trainer.run()
    return [found.step for found in checkpoint.list_all(folder)]


def test_a_notice_saves_at_once_and_sigterm_ends_the_process(shards: Path, tmp_path: Path) -> None:
    assert told_at(shards, tmp_path, {3: NODE_LEAVES, 7: MUST_END}, log_every_steps=100) == [3, 7]


@pytest.mark.parametrize("notice", [NODE_LEAVES, MUST_END])
def test_weights_saved_on_notice_at_the_last_step_are_measured_and_kept(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notice: int
) -> None:
    """Where they are the best, and in the same process or the next one."""
    losses = iter([3.0, 1.0])
    monkeypatch.setattr(Trainer, "measure", lambda trainer: {"held_out_loss": next(losses)})
    settings: dict[str, Any] = {"evaluate_every_steps": 5, "checkpoint": {"every_steps": 100, "save_model": "best"}}
    told_at(shards, tmp_path, {9: notice}, log_every_steps=100, **settings)
    if notice == MUST_END:
        again = trainer_of(shards, "bert", config_of("bert", max_steps=9, **settings), single("cpu"), checkpoints=tmp_path)
        again.run()
    best = checkpoint.best(tmp_path)
    assert best is not None
    assert best.step == 9


def test_a_run_goes_on_from_the_newest_checkpoint_that_can_be_read(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of("bert", checkpoint={"every_steps": 2, "keep_last": 3})
    first = trainer_of(shards, "bert", config, single("cpu"), checkpoints=tmp_path)
    first.run()
    (checkpoint.at(tmp_path, 6).path / checkpoint.STATE).write_bytes(b"")
    again = trainer_of(shards, "bert", config, single("cpu"), checkpoints=tmp_path)
    assert (again.step, len(caplog.messages)) == (4, 1)
    again.run()
    assert checkpoint.at(tmp_path, 6).whole
    assert torch.equal(weights(again), weights(first))


def test_what_a_notice_saves_are_numbers_and_it_waits_for_no_evaluation(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_evaluate", lambda trainer: pytest.fail("it was evaluated first"))
    assert told_at(shards, tmp_path / "good", {4: MUST_END}, log_every_steps=100, evaluate_every_steps=4) == [4]
    monkeypatch.setattr(Trainer, "measure", lambda trainer: {})
    with pytest.raises(TrainingError, match="no number at step 4"):
        told_at(shards, tmp_path / "bad", {4: MUST_END}, log_every_steps=100, optimizer={"learning_rate": 1e30})
    assert checkpoint.latest(tmp_path / "bad") is None


def test_short_steps_are_not_held_up_by_looking_for_a_notice(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between logged steps the ranks ask each other every few seconds, as the speed of the last window has it."""
    monkeypatch.setattr(loop, "NOTICE_S", 1e6)
    assert told_at(shards, tmp_path / "seldom", {3: NODE_LEAVES, 5: MUST_END}, log_every_steps=2) == [4, 6]
    monkeypatch.setattr(loop, "NOTICE_S", 1e-6)
    assert told_at(shards, tmp_path / "often", {3: NODE_LEAVES, 5: MUST_END}, log_every_steps=2) == [3, 5]


def test_a_collapsed_encoder_stops_the_run_and_names_the_key(shards: Path) -> None:
    config = config_of("bert", max_steps=9, evaluate_every_steps=1, health={"patience": 2})
    trainer = trainer_of(shards, "bert", config, single("cpu"))
    trainer.held_out = TokenRows(shards, "packed", 16)
    trainer.objective.embed = lambda inputs: torch.ones(len(inputs), 16) / 4  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"Embeddings have collapsed: at step 2 .*pretrain\.health\.patience"):
        trainer.run()
