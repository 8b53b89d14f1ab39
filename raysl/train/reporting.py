"""Where rank 0's numbers go: metrics.jsonl always, TensorBoard and MLflow where the config asks for them."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from raysl import storage
from raysl.run_config import RunConfig
from raysl.stage import log_metrics
from raysl.train.loop import Trainer

STAGE, METRICS = "pretrain", "metrics.jsonl"


class Writer(Protocol):
    """Takes the numbers of one step."""

    def write(self, stage: str, metrics: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """<run>/metrics.jsonl: what the driver, the report and the tests read."""

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder

    def write(self, stage: str, metrics: Mapping[str, Any]) -> None:
        log_metrics(self.run_folder, stage, **metrics)

    def close(self) -> None: ...


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

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """One MLflow run of the name of ours; a resumed start goes on in it."""

    def __init__(self, config: RunConfig, uri: str) -> None:
        import mlflow

        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(config.name)
        name = config.folder.as_posix()
        found = mlflow.search_runs(filter_string=f"tags.run_folder = '{name}'", output_format="list", max_results=1)
        mlflow.start_run(run_id=found[0].info.run_id if found else None, run_name=config.name)
        if not found:
            mlflow.set_tag("run_folder", name)
            mlflow.log_dict(config.model_dump(mode="json"), "config.json")
        self._mlflow = mlflow

    def write(self, stage: str, metrics: Mapping[str, Any]) -> None:
        numbers = {f"{stage}/{name}": value for name, value in _numbers(metrics).items()}
        self._mlflow.log_metrics(numbers, step=metrics["step"])

    def close(self) -> None:
        self._mlflow.end_run()


def writers(config: RunConfig, first_step: int) -> list[Writer]:
    """Those that the config asks for; a start that goes on at `first_step` replaces what lies after it."""
    found: list[Writer] = [JsonLines(config.folder)]
    if config.training.tensorboard:
        found.append(TensorBoard(config.folder, first_step))
    if config.training.mlflow:
        found.append(MLflow(config, config.training.mlflow))
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
    targets = writers(config, trainer.step)

    def report(metrics: dict[str, Any]) -> None:
        for writer in targets:
            writer.write(STAGE, metrics)
        hear(metrics)

    trainer.report = report
    try:
        yield
    finally:
        for writer in targets:
            writer.close()


def drop_metrics_after(run_folder: Path, step: int) -> None:
    """Removes lines that a killed run wrote after its last checkpoint, so that each step stands once."""
    path = run_folder / METRICS
    if not path.is_file():
        return
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    kept = [line for line in lines if line.get("stage") != STAGE or line.get("step", line.get("start", -1) + 1) <= step]
    storage.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


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
        lines = [json.loads(line) for line in text.splitlines() if line.startswith(b"{") and line.endswith(b"}")]
        return [line for line in lines if line.get("stage") == STAGE]


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
