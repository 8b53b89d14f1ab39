"""One rank of a pretraining run, whoever started it: Ray Train, a test, or `python -m raysl.train.session` alone."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch

from raysl.catalog import OBJECTIVES
from raysl.data.frequencies import token_frequencies
from raysl.data.shards import TokenRows
from raysl.models import load as models
from raysl.objectives.base import Objective
from raysl.run_config import RunConfig
from raysl.train.labels import labelled_rows
from raysl.train.loop import Trainer
from raysl.train.record import RowRecord
from raysl.train.reporting import reporting
from raysl.train.signals import asked_to_end, listen
from raysl.train.world import World, single

PRETRAIN, PREPARE = "pretrain", "prepare"


@dataclass(frozen=True)
class TrainJob:
    """What every rank needs to know; the run folder has to lie on storage that all ranks see."""

    config: RunConfig


def build_objective(config: RunConfig) -> Objective:
    """Fresh weights from the run's seed, the same on every rank."""
    settings = config.training
    folder = config.folder / PREPARE
    vocab_size = len(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    torch.manual_seed(config.seed)
    encoder = models.build(cast(Any, settings.model), vocab_size)
    encoder.weigh_tokens(token_frequencies(folder / "tokens" / "train", vocab_size))
    return cast(Objective, OBJECTIVES.load(settings.objective.type)(settings.objective, encoder))


def train_rank(job: TrainJob, world: World, send: Callable[[dict[str, Any]], object] = lambda _: None) -> dict[str, Any]:
    """Trains this rank to the end; rank 0 writes metrics.jsonl and the model, and returns the last metrics."""
    config = job.config
    if world.device.type == "cpu":
        torch.set_num_threads(1)  # two threads on two busy cores are many times slower than one
    objective = build_objective(config)
    folder = config.folder / PREPARE / "tokens"
    rows = TokenRows(folder / "train", objective.row_kind, objective.row_length, objective.min_tokens)
    held_out = TokenRows(folder / "validation", objective.row_kind, objective.row_length, objective.min_tokens)
    trainer = Trainer(
        objective, rows, held_out, config.training, config.seed, world,
        checkpoints=config.folder / PRETRAIN / "checkpoints", labelled=labelled_rows(config, objective),
    )  # fmt: skip
    if config.training.record_rows:
        trainer.record = RowRecord(config.folder / PRETRAIN / "rows", trainer.step, world.rank, world.size)
    with reporting(config, trainer, send):
        last = trainer.run()
    if world.rank == 0:
        description = models.describe(
            objective.encoder, objective=config.training.objective.model_dump(mode="json"), step=trainer.step
        )
        models.save(objective.encoder, config.folder / PRETRAIN, description)
    return {**last, "train_rows": len(rows), "parameters": sum(p.numel() for p in objective.parameters())}


def main(path: str, *overrides: str) -> None:
    """Pretrains in this process, without Ray: how the core is profiled on one device."""
    from raysl.run_config import load

    config = load(path, overrides)
    listen()
    print(train_rank(TrainJob(config), single(config.training.device, asked_to_end), print))


if __name__ == "__main__":
    main(*sys.argv[1:])
