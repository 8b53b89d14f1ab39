"""Where the numbers go, and what a start that goes on from a checkpoint does to those of steps it does again."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from raysl import run_config
from raysl.run_config import RunConfig
from raysl.train import record, signals
from raysl.train.config import PretrainConfig
from raysl.train.reporting import Followed, note_of, reporting
from raysl.train.world import MUST_END, STAYS, single


@pytest.fixture
def config(smallest_yaml: Path) -> RunConfig:
    found = run_config.load(smallest_yaml)
    found.folder.mkdir(parents=True, exist_ok=True)
    return found


TRAINING = PretrainConfig.model_validate({"objective": "bert", "model": "bert", "global_batch_size": 16})


@dataclass
class Rows:
    """As far as it is asked for."""

    number: int
    left_out: int = 0

    def __len__(self) -> int:
        return self.number


def trainer(step: int = 0, rank: int = 0) -> Any:
    world = SimpleNamespace(**{**vars(single("cpu")), "rank": rank})
    return SimpleNamespace(
        world=world, step=step, rows=Rows(2), held_out=range(100), report=None, precision=torch.float32, config=TRAINING
    )


def read(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]


def test_numbers_go_to_the_file_tensorboard_and_the_driver(config: RunConfig) -> None:
    heard: list[dict[str, Any]] = []
    one = trainer()
    with reporting(config, one, heard.append):
        one.report({"step": 1, "loss": 3.0})
        one.report({"step": 1, "held_out_loss": 2.5, "knn_accuracy": 0.5})
        one.report({"step": 2, "loss": 2.0})
    assert [(line["stage"], line.get("step")) for line in read(config)] == [("pretrain", n) for n in (None, 1, 1, 2)]
    assert heard[0] == {"start": 0, "rows": 2, "device": "cpu", "precision": "float32"}
    assert {"step": 1, "held_out_loss": 2.5, "knn_accuracy": 0.5} in heard
    events = next((config.folder / "tensorboard").glob("events.out.tfevents.*")).read_bytes()
    assert all(name in events for name in (b"pretrain/loss", b"pretrain/knn_accuracy"))


def test_steps_after_the_checkpoint_are_dropped_when_a_run_goes_on(config: RunConfig) -> None:
    one, again = trainer(), trainer(step=2)
    with reporting(config, one, lambda _: None):
        for step in (1, 2, 3):
            one.report({"step": step, "loss": 1.0})
    with reporting(config, again, lambda _: None):
        again.report({"step": 3, "loss": 0.5})
    assert [(line["step"], line["loss"]) for line in read(config) if "loss" in line] == [(1, 1.0), (2, 1.0), (3, 0.5)]
    assert [line["start"] for line in read(config) if "start" in line] == [0, 2]
    with reporting(config, trainer(), lambda _: None):  # `--redo`
        assert [line["start"] for line in read(config)] == [0]


def test_the_driver_follows_the_file_and_never_reads_half_a_line(config: RunConfig) -> None:
    followed, one = Followed(config.folder), trainer()
    assert followed.lines() == []
    with reporting(config, one, lambda _: None):
        one.report({"step": 1, "loss": 3.0})
    assert [line.get("step") for line in followed.lines()] == [None, 1]
    with open(followed.path, "a", encoding="utf-8") as file:
        file.write('{"stage": "prepare", "step": 1}\n{"stage": "pretrain", "st')
        file.flush()
        assert followed.lines() == []
        file.write('ep": 2}\n\n{"stage": "pretr\n')  # what a killed process began is left out
    assert followed.lines() == [{"stage": "pretrain", "step": 2}]


def test_a_line_that_a_stopped_machine_has_spoiled_ends_no_later_start(config: RunConfig) -> None:
    """A line lies behind zeros, or behind the half of another, which a later stage went on with."""
    path, good = config.folder / "metrics.jsonl", '{"stage": "prepare", "step": 1}'
    path.write_text(f'{good}\n\0\0\0{good}\n{{"stage": "pretr{good}\n')
    followed = Followed(config.folder)
    with reporting(config, trainer(), lambda _: None):
        assert [line["stage"] for line in read(config)] == ["prepare", "pretrain"]
    with open(path, "a", encoding="utf-8") as file:
        file.write(f'{{"stage": "pretr{good}\n')
    assert [line.get("start") for line in followed.lines()] == [0]


def test_the_driver_hears_nothing_of_an_earlier_start_and_all_of_one_that_replaces_its_lines(config: RunConfig) -> None:
    one = trainer()
    with reporting(config, one, lambda _: None):
        one.report({"step": 1, "loss": 3.0})
        one.report({"step": 2, "loss": 2.0})
    followed, again = Followed(config.folder), trainer(step=1)
    assert followed.lines() == []
    with reporting(config, again, lambda _: None):
        again.report({"step": 2, "loss": 1.5})
    assert [line.get("loss", "start") for line in followed.lines()] == ["start", 3.0, "start", 1.5]


def test_only_rank_0_speaks(config: RunConfig) -> None:
    other = trainer(rank=1)
    with reporting(config, other, lambda _: pytest.fail("rank 1 spoke")):
        assert other.report is None
    assert not (config.folder / "metrics.jsonl").exists()


def test_mlflow_gets_the_same_numbers(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlflow").as_uri()
    settings = config.training.model_copy(update={"mlflow": uri, "tensorboard": False})
    config = config.model_copy(update={"pretrain": settings})
    one = trainer()
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (raysl[mlflow])")
    with reporting(config, one, lambda _: None):
        one.report({"step": 1, "loss": 3.0})
    mlflow.set_tracking_uri(uri)
    found = mlflow.search_runs(experiment_names=[config.name], output_format="list")
    assert found[0].data.metrics["pretrain/loss"] == 3.0


class Away(ModuleType):
    """An mlflow whose server answers while `up`."""

    __version__ = "0"

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.up, self.logged, self.ended = True, list[int](), list[str]()

    def log_metrics(self, numbers: dict[str, float], step: int) -> None:
        self.start_run()
        self.logged.append(step)

    def start_run(self, **_: object) -> None:
        if not self.up:
            raise ConnectionError("the tracking server\nis down")

    def end_run(self, status: str) -> None:
        self.ended.append(status)

    def search_runs(self, **_: object) -> list[Any]:
        return []

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Away:
    module = Away()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setattr("raysl.train.reporting.MLFLOW_PAUSE_S", 0.0)
    return module


@pytest.mark.parametrize("up_at_the_start", [True, False])
def test_an_mlflow_server_that_is_away_for_a_while_is_told_once_and_costs_no_training(
    config: RunConfig, away: Away, up_at_the_start: bool
) -> None:
    settings = config.training.model_copy(update={"mlflow": "http://tracking:5000", "tensorboard": False})
    one, heard = trainer(), list[dict[str, Any]]()
    away.up = up_at_the_start
    with reporting(config.model_copy(update={"pretrain": settings}), one, heard.append):
        for step, up in enumerate((up_at_the_start, False, False, True)):
            away.up = up
            one.report({"step": step, "loss": 3.0})
    assert away.logged == ([0, 3] if up_at_the_start else [3])
    assert away.ended == ["FINISHED"]
    warnings = [line["warning"] for line in read(config) if "warning" in line]
    assert len(warnings) == 1
    assert warnings == [message["warning"] for message in heard if "warning" in message]
    assert "pretrain.mlflow=http://tracking:5000" in warnings[0]
    assert "ConnectionError: the tracking server is down" in warnings[0]
    assert [line["step"] for line in read(config) if "loss" in line] == [0, 1, 2, 3]


def test_a_training_that_fails_is_no_finished_run_in_mlflow(config: RunConfig, away: Away) -> None:
    settings = config.training.model_copy(update={"mlflow": "http://tracking:5000", "tensorboard": False})
    with pytest.raises(ValueError, match="ours"), reporting(
        config.model_copy(update={"pretrain": settings}), trainer(), lambda _: None
    ):  # fmt: skip
        raise ValueError("ours")
    assert away.ended == ["FAILED"]


@pytest.mark.parametrize(("num_rows", "num_ranks", "said"), [
    (8, 2, None), (7, 2, "embedding spread and effective rank"), (2, 3, "no held-out numbers"),
])  # fmt: skip
def test_too_few_held_out_rows_are_told(config: RunConfig, num_rows: int, num_ranks: int, said: str | None) -> None:
    one = trainer()
    one.held_out, one.world.size = range(num_rows), num_ranks
    with reporting(config, one, lambda _: None):
        pass
    warnings = [line["warning"] for line in read(config) if "warning" in line]
    if said is None:
        assert warnings == []
    else:
        assert len(warnings) == 1
        assert said in warnings[0]
        assert "prepare.split.validation" in warnings[0]


@pytest.mark.parametrize(("num_rows", "held_out", "said"), [
    (16, 8, []), (15, 8, ["15 train rows for batches of 16"]), (16, 1, ["1 held-out row, .*no held-out numbers"]),
])  # fmt: skip
def test_too_few_rows_to_compare_are_told(config: RunConfig, num_rows: int, held_out: int, said: list[str]) -> None:
    one = trainer()
    one.rows, one.held_out = Rows(num_rows), range(held_out)
    one.config = PretrainConfig.model_validate({**TRAINING.model_dump(), "objective": "contrastive_text"})
    with reporting(config, one, lambda _: None):
        pass
    warnings = [line["warning"] for line in read(config) if "warning" in line]
    assert [bool(re.match(pattern, warning)) for pattern, warning in zip(said, warnings, strict=True)] == [True] * len(said)


def test_lines_of_the_terminal_name_their_unit() -> None:
    line = note_of({"step": 1, "loss": 2.0, "images_per_second": 1234.5, "data_wait": 0.01, "learning_rate": 0.1,
                    "gradient_norm": 3.0, "seconds_left": 10.0})  # fmt: skip
    assert line.startswith("loss 2.000  1,234 images/s  data wait 1%")
    assert note_of({"step": 1, "held_out_loss": 1.5, "knn_accuracy": 0.25}) == "held-out loss 1.500  kNN 0.250"


def test_rows_of_a_step_that_was_done_again_count_as_the_last_start_did_it(tmp_path: Path) -> None:
    for first, rank, size, steps in ((0, 0, 1, {1: [5, 3], 2: [9, 9]}), (1, 0, 2, {2: [1]}), (1, 1, 2, {2: [0]})):
        one = record.RowRecord(tmp_path, first, rank, size)
        for step, rows in steps.items():
            one(step, rows)
    assert record.read(tmp_path) == {1: [3, 5], 2: [0, 1]}


def test_a_second_start_from_the_same_step_replaces_the_first_whatever_its_workers(tmp_path: Path) -> None:
    for size in (2, 1):
        for rank in range(size):
            record.RowRecord(tmp_path, 0, rank, size)(1, [rank, 10 + rank] if size == 2 else [0, 1, 10, 11])
    assert record.read(tmp_path) == {1: [0, 1, 10, 11]}


@pytest.fixture
def sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
    signals._asked.clear()
    signals._over.clear()


@pytest.mark.usefixtures("sigterm")
def test_sigterm_is_noted_first_and_ends_the_process_when_there_is_nothing_to_save() -> None:
    signals.listen()
    assert signals.asked_to_end() == STAYS
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.asked_to_end() == MUST_END
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
    signals._asked.clear()
    signals.over()
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("left_out", "said"), [(10, []), (30, ["30 of 120 train documents are too short for objective"])])
def test_documents_that_are_too_short_to_train_on_are_told(config: RunConfig, left_out: int, said: list[str]) -> None:
    one = trainer()
    one.rows = Rows(120 - left_out, left_out)
    with reporting(config, one, lambda _: None):
        pass
    warnings = [line["warning"] for line in read(config) if "warning" in line]
    assert [warning[: len(text)] for text, warning in zip(said, warnings, strict=True)] == said


@pytest.mark.parametrize(("optimizer", "told"), [
    ({"type": "lars"}, True), ({"type": "lars", "learning_rate": 0.3}, False), ({}, False),
    ({"type": "lars", "learning_rate": 0.3, "scale": "linear", "reference_batch_size": 4096}, True),
])  # fmt: skip
def test_a_rate_at_which_lars_leaves_the_weights_as_they_are_is_told(
    config: RunConfig, optimizer: dict[str, Any], told: bool
) -> None:
    """The default rate is AdamW's: with it LARS moves a matrix by a hundredth in a thousand steps."""
    one = trainer()
    one.config = PretrainConfig.model_validate({**TRAINING.model_dump(), "optimizer": optimizer})
    with reporting(config, one, lambda _: None):
        pass
    warnings = [line["warning"] for line in read(config) if "warning" in line]
    assert [warning.startswith("lars moves a matrix by 0.01") for warning in warnings] == [True] * told
