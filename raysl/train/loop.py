"""The one training loop: plain PyTorch, any objective, one process or many, without Ray.

Read top to bottom it is: batches of the step -> loss over the totals of the step -> clip -> AdamW -> metrics, checkpoint.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raysl import checkpoint
from raysl.data.rows import Rows
from raysl.errors import TrainingError
from raysl.objectives.base import Batch, Objective, StepOutput
from raysl.train.batches import StepBatches, held_out_batches
from raysl.train.config import PretrainConfig
from raysl.train.health import spread_and_rank
from raysl.train.optimizers import adamw, rate_share, set_rate
from raysl.train.world import World, resolve_precision

HELD_OUT_ROWS = 1024

Report = Callable[[dict[str, Any]], None]


@dataclass
class Trainer:
    """State of one rank. `run` trains to `max_steps`, going on from the newest checkpoint in `checkpoints`."""

    objective: Objective
    rows: Rows
    held_out: Rows | None
    config: PretrainConfig
    seed: int
    world: World
    checkpoints: Path | None = None
    report: Report = lambda _: None
    step: int = 0
    data_wait: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.objective.to(self.world.device)
        self.optimizer = adamw(self.objective, self.config.optimizer)
        self.precision = resolve_precision(self.config.precision, self.world.device)
        self._resume()
        self.parallel = self._parallel()

    def _parallel(self) -> nn.Module:
        module: nn.Module = self.objective
        if self.config.compile:
            module = cast(nn.Module, torch.compile(module))
        if self.world.size == 1:
            return module
        return DistributedDataParallel(module, gradient_as_bucket_view=True)

    def run(self) -> dict[str, float]:
        """Trains; returns the last held-out metrics. Raises TrainingError on a loss that is no number."""
        config, started, first = self.config, time.monotonic(), self.step
        self.objective.train()
        size = config.global_batch_size
        last: dict[str, float] = {}
        with StepBatches(
            self.objective, self.rows, self.seed, size, config.accumulation_steps, self.world.rank, self.world.size
        ) as batches:
            while self.step < config.max_steps:
                waited = time.monotonic()
                micro_batches = batches.step(self.step, last=self.step + 1 == config.max_steps)
                self.data_wait += time.monotonic() - waited
                metrics = self._optimizer_step(micro_batches)
                self.step += 1
                if self._due(config.log_every_steps):
                    seconds = time.monotonic() - started
                    self._log(metrics, (self.step - first) * size / seconds, self.data_wait / seconds)
                if self._due(config.evaluate_every_steps):
                    last = self._held_out_loss()
                if self._due(config.checkpoint.every_steps):
                    self._save()
        return last or self._held_out_loss()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.max_steps

    def _optimizer_step(self, micro_batches: list[Batch]) -> dict[str, Tensor]:
        torch.manual_seed((self.seed << 24) ^ (self.step << 4) ^ self.world.rank)  # dropout: a function of the position
        micro_batches = [{k: v.to(self.world.device, non_blocking=True) for k, v in b.items()} for b in micro_batches]
        totals = self.world.total(
            torch.stack([self.objective.targets(b).to(self.world.device) for b in micro_batches]).sum(0)
        )
        sums: dict[str, Tensor] = {}
        for place, batch in enumerate(micro_batches):
            output = self._backward(batch, totals, sync=place == len(micro_batches) - 1)
            for name, value in {"loss": output.loss.detach(), **output.metrics}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.optimizer.max_gradient_norm)
        rate = self.config.optimizer.learning_rate * rate_share(self.step, self.config.max_steps, self.config.optimizer)
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return sums | {"gradient_norm": norm / self.world.size, "learning_rate": torch.tensor(rate / self.world.size)}

    def _backward(self, batch: Batch, totals: Tensor, sync: bool) -> StepOutput:
        """DDP averages gradients over ranks; our losses are parts of one sum, so each is scaled by the world size."""
        parallel = self.parallel
        wait = parallel.no_sync() if isinstance(parallel, DistributedDataParallel) and not sync else nullcontext()
        with wait:
            with self._autocast():
                output: StepOutput = parallel(batch, totals)
            (output.loss * self.world.size).backward()  # type: ignore[no-untyped-call]
        return output

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.world.device.type, self.precision, enabled=self.precision != torch.float32)

    def _log(self, metrics: dict[str, Tensor], rate: float, data_wait: float) -> None:
        names = sorted(metrics)
        totals = self.world.total(
            torch.stack([metrics[name].float().cpu() for name in names]).to(self.world.device)
        ).tolist()
        values = dict(zip(names, totals, strict=True))
        if not all(abs(v) < float("inf") for v in values.values()):
            raise TrainingError(
                f"Loss or gradient is no number at step {self.step}. Lower pretrain.optimizer.learning_rate "
                f"(now {self.config.optimizer.learning_rate:g}) or use pretrain.precision=fp32."
            )
        self.report({"step": self.step, **values, "rows_per_second": rate, "data_wait": data_wait})

    @torch.no_grad()
    def _held_out_loss(self) -> dict[str, float]:
        if self.held_out is None:
            return {}
        self.objective.eval()
        size = self.config.global_batch_size // self.config.accumulation_steps
        sums: list[Tensor] = []
        names: list[str] = []
        embeddings: list[Tensor] = []
        for build in held_out_batches(self.objective, self.held_out, HELD_OUT_ROWS, size, self.world.rank, self.world.size):
            batch = {k: v.to(self.world.device) for k, v in build().items()}
            counts = self.objective.targets(batch).to(self.world.device)
            totals = self.world.total(counts)
            with self._autocast():
                output = self.objective(batch, totals)
            names = ["loss", *output.metrics]
            sums.append(torch.stack([output.loss.float(), *(v.float() for v in output.metrics.values())]))
            embeddings.append(self.objective.embed(batch[next(iter(batch))]).float())
        self.objective.train()
        if not sums:
            return {}
        means = self.world.total(torch.stack(sums).mean(0)).tolist()
        spread, effective_rank = spread_and_rank(torch.cat(embeddings))
        values = {f"held_out_{n}": v for n, v in zip(names, means, strict=True)}
        values |= {"embedding_spread": spread, "effective_rank": effective_rank}
        self.report({"step": self.step, **values})
        return values

    def _save(self) -> None:
        if self.checkpoints is None or self.world.rank != 0:
            return
        state = {"model": self.objective.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        checkpoint.save(self.checkpoints, self.step, state, self.config.checkpoint.keep_last)

    def _resume(self) -> None:
        found = checkpoint.latest(self.checkpoints) if self.checkpoints is not None else None
        if found is None:
            return
        state = checkpoint.load(found, self.world.device)
        self.objective.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
