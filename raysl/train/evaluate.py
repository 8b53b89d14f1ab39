"""What a run says of itself between steps: held-out loss, embedding spread and rank, kNN probe. Nothing is trained on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from raysl.data.rows import Rows
from raysl.objectives.base import Objective
from raysl.objectives.config import ObjectiveConfig
from raysl.objectives.gather import gather_rows
from raysl.train.batches import held_out_batches
from raysl.train.config import PretrainConfig
from raysl.train.health import spread_and_rank
from raysl.train.probe import LabelledRows, probe
from raysl.train.world import World, autocast

HELD_OUT_ROWS = 1024
FEWEST_ROWS = 8
"""Below it spread and rank say more of the split than of the encoder: two rows have a rank of 1."""
MANY_LEFT_OUT = 0.1
"""Share of the train documents that may be too short without a word."""


def too_few(rows: Rows, held_out: Rows | None, config: PretrainConfig, num_ranks: int) -> list[str]:
    """What the rows of the train split and of the held-out one do not suffice for, in words."""
    found: list[str] = []
    num_rows = len(rows)
    if rows.left_out > MANY_LEFT_OUT * (num_rows + rows.left_out):
        found.append(
            f"{rows.left_out:,} of {num_rows + rows.left_out:,} train documents are too short for objective "
            f"'{config.objective.type}' and are left out. Objectives 'bert' and 'gpt' read documents of any length."
        )
    if compares_rows(config) and num_rows < config.global_batch_size:
        found.append(
            f"{num_rows} train rows for batches of {config.global_batch_size}: a row is in a batch more than once, and "
            f"objective '{config.objective.type}' tells it from itself. Lower pretrain.global_batch_size or prepare more."
        )
    return found if held_out is None else found + _too_few_held_out(len(held_out), config, num_ranks)


def _too_few_held_out(rows: int, config: PretrainConfig, num_ranks: int) -> list[str]:
    size = min(config.global_batch_size // config.accumulation_steps, rows)
    if size < num_ranks:
        return [f"{rows} held-out rows for {num_ranks} workers: no held-out numbers. Raise prepare.split.validation."]
    if compares_rows(config) and rows < 2:
        return [
            f"{rows} held-out row, and objective '{config.objective.type}' compares rows with each other: no held-out "
            f"numbers. Raise prepare.split.validation."
        ]
    if rows // size * size < FEWEST_ROWS:
        return [
            f"{rows} held-out rows in batches of {size}: embedding spread and effective rank need {FEWEST_ROWS} and are "
            f"left out. Raise prepare.split.validation."
        ]
    return []


def compares_rows(config: PretrainConfig) -> bool:
    return isinstance(config.objective, ObjectiveConfig) and config.objective.compares_rows


@dataclass(frozen=True)
class Evaluator:
    """Measures `objective` as it stands; every rank calls it at the same step and gets the same values."""

    objective: Objective
    held_out: Rows | None
    labelled: LabelledRows | None
    config: PretrainConfig
    world: World
    precision: torch.dtype

    def __call__(self) -> dict[str, float]:
        self.objective.eval()
        values = self._held_out()
        if self.labelled is not None and self.config.probe is not None:
            values |= probe(self.objective, self.labelled, self.config.probe, self.world)
        self.objective.train()
        return values

    @torch.no_grad()
    def _held_out(self) -> dict[str, float]:
        if self.held_out is None or (compares_rows(self.config) and len(self.held_out) < 2):
            return {}
        size = self.config.global_batch_size // self.config.accumulation_steps
        sums: list[dict[str, Tensor]] = []
        embeddings: list[Tensor] = []
        world = self.world
        for build in held_out_batches(self.objective, self.held_out, HELD_OUT_ROWS, size, world.rank, world.size):
            batch = {k: v.to(world.device) for k, v in build().items()}
            totals = world.total(self.objective.targets(batch))
            with autocast(world.device, self.precision):
                output = self.objective(batch, totals)
            sums.append({"loss": output.loss, **output.metrics})
            embeddings.append(self.objective.embed(batch[next(iter(batch))]).float())
        if not sums:
            return {}
        means = world.total(torch.stack([torch.stack([v.float() for v in s.values()]) for s in sums]).mean(0)).tolist()
        values = {f"held_out_{name}": value for name, value in zip(sums[0], means, strict=True)}
        together = gather_rows(torch.cat(embeddings))[0]
        if len(together) < FEWEST_ROWS:
            return values
        spread, effective_rank = spread_and_rank(together)
        return values | {"embedding_spread": spread, "effective_rank": effective_rank}
