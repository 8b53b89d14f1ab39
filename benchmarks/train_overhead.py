"""What Ray costs a training run: the bare loop, Ray with one worker, Ray with two, on the smoke GPT and the smoke BERT.

The GPT is measured as it is shipped and with a global batch four times as large, in micro-batches: workers wait for each
other once a step. `words` is the BERT of 4 layers and width 256 that `bench-bert` measures, on the GPT's documents. Rates
are rows a second from the first logged step to the last, so the start of Ray (stated apart) is not in them. The bare loop
runs at the priority Ray gives its workers. Two bare loops side by side, which exchange nothing, are what two workers could
reach at most on this machine. The GPT's weights are in its layers; the BERT has one layer and a table of 2 M weights, whose
exchange and step do not shrink with more workers. The speed of a machine wanders within minutes, so the runs take turns, and
a ratio is the median of those of each round. RAYSL_OVERHEAD_MINUTES sets the length of a run, RAYSL_OVERHEAD_ROUNDS their
number, RAYSL_OVERHEAD_CASES which cases are run.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import Figure
from raysl import run_config, storage
from raysl.stage import read_manifest

ROOT = Path(__file__).parents[1]
MINUTES = float(os.environ.get("RAYSL_OVERHEAD_MINUTES", "2.4"))
ROUNDS = int(os.environ.get("RAYSL_OVERHEAD_ROUNDS", "3"))
TRIAL_STEPS = 12
"""A short run of the bare loop tells how many steps make the others as long as MINUTES asks."""
MODULE = [sys.executable, "-m", "raysl.train.session"]
COMMAND = [sys.executable, "-m", "raysl.cli", "pretrain"]
WORKER_NICENESS = 15
"""Ray's default for its workers."""


@dataclass(frozen=True)
class Case:
    """One pretraining."""

    name: str
    config: str
    """Of configs/smoke; its documents are prepared once."""
    overrides: tuple[str, ...] = ()


