"""The stage `pretrain`: prepared shards in, an encoder out."""

import importlib.util
from pathlib import Path
from typing import Any

from raysl import storage
from raysl.data.prepared import Prepared
from raysl.errors import ConfigError
from raysl.progress import Progress, say
from raysl.run_config import RunConfig
from raysl.stage import WAY_OUT, Manifest, Stage, check_same_config, check_same_inputs, read_manifest, section, usual_limits
from raysl.train.config import PretrainConfig

OUTPUTS = ("model.safetensors", "model.json")


def stage_of(config: RunConfig) -> Stage:
    """Raises StageError where there are no prepared outputs."""
    settings = {"seed": config.seed, **section(config, "pretrain")}
    prepared = Prepared.of(config)
    inputs, places = {"prepare": prepared.manifest.content_hash}, {}
    own = read_manifest(config.folder, "prepare")
    if own is None or own.content_hash != inputs["prepare"]:  # a copy of the run's own is as good as its own
        places["prepare"] = f"pretrain.feed.shards={config.training.feed.shards}"
    if config.training.init_from is not None:
        from raysl.train import start

        inputs |= start.check(Path(config.training.init_from), config.training.model, prepared)
        places["init_from"] = f"pretrain.init_from={config.training.init_from}"
    return Stage(config.folder, "pretrain", settings, inputs, usual_limits(config, "pretrain"), places)


def begin(config: RunConfig, redo: bool = False, way_out: str = WAY_OUT) -> tuple[Stage, Manifest | None]:
    """The stage, its folder ready for the work; the manifest where the work is done already.

    Raises ConfigError where the folder holds other work that would go.
    """
    stage = stage_of(config)
    done = stage.done()
    if done is not None:
        say(f"pretrain: done already  {stage.folder}")
        return stage, done
    check_earlier(stage, redo, way_out)
    check_mlflow(config.training)
    stage.begin()
    return stage, None


def pretrain(config: RunConfig, redo: bool = False) -> Manifest:
    """Trains the encoder with the objective of the YAML on Ray Train.

    Killed at any moment and started again, it goes on from the newest checkpoint.
    """
    stage, done = begin(config, redo)
    if done is not None:
        return done
    from raysl import cluster

    settings = config.training
    say(f"pretrain: starting {_workers(settings)}")
    cluster.connect(importing="torch")
    from raysl.train import optimizers, run

    say(f"pretrain: peak learning rate {optimizers.peak_rate(settings.optimizer, settings.global_batch_size):.3g}")
    with Progress(f"pretrain: {settings.objective.type}", settings.max_steps, "steps") as progress:
        result = run.train(config, _Shown(progress, stage))
        progress.set(settings.max_steps)
    return finish(stage, result, settings)


def check_earlier(stage: Stage, redo: bool, way_out: str = WAY_OUT) -> None:
    """ConfigError where the folder holds a model or checkpoints of another config, or from elsewhere, that would go."""
    check_same_config(stage, redo, way_out)
    check_same_inputs(stage, redo, way_out)


def check_mlflow(settings: PretrainConfig) -> None:
    """ConfigError where it is asked for and not installed; on the workers only one would notice."""
    if settings.mlflow and importlib.util.find_spec("mlflow") is None:
        raise ConfigError(
            f"pretrain.mlflow={settings.mlflow} needs `pip install 'raysl[mlflow]'`; leave the key out to go on."
        )


def finish(stage: Stage, result: dict[str, Any], settings: PretrainConfig) -> Manifest:
    """Commits what rank 0 handed back."""
    metrics = {name: value for name, value in result.items() if name not in ("train_rows", "parameters")}
    counts = {name: result[name] for name in ("train_rows", "parameters")} | {"steps": settings.max_steps}
    return stage.finish(counts, metrics, {name: storage.hash_file(stage.folder / name) for name in OUTPUTS})


def _workers(settings: PretrainConfig) -> str:
    workers = settings.num_workers
    number = f"{workers}" if isinstance(workers, int) else f"{workers.min} to {workers.max}"
    return f"{number} workers, {settings.global_batch_size} rows a step"


class _Shown:
    """Puts what rank 0 logs on the screen: each evaluation once, though every start writes the earlier ones anew."""

    def __init__(self, progress: Progress, stage: Stage) -> None:
        self.progress, saved = progress, stage.checkpoints()
        self.told = int(saved[-1].removeprefix("step-")) if saved else -1
        """Step of the last evaluation that was told, by this start of the command or an earlier one."""
        self.warned: set[str] = set()

    def __call__(self, message: dict[str, Any]) -> None:
        if "start" in message:
            self.progress.start_at(message["start"])
            return
        if "warning" in message:
            if message["warning"] not in self.warned:
                self.progress.tell(f"warning: {message['warning']}")
            self.warned.add(message["warning"])
            return
        from raysl.train.reporting import note_of

        if "loss" in message:
            self.progress.set(message["step"], note_of(message))
        elif message["step"] > self.told:
            self.told = message["step"]
            self.progress.tell(f"{self.progress.title}  step {message['step']:,}  {note_of(message)}")
