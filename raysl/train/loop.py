"""The one training loop: plain PyTorch, any objective, one process or many, without Ray.

Read top to bottom it is: rows of the step -> loss over the totals of the step -> clip -> optimizer -> average of the
weights -> numbers, evaluation, checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raysl import checkpoint, storage
from raysl.data.rows import Rows
from raysl.errors import ConfigError
from raysl.models import ranks
from raysl.objectives.base import Batch, Objective, StepOutput
from raysl.train import optimizers
from raysl.train.batches import StepBatches, StepRows
from raysl.train.config import PretrainConfig
from raysl.train.eager import data_parallel
from raysl.train.ema import WeightAverage
from raysl.train.evaluate import Evaluator
from raysl.train.health import Watch
from raysl.train.meter import Meter
from raysl.train.probe import LabelledRows
from raysl.train.world import STAYS, World, autocast, resolve_precision

VARYING = {"borders", "hidden"}
"""Tensors of a batch whose length differs from step to step: documents, hidden words."""

NOTICE_S = 5.0
"""Seconds between two looks for a notice: clouds give 30 to 120 s of it, and a checkpoint needs its share."""

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
    labelled: LabelledRows | None = None
    record: Callable[[int, Sequence[int]], None] = lambda *_: None
    """Told the rows that this rank read for each step that is done."""
    step: int = 0
    kept: int = 0
    """Step of the weights that `run` left in `objective`."""

    def __post_init__(self) -> None:
        config = self.config
        if config.checkpoint.best_by == "knn_accuracy" and self.labelled is None:
            raise ConfigError(
                "pretrain.checkpoint.best_by=knn_accuracy needs labels, and the validation split has none of two classes. "
                "Name labelled rows in pretrain.probe.source, or use best_by=held_out_loss."
            )
        self.objective.to(self.world.device)
        self.parameters = [p for p in self.objective.parameters() if p.requires_grad]
        self.optimizer = optimizers.build(self.objective, config.optimizer)
        self.peak_rate = optimizers.peak_rate(config.optimizer, config.global_batch_size)
        self.average = WeightAverage(self.objective, config.ema_decay) if config.ema_decay else None
        self.precision = resolve_precision(config.precision, self.world)
        self.watch = Watch(config.health, config.optimizer.learning_rate)
        self._best: float | None = None
        self._saved, self._told = -1, STAYS
        self._look_every = 1
        self._resume()
        self.parallel = self._parallel()

    def _parallel(self) -> nn.Module:
        module: nn.Module = self.objective
        if self.config.compile:
            ranks.keep_out_of_graphs()
            module = cast(nn.Module, torch.compile(module))
        if self.world.size == 1:
            return module
        return data_parallel(module)

    def run(self) -> dict[str, float]:
        """Trains and leaves the weights to keep in `objective`; returns their held-out metrics.

        Raises TrainingError when the run has gone wrong, and SystemExit, after a checkpoint, in a process that was told to
        end.
        """
        config, last = self.config, dict[str, float]()
        self.objective.train()
        self.meter = Meter()
        with self._writer(), StepBatches(
            self.objective, self.rows, self.seed, config.global_batch_size, config.accumulation_steps,
            self.world.rank, self.world.size, pinned=self.world.device.type == "cuda",
        ) as batches:  # fmt: skip
            while self.step < config.max_steps:
                with self.meter.waiting():
                    rows = batches.step(self.step, last=self.step + 1 == config.max_steps)
                metrics = self._optimizer_step(rows)
                self.step += 1
                self.meter.step(rows.units)
                self.record(self.step, rows.numbers.tolist())
                leaving = self._notice() if self._due(self._look_every) else STAYS
                logs, saves = self._due(config.log_every_steps), self._due(config.checkpoint.every_steps)
                evaluates = self._due(config.evaluate_every_steps)
                if logs:
                    self._log(metrics)
                elif evaluates or saves or leaving:
                    self._check_numbers(metrics)
                if evaluates:
                    last = {} if leaving else self._evaluate()  # there may be no time for it
                if saves or leaving:
                    self._save()
                if leaving:
                    self._leave()
            last = last or self._evaluate()
        self.kept = self._keep_final_weights()
        return last if self.kept == self.step else self.measure()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.max_steps

    def _optimizer_step(self, rows: StepRows) -> dict[str, Tensor]:
        self.world.seed(self.seed, self.step)  # dropout: a function of the position
        micro_batches = [self._moved(batch) for batch in rows.batches]
        totals = self.world.total(torch.stack([self.objective.targets(batch) for batch in micro_batches]).sum(0))
        sums: dict[str, Tensor] = {}
        for place, batch in enumerate(micro_batches):
            output = self._backward(batch, totals, sync=place == len(micro_batches) - 1)
            for name, value in {"loss": output.loss.detach(), **output.metrics}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
        norm = self._clip()
        rate = self.peak_rate * optimizers.rate_share(self.step, self.config.max_steps, self.config.optimizer)
        optimizers.set_rate(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.step)
        return sums | {"gradient_norm": norm / self.world.size, "learning_rate": torch.tensor(rate / self.world.size)}

    def _moved(self, batch: Batch) -> Batch:
        moved = {name: tensor.to(self.world.device, non_blocking=True) for name, tensor in batch.items()}
        if self.config.compile:
            for name in VARYING & moved.keys():
                torch._dynamo.maybe_mark_dynamic(moved[name], 0)  # one step for any number of them
        return moved

    def _backward(self, batch: Batch, totals: Tensor, sync: bool) -> StepOutput:
        """DDP averages gradients over ranks; our losses are parts of one sum, so each is scaled by the world size."""
        parallel = self.parallel
        wait = parallel.no_sync() if isinstance(parallel, DistributedDataParallel) and not sync else nullcontext()
        with wait:
            with autocast(self.world.device, self.precision):
                output: StepOutput = parallel(batch, totals)
            (output.loss * self.world.size).backward()  # type: ignore[no-untyped-call]
        return output

    def _clip(self) -> Tensor:
        """Norm of the gradients as they came. A GPU is not asked whether it is too large: that would wait for it."""
        limit, gradients = self.config.optimizer.max_gradient_norm, [p.grad for p in self.parameters if p.grad is not None]
        if self.world.size > 1 and len(gradients) < len(self.parameters):
            raise ConfigError(self._unreached())
        norm = nn.utils.get_total_norm(gradients)
        if self.world.device.type != "cpu" or not norm <= limit:
            nn.utils.clip_grads_with_norm_(self.parameters, limit, norm)
        return norm

    def _unreached(self) -> str:
        """DDP would wait for these gradients, and say so a step later in words of its own."""
        names = [name for name, p in self.objective.named_parameters() if p.requires_grad and p.grad is None]
        return (
            f"The loss of objective '{self.config.objective.type}' does not reach {', '.join(names[:3])} ({len(names)} of "
            f"{len(self.parameters)} tensors), and several workers wait for each gradient. Leave them out of training in "
            f"its __init__: self.leave_out(...)."
        )

    def _notice(self) -> int:
        """What a rank has been told since the last look; the same on all ranks, which look at the same steps."""
        told = self.world.leaving()
        news = self.world.sums({"leaving": float(told if told != self._told else STAYS)})
        self._told = told
        return int(news["leaving"])

    def _log(self, metrics: Mapping[str, Tensor]) -> None:
        """Reports the numbers of this step and the speed since the last one."""
        window = self.meter.read()
        sums = self.world.sums({
            **{name: float(value) for name, value in metrics.items()}, "units": window.units,
            "data_wait": window.data_wait / self.world.size, "seconds": window.seconds / self.world.size,
        })  # fmt: skip
        units, data_wait, seconds = (sums.pop(name) for name in ("units", "data_wait", "seconds"))
        self._look_every = max(1, min(self.config.log_every_steps, int(NOTICE_S * window.steps / seconds)))
        self.watch.numbers(self.step, sums)
        self.report({
            "step": self.step, **sums, "rows_per_second": window.steps * self.config.global_batch_size / window.seconds,
            f"{self.objective.unit}_per_second": units / window.seconds, "data_wait": data_wait,
            "seconds_left": self.meter.seconds_left(self.config.max_steps - self.step),
        })  # fmt: skip
        self.watch.data_wait(self.step, data_wait, seconds)

    def _check_numbers(self, metrics: Mapping[str, Tensor]) -> None:
        """Weights that are no numbers are neither evaluated nor saved."""
        self.watch.numbers(self.step, self.world.sums({name: float(value) for name, value in metrics.items()}))

    def measure(self) -> dict[str, float]:
        """Held-out loss, spread, rank and probe of the weights as they stand; nothing of them changes."""
        return Evaluator(self.objective, self.held_out, self.labelled, self.config, self.world, self.precision)()

    def _evaluate(self) -> dict[str, float]:
        """Measures the weights that would be kept, and saves them when they are the best so far."""
        with self.meter.paused(), self.average.applied() if self.average is not None else nullcontext():
            values = self.measure()
        if not values:
            return {}
        self.watch.numbers(self.step, {name: value for name, value in values.items() if name.startswith("held_out")})
        self.report({"step": self.step, **values})
        if "embedding_spread" in values:
            shared = self.world.sums({k: values[k] / self.world.size for k in ("embedding_spread", "effective_rank")})
            self.watch.embeddings(self.step, shared["embedding_spread"], shared["effective_rank"])
        measure = self.config.checkpoint.best_by
        if measure in values:
            score = values[measure] if measure == "knn_accuracy" else -values[measure]
            if self._best is None or score > self._best:
                self._best = score
                self._save(score)
        return values

    def _writer(self) -> "checkpoint.Writer | nullcontext[None]":
        if self.checkpoints is None or self.world.rank != 0:
            self.writer = None
            return nullcontext()
        self.writer = checkpoint.Writer(self.checkpoints, self.config.checkpoint.keep_last)
        return self.writer

    def _save(self, score: float | None = None) -> None:
        if self.writer is None or (self._saved == self.step and score is None):
            return
        self._saved = self.step
        average = {"average": self.average.weights} if self.average is not None else {}
        rows_read = self.step * self.config.global_batch_size
        state = {
            "model": self.objective.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step,
            "seed": self.seed, "rows_read": rows_read, **average,
        }  # fmt: skip
        self.writer.save(self.step, state, score)

    def _leave(self) -> None:
        """All ranks wait for the checkpoint on disk; a process that was told to end does, one on a leaving node goes on."""
        if self.writer is not None:
            self.writer.wait()
        self.world.sums({"on disk": 1.0})
        if self.world.must_end():
            raise SystemExit(143)

    def _resume(self) -> None:
        if self.checkpoints is None:
            return
        step = -1
        if self.world.rank == 0:
            storage.remove_unfinished(self.checkpoints)
            found = checkpoint.whole(checkpoint.latest, self.checkpoints)
            best = checkpoint.best(self.checkpoints)
            if best != found:  # looked through already
                best = checkpoint.whole(checkpoint.best, self.checkpoints)
            self._best = best.score if best is not None else None
            step = found.step if found is not None else -1
        step = self._as_rank_0(step)  # a writer of a killed start may still add one while the ranks look
        if step < 0:
            return
        state = checkpoint.load(checkpoint.at(self.checkpoints, step), self.world.device)
        self.objective.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load(state["average"])
        self.step = int(state["step"])

    def _as_rank_0(self, step: int) -> int:
        whole = self.world.total(torch.tensor(step if self.world.rank == 0 else 0, device=self.world.device))
        return int(whole)

    def _keep_final_weights(self) -> int:
        """The best checkpoint's weights where the config asks for them, else the last ones; averaged where it averages.

        Returns their step."""
        if self.config.checkpoint.save_model == "best" and self.checkpoints is not None:
            best = checkpoint.best(self.checkpoints) if self.world.rank == 0 else None
            step = self._as_rank_0(best.step if best is not None else -1)  # its writer is done when it comes here
            if step >= 0:
                state = checkpoint.load(checkpoint.at(self.checkpoints, step), self.world.device)
                self.objective.load_state_dict(state.get("average", state["model"]))
                return step
        if self.average is not None:
            self.objective.load_state_dict(self.average.weights)
        return self.step