CASES = (
    Case("gpt", "gpt"),
    Case("gpt256", "gpt", ("pretrain.global_batch_size=256", "pretrain.accumulation_steps=4")),
    Case("bert", "bert"),
    Case("words", "gpt", (
        "pretrain.objective=bert", "pretrain.model={type: bert, preset: bert-mini, context_length: 128}",
        "pretrain.global_batch_size=32",
    )),
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One run."""

    rows_per_second: float
    data_wait: float
    seconds: float
    start: float
    """Seconds before the first logged step."""
    rows: int
    """Of a step."""


def run() -> Iterator[Figure]:
    load = os.getloadavg()[0]
    print(f"load of the machine before: {load:.1f} on {os.cpu_count()} cores{'; not quiet' if load > 1 else ''}")
    wanted = os.environ.get("RAYSL_OVERHEAD_CASES", ",".join(case.name for case in CASES)).split(",")
    for case in CASES:
        if case.name in wanted:
            yield from _overhead(case)


@dataclass(frozen=True)
class Round:
    """The runs of one turn; `beside` are two bare loops at the same time."""

    bare: Measured
    one: Measured
    two: Measured
    beside: tuple[Measured, ...]

    @property
    def limit(self) -> float:
        return sum(each.rows_per_second for each in self.beside)


def _overhead(case: Case) -> Iterator[Figure]:
    _prepare(case.config)
    trial = _measured(case, "bare", MODULE, 1, WORKER_NICENESS, steps=TRIAL_STEPS, log_every=1)
    steps = round(60 * MINUTES * trial.rows_per_second / trial.rows)
    rounds = [_round(case, steps) for _ in range(ROUNDS)]

    def median(value: Callable[[Round], float]) -> float:
        values = [value(each) for each in rounds]
        print(f"{case.name}: rounds {', '.join(f'{one:.4g}' for one in values)}")
        return statistics.median(values)

    yield Figure(f"{case.name}: bare loop", median(lambda r: r.bare.rows_per_second), "rows/s")
    yield Figure(f"{case.name}: length of the run with Ray, 1 worker", median(lambda r: r.one.seconds), "s", at_least=120)
    yield Figure(f"{case.name}: Ray, 1 worker", median(lambda r: r.one.rows_per_second), "rows/s")
    cost = median(lambda r: 100 * (r.bare.rows_per_second / r.one.rows_per_second - 1))
    yield Figure(f"{case.name}: cost of Ray over the bare loop", cost, "%", at_most=5)
    yield Figure(
        f"{case.name}: start of Ray before the first logged step", median(lambda r: r.one.start - r.bare.start), "s"
    )
    yield Figure(f"{case.name}: data wait, 1 worker", median(lambda r: 100 * r.one.data_wait), "%", at_most=5)
    yield Figure(f"{case.name}: data wait, 2 workers", median(lambda r: 100 * r.two.data_wait), "%", at_most=5)
    scaling = median(lambda r: r.two.rows_per_second / r.one.rows_per_second)
    yield Figure(f"{case.name}: 2 workers over 1", scaling, "x", at_least=1.7)
    limit = median(lambda r: r.limit / r.bare.rows_per_second)
    yield Figure(f"{case.name}: 2 bare loops side by side over one: the machine's limit", limit, "x")
    share = median(lambda r: r.two.rows_per_second / r.limit)
    yield Figure(f"{case.name}: 2 workers over 2 bare loops side by side", share, "x")


def _round(case: Case, steps: int) -> Round:
    measured = partial(_measured, case, steps=steps, log_every=max(1, steps // 20))
    bare = measured("bare", MODULE, 1, WORKER_NICENESS)
    one = measured("ray1", COMMAND, 1)
    two = measured("ray2", COMMAND, 2)
    with ThreadPoolExecutor() as pool:
        beside = tuple(pool.map(lambda name: measured(name, MODULE, 1, WORKER_NICENESS), ("left", "right")))
    return Round(bare, one, two, beside)


def _config(name: str) -> Path:
    return ROOT / "configs" / "smoke" / f"{name}.yaml"


def _folder(case: str, name: str) -> Path:
    return ROOT / "runs" / "bench_train" / case / name


def _prepare(config: str) -> None:
    folder = _folder(config, "prepared")
    if read_manifest(folder, "prepare") is None:
        command = [sys.executable, "-m", "raysl.cli", "prepare", str(_config(config)), f"run_dir={folder}"]
        subprocess.run(command, cwd=ROOT, check=True)


def _measured(
    case: Case, name: str, command: list[str], workers: int, niceness: int = 0, *, steps: int, log_every: int
) -> Measured:
    folder = _folder(case.name, name)
    storage.remove(folder / "pretrain")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "prepare").is_symlink():
        (folder / "prepare").symlink_to(_folder(case.config, "prepared") / "prepare", target_is_directory=True)
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    overrides = [*case.overrides, f"run_dir={folder}", f"pretrain.max_steps={steps}", f"pretrain.num_workers={workers}",
                 f"pretrain.log_every_steps={log_every}", f"pretrain.evaluate_every_steps={steps}"]  # fmt: skip
    began = time.time()
    nice = ["nice", "-n", str(niceness)] if niceness else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([*nice, *command, str(_config(case.config)), *overrides], cwd=ROOT, check=True, env=environment)
    rows = run_config.load(_config(case.config), case.overrides).training.global_batch_size
    return _read(folder, began, rows)


def _read(folder: Path, began: float, rows: int) -> Measured:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    seconds = steps[-1]["time"] - steps[0]["time"]
    trained = (steps[-1]["step"] - steps[0]["step"]) * rows
    waits = [line["data_wait"] for line in steps[1:]]
    return Measured(trained / seconds, sum(waits) / len(waits), seconds, steps[0]["time"] - began, rows)
