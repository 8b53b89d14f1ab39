"""The stage `pretrain`: prepared shards in, an encoder out."""

from typing import Any

from raysl import storage
from raysl.data.prepared import Prepared
from raysl.progress import Progress, say
from raysl.run_config import RunConfig
from raysl.stage import Manifest, Stage, check_same_config, section

OUTPUTS = ("model.safetensors", "model.json")


def stage_of(config: RunConfig) -> Stage:
    """Raises StageError where there are no prepared outputs."""
    settings = {"seed": config.seed, **section(config, "pretrain")}
    return Stage(config.folder, "pretrain", settings, {"prepare": Prepared.of(config).manifest.content_hash})


def pretrain(config: RunConfig, redo: bool = False) -> Manifest:
    """Trains the encoder with the objective of the YAML on Ray Train.

    Killed at any moment and started again, it goes on from the newest checkpoint.
    """
    stage = stage_of(config)
    done = stage.done()
    if done is not None:
        say(f"pretrain: done already  {stage.folder}")
        return done
    check_same_config(stage, redo)
    stage.begin()
    from raysl import cluster
    from raysl.train import run

    say(f"pretrain: starting {config.training.num_workers} workers")
    cluster.connect()
    settings = config.training
    with Progress(f"pretrain: {settings.objective.type}", settings.max_steps, "steps") as progress:
        result = run.train(config, lambda message: _show(progress, message))
        progress.set(settings.max_steps)
    metrics = {name: value for name, value in result.items() if name not in ("train_rows", "parameters")}
    counts = {name: result[name] for name in ("train_rows", "parameters")} | {"steps": settings.max_steps}
    return stage.finish(counts, metrics, {name: storage.hash_file(stage.folder / name) for name in OUTPUTS})


def _show(progress: Progress, message: dict[str, Any]) -> None:
    if "start" in message:
        progress.start_at(message["start"])
    elif "loss" in message:
        note = f"loss {message['loss']:.3f}  {message['rows_per_second']:,.0f} rows/s  data wait {message['data_wait']:.0%}"
        progress.set(message["step"], note)
    elif "held_out_loss" in message:
        progress.set(message["step"], f"held-out loss {message['held_out_loss']:.3f}")
