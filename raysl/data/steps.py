"""What the recipes of `prepare` share: steps with progress and time, and units of work as Ray Data tasks."""

import json
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from raysl import cluster
from raysl.data import usage
from raysl.data.config import PrepareConfig
from raysl.progress import Progress

WORK = "work"
"""Folder of unfinished work inside <run>/prepare; gone when the stage is done."""
MAX_RETRIES = 3
"""Starts of a task whose process dies; Ray Data's own default is without end, so running out of memory never fails."""


@dataclass
class Recipe:
    """How one modality is prepared. A subclass has steps, each skipping what an earlier start has finished.

    A step leaves files behind whole or not at all; what they hold depends on the source and the config alone.
    """

    rows_name: ClassVar[str] = "documents"
    """What the user calls a row."""
    folder: Path
    config: PrepareConfig
    seed: int
    usage: dict[str, dict[str, float]] = field(default_factory=dict)
    """What each step of this start took: wall `seconds`, `cpu_seconds` of its tasks, `peak_mb` of the largest task."""

    @classmethod
    def cut(cls, config: PrepareConfig, partitions: Sequence[Any]) -> Any:
        """What the numbered units of the work are made from (JSON); work that was cut otherwise is begun anew."""
        return partitions

    def run(self, partitions: Sequence[Any]) -> tuple[dict[str, Any], dict[str, float]]:
        """Does all steps; returns the counts and metrics of the manifest. `counts` holds documents_in, kept, dropped."""
        raise NotImplementedError

    @property
    def work(self) -> Path:
        return self.folder / WORK

    def step(self, name: str, total: int, left: int) -> "Step":
        return Step(self, name, total, left)


class Step:
    """Progress and time of one step; starts the cluster when there is work left."""

    def __init__(self, recipe: Recipe, name: str, total: int, left: int) -> None:
        self.recipe, self.name, self.left = recipe, name, left
        self.progress = Progress(f"prepare: {name}", total=total, unit="partitions" if total > 1 else "")
        self.total = total
        self.used = {"cpu_seconds": 0.0, "peak_mb": 0.0}

    def __enter__(self) -> "Step":
        self.started = time.monotonic()
        self.progress.__enter__()
        self.progress.start_at(self.total - self.left)
        if self.left:
            cluster.connect()
        return self

    def __exit__(self, *error: Any) -> None:
        self.progress.__exit__(*error)
        before = self.recipe.usage.get(self.name, {"seconds": 0.0, "cpu_seconds": 0.0, "peak_mb": 0.0})  # a step in levels
        self.recipe.usage[self.name] = {
            "seconds": round(before["seconds"] + time.monotonic() - self.started, 2),
            "cpu_seconds": round(before["cpu_seconds"] + self.used["cpu_seconds"], 2),
            "peak_mb": max(before["peak_mb"], self.used["peak_mb"]),
        }

    def run_calls(self, function: Callable[..., dict[str, Any]], calls: Sequence[tuple[Any, ...]],
                  counted: Callable[[dict[str, Any]], tuple[int, str]]) -> None:  # fmt: skip
        """Runs `function(*call)` for every call as one Ray Data task each; the driver holds only the counts."""
        if not calls:
            return
        count = 0
        for row in as_tasks(function, calls):
            amount, unit = counted(json.loads(row["stats"]))
            count += amount
            self.used["cpu_seconds"] = round(self.used["cpu_seconds"] + row["cpu_seconds"], 2)
            self.used["peak_mb"] = max(self.used["peak_mb"], row["peak_mb"])
            self.progress.advance(1, note=f"{count:,} {unit}")


def as_tasks(function: Callable[..., dict[str, Any]], calls: Sequence[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yields for each call, in no fixed order, what it returned (JSON under `stats`) and what it took."""
    import pyarrow as pa
    import ray

    def task(row: dict[str, Any]) -> dict[str, Any]:
        pa.default_memory_pool().release_unused()  # what the task before it left
        usage.reset_peak()
        before = time.process_time()
        stats = json.dumps(function(*pickle.loads(row["call"])))
        return {"stats": stats, "cpu_seconds": time.process_time() - before, "peak_mb": usage.peak_mb()}

    rows = [{"call": pickle.dumps(call)} for call in calls]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the only way to bound retries; gone in Ray 2.64
        dataset = dataset.map(task, ray_remote_args_fn=lambda: {"max_retries": MAX_RETRIES})
    yield from dataset.iter_rows()
