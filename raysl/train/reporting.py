"""Where rank 0's numbers go: metrics.jsonl always, TensorBoard and MLflow where the config asks for them."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from raysl import storage
from raysl.run_config import RunConfig
from raysl.stage import log_metrics, whole_lines
from raysl.train.evaluate import too_few
from raysl.train.loop import Trainer
from raysl.train.optimizers import too_slow

STAGE, METRICS = "pretrain", "metrics.jsonl"
MLFLOW_PAUSE_S = 60.0
MLFLOW_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Training waits for each call; by default its client tries for minutes. What the user has set stays."""


class Writer(Protocol):
    """Takes the numbers of one step."""

    def write(self, stage: str, metrics: Mapping[str, Any]) -> None: ...

    def close(self, failed: bool) -> None:
        """`failed`: the training ended with an error."""


class JsonLines:
    """<run>/metrics.jsonl: what the driver, the report and the tests read."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder

    def write(self, stage: str, metrics: Mapping[str, Any]) -> None:
        log_metrics(self.run_folder, stage, **metrics)

    def close(self, failed: bool) -> None: ...


class TensorBoard:
    """<run>/tensorboard, for `tensorboard --logdir`; written with tensorboardX, which Ray brings along."""

    def __init__(self, run_folder: Path, first_step: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(
            str(run_folder / "tensorboard"), purge_step=first_step + 1, max_queue=100, flush_secs=10
        )

    def write(self, stage: str, metrics: Mapping[str, Any]) -> None:
        for name, value in _numbers(metrics).items():
            self._writer.add_scalar(f"{stage}/{name}", value, metrics["step"])

    def close(self, failed: bool) -> None:
        self._writer.close()


class MLflow:
    """One MLflow run of the name of ours; a resumed start goes on in it.

    What its server refuses is told once and left out, and asked for no sooner than MLFLOW_PAUSE_S later: metrics.jsonl is
    the record.
    """

    def __init__(self, config: RunConfig, uri: str, warn: Callable[[str], None]) -> None:
        for name, value in MLFLOW_PATIENCE.items():
            os.environ.setdefault(name, value)
        self._config, self._uri, self._warn = config, uri, warn
        self._mlflow: Any = None
        """None until a run is open there."""
        self._told, self._not_before = False, 0.0
        self._attempt(self._begin)

    def _begin(self) -> None:
        import mlflow

        mlflow.set_tracking_uri(self._uri)
        mlflow.set_experiment(self._config.name)
        name = self._config.folder.as_posix()
        found = mlflow.search_runs(filter_string=f"tags.run_folder = '{name}'", output_format="list", max_results=1)
        mlflow.start_run(run_id=found[0].info.run_id if found else None, run_name=self._config.name)
        self._mlflow = mlflow
        if not found:
            mlflow.set_tag("run_folder", name)
            mlflow.log_dict(self._config.model_dump(mode="json"), "config.json")

    def _attempt(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # its clients and stores raise what they like
            self._not_before = time.monotonic() + MLFLOW_PAUSE_S
            if not self._told:
                said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                self._warn(f"MLflow lacks numbers, which metrics.jsonl has: pretrain.mlflow={self._uri} ({said}).")
            self._told = True

    def write(self, stage: str, metrics: Mapping[str, Any]) -> None:
        if time.monotonic() < self._not_before:
            return
        if self._mlflow is None:
            self._attempt(self._begin)
        if self._mlflow is not None:
            numbers = {f"{stage}/{name}": value for name, value in _numbers(metrics).items()}
            self._attempt(lambda: self._mlflow.log_metrics(numbers, step=metrics["step"]))

    def close(self, failed: bool) -> None:
        if self._mlflow is not None:
            self._attempt(lambda: self._mlflow.end_run("FAILED" if failed else "FINISHED"))


def writers(config: RunConfig, first_step: int, warn: Callable[[str], None]) -> list[Writer]:
    """Those that the config asks for; a start that goes on at `first_step` replaces what lies after it."""
    found: list[Writer] = [JsonLines(config.folder)]
    if config.training.tensorboard:
        found.append(TensorBoard(config.folder, first_step))
    if config.training.mlflow:
        found.append(MLflow(config, config.training.mlflow, warn))
    return found


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float) and name != "step"}


@contextmanager
def reporting(config: RunConfig, trainer: Trainer, hear: Callable[[dict[str, Any]], object]) -> Iterator[None]:
    """Rank 0's numbers go to all writers and to `hear`, after one line on where the training starts."""
    if trainer.world.rank != 0:
        yield
        return
    drop_metrics_after(config.folder, trainer.step)
    start = {
        "start": trainer.step, "rows": len(trainer.rows),
        "device": trainer.world.device.type, "precision": str(trainer.precision).removeprefix("torch."),
    }  # fmt: skip
    log_metrics(config.folder, STAGE, **start)
    hear(start)

    def warn(text: str) -> None:
        log_metrics(config.folder, STAGE, warning=text)
        hear({"warning": text})

    lacking = too_few(trainer.rows, trainer.held_out, trainer.config, trainer.world.size)
    for said in [*lacking, *too_slow(trainer.config)]:
        warn(said)
    targets = writers(config, trainer.step, warn)

    def report(metrics: dict[str, Any]) -> None:
        for writer in targets:
            writer.write(STAGE, metrics)
        hear(metrics)

    trainer.report = report
    failed = True
    try:
        yield
        failed = False
    finally:
        for writer in targets:
            writer.close(failed)


def drop_metrics_after(run_folder: Path, step: int) -> None:
    """Removes lines that a killed run wrote after its last checkpoint, so that each step stands once, and its warnings."""
    path = run_folder / METRICS
    if not path.is_file():
        return
    lines = whole_lines(path.read_bytes())
    kept = [line for line in lines if line.get("stage") != STAGE or _done_by(line, step)]
    storage.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def _done_by(line: Mapping[str, Any], step: int) -> bool:
    return "warning" not in line and int(line.get("step", line.get("start", -1) + 1)) <= step


class Followed:
    """What rank 0 adds to metrics.jsonl, for the driver: no actor and no message takes time from the training."""

    def __init__(self, run_folder: Path) -> None:
        self.path = run_folder / METRICS
        self._file, self._read = 0, 0
        self.lines()

    def lines(self) -> list[dict[str, Any]]:
        """The whole lines since the last call; all of them again once a start has written the file anew."""
        try:
            with open(self.path, "rb") as file:
                number = os.fstat(file.fileno()).st_ino
                if number != self._file:
                    self._file, self._read = number, 0
                file.seek(self._read)
                text = file.read()
                text = text[: text.rfind(b"\n") + 1]  # the last line may be half written
                self._read += len(text)
        except OSError:  # not there yet, or replaced while it was read: progress is worth no failure
            return []
        return [line for line in whole_lines(text) if line.get("stage") == STAGE]


def note_of(message: dict[str, Any]) -> str:
    """One line of numbers, from training or from an evaluation."""
    if "loss" in message:
        unit = "tokens" if "tokens_per_second" in message else "images"
        return (
            f"loss {message['loss']:.3f}  {message[f'{unit}_per_second']:,.0f} {unit}/s  "
            f"data wait {message['data_wait']:.0%}  rate {message['learning_rate']:.2g}  norm {message['gradient_norm']:.2g}"
        )
    names = {"held_out_loss": "held-out loss", "knn_accuracy": "kNN", "embedding_spread": "spread", "effective_rank": "rank"}
    return "  ".join(f"{short} {message[name]:.3f}" for name, short in names.items() if name in message)
