"""One rank of a pretraining run, whoever started it: Ray Train, a test, or `python -m raysl.train.session` alone."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from raysl.catalog import OBJECTIVES
from raysl.config import PluginConfig
from raysl.data.pixels import PixelRows
from raysl.data.prepared import IN_PROCESS, PIXELS, TOKENIZER, TOKENS, Decoder, Prepared
from raysl.data.rows import Rows
from raysl.data.shards import TokenRows
from raysl.data.statistics import ImageStatistics, TextStatistics, statistics_of
from raysl.errors import RayslError
from raysl.models import load as models
from raysl.models.encoder import Encoder
from raysl.models.text import TextEncoder
from raysl.models.vision import ImageFormat
from raysl.objectives.base import Objective
from raysl.run_config import RunConfig
from raysl.stage import CHECKPOINTS, alone
from raysl.train import start
from raysl.train.labels import labelled_rows
from raysl.train.loop import Trainer
from raysl.train.memory import keep_freed_memory
from raysl.train.mistakes import ends_the_group, met_by_all
from raysl.train.record import RowRecord
from raysl.train.reporting import note_of, reporting
from raysl.train.signals import asked_to_end, listen
from raysl.train.world import World, single

PRETRAIN, EXPORT = "pretrain", "export"


@dataclass(frozen=True)
class TrainJob:
    """What every rank needs to know; the run folder has to lie on storage that all ranks see."""

    config: RunConfig


def build_objective(config: RunConfig, prepared: Prepared) -> Objective:
    """Fresh weights from the run's seed, the same on every rank."""
    settings, statistics = config.training, statistics_of(prepared)
    torch.manual_seed(config.seed)
    encoder = build_encoder(settings.model, statistics)
    if settings.init_from is not None:
        start.load_weights(encoder, Path(settings.init_from), _tokenizer(config, prepared))
    objective = cast(Objective, OBJECTIVES.load(settings.objective.type)(settings.objective, encoder))
    objective.look_up(prepared.file)
    return objective


def _tokenizer(config: RunConfig, prepared: Prepared) -> Path | None:
    return prepared.file(TOKENIZER) if config.training.model.modality == "text" else None


def build_encoder(model: PluginConfig, statistics: TextStatistics | ImageStatistics) -> Encoder:
    if isinstance(statistics, ImageStatistics):
        return models.build(model, ImageFormat.of(vars(statistics)))
    encoder = models.build(model, len(statistics.frequencies))
    if isinstance(encoder, TextEncoder):
        encoder.weigh_tokens(np.array(statistics.frequencies))
    return encoder


def open_rows(prepared: Prepared, split: str, objective: Objective) -> Rows:
    """The rows of a split as `objective` reads them; DataError where there are none."""
    kind = objective.row_kind
    if kind == "pixels":
        return PixelRows(prepared.shards(PIXELS, split))
    return TokenRows(prepared.shards(TOKENS, split), kind, objective.row_length, objective.min_tokens)


def train_rank(
    job: TrainJob, world: World, hear: Callable[[dict[str, Any]], object] = lambda _: None, decoder: Decoder = IN_PROCESS
) -> dict[str, Any]:
    """Trains this rank to the end; rank 0 writes metrics.jsonl and the model, and returns the metrics of it."""
    config = job.config
    if world.device.type == "cpu":
        torch.set_num_threads(1)  # two threads on two busy cores are many times slower than one
        keep_freed_memory()
    with met_by_all(world):  # a path that one node does not have
        prepared = Prepared.of(config, decoder)
        objective = build_objective(config, prepared)
        rows, held_out = (open_rows(prepared, split, objective) for split in ("train", "validation"))
        held_out.hold(range(len(held_out.shards)), ())  # fetched or decoded side by side, and not as rows are asked for
        labelled = labelled_rows(config, prepared, objective)
    trainer = Trainer(
        objective, rows, held_out, config.training, config.seed, world,
        checkpoints=config.folder / PRETRAIN / CHECKPOINTS, labelled=labelled,
    )  # fmt: skip
    if config.training.record_rows:
        trainer.record = RowRecord(config.folder / PRETRAIN / "rows", trainer.step, world.rank, world.size)
    with reporting(config, trainer, hear), ends_the_group(world):
        last = trainer.run()
    if world.rank == 0:
        description = models.describe(
            objective.encoder, objective=config.training.objective.model_dump(mode="json"), step=trainer.kept
        )
        models.save(objective.encoder, config.folder / PRETRAIN, description)
        start.export(objective.encoder, config.folder / PRETRAIN / EXPORT, _tokenizer(config, prepared))
    prepared.close()
    return {**last, "train_rows": len(rows), "parameters": sum(p.numel() for p in objective.parameters())}


def _say(message: dict[str, Any]) -> None:
    step = message.get("step")
    print(f"step {step:>6}  {note_of(message)}" if step is not None else message, flush=True)


def main(path: str, *overrides: str) -> None:
    """The stage `pretrain` in this process, without Ray: how the core is profiled on one device."""
    from raysl.run_config import load, needed
    from raysl.train.pretrain import begin, finish

    config = load(path, overrides)
    needed(config, "pretrain")
    with alone(config.folder):
        stage, done = begin(
            config, way_out="Name another folder with run_dir=... and these shards with pretrain.feed.shards=..."
        )
        if done is None:
            listen()
            result = train_rank(TrainJob(config), single(config.training.device, asked_to_end), _say)
            finish(stage, result, config.training)
            print(result)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RayslError as error:
        sys.exit(f"error: {error}")
