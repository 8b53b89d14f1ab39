"""What Ray costs a training run: the bare loop, Ray with one worker, Ray with two, on the smoke text run.

Rates are rows a second from the first logged step to the last, so the start of Ray (stated apart) is not in them. The bare
loop runs at the priority Ray gives its workers. RAYSL_OVERHEAD_STEPS sets the length; 500 steps are two minutes or more.
Two bare loops side by side, which exchange nothing, are what two workers could reach at most on this machine.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import Figure
from raysl import run_config, storage
from raysl.stage import read_manifest

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "smoke" / "bert.yaml"
FOLDER = ROOT / "runs" / "bench_train"
STEPS = int(os.environ.get("RAYSL_OVERHEAD_STEPS", "500"))
WORKER_NICENESS = 15
"""Ray's default for its workers."""


@dataclass(frozen=True)
class Measured:
    """One run."""

    rows_per_second: float
    data_wait: float
    seconds: float
    start: float
    """Seconds before the first logged step."""


def run() -> Iterator[Figure]:
    load = os.getloadavg()[0]
    print(f"load of the machine before: {load:.1f} on {os.cpu_count()} cores{'; not quiet' if load > 1 else ''}")
    _prepare()
    module, command = [sys.executable, "-m", "raysl.train.session"], [sys.executable, "-m", "raysl.cli", "pretrain"]
    bare = _measured("bare", module, 1, WORKER_NICENESS)
    one = _measured("ray1", command, 1)
    two = _measured("ray2", command, 2)
    again = _measured("bare", module, 1, WORKER_NICENESS)
    with ThreadPoolExecutor() as pool:
        pair = list(pool.map(lambda name: _measured(name, module, 1, WORKER_NICENESS), ("left", "right")))
    print(f"bare loop, two runs: {bare.rows_per_second:,.0f} and {again.rows_per_second:,.0f} rows/s")
    alone = (bare.rows_per_second + again.rows_per_second) / 2
    limit = sum(each.rows_per_second for each in pair)
    yield Figure("bare loop", alone, "rows/s")
    yield Figure("length of the run with Ray, 1 worker", one.seconds, "s", at_least=120)
    yield Figure("Ray, 1 worker", one.rows_per_second, "rows/s")
    yield Figure("cost of Ray over the bare loop", 100 * (alone / one.rows_per_second - 1), "%", at_most=5)
    yield Figure("start of Ray before the first logged step", one.start - bare.start, "s")
    yield Figure("data wait, 1 worker", 100 * one.data_wait, "%", at_most=5)
    yield Figure("data wait, 2 workers", 100 * two.data_wait, "%", at_most=5)
    yield Figure("2 workers over 1", two.rows_per_second / one.rows_per_second, "x", at_least=1.7)
    yield Figure("2 bare loops side by side over one: the machine's limit", limit / alone, "x")
    yield Figure("2 workers over 2 bare loops side by side", two.rows_per_second / limit, "x")


def _prepare() -> None:
    if read_manifest(FOLDER / "prepared", "prepare") is None:
        command = [sys.executable, "-m", "raysl.cli", "prepare", str(CONFIG), f"run_dir={FOLDER / 'prepared'}"]
        subprocess.run(command, cwd=ROOT, check=True)


def _measured(name: str, command: list[str], workers: int, niceness: int = 0) -> Measured:
    folder = FOLDER / name
    storage.remove(folder / "pretrain")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "prepare").is_symlink():
        (folder / "prepare").symlink_to(FOLDER / "prepared" / "prepare", target_is_directory=True)
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    overrides = [f"run_dir={folder}", f"pretrain.max_steps={STEPS}", f"pretrain.num_workers={workers}",
                 "pretrain.log_every_steps=10", f"pretrain.evaluate_every_steps={STEPS}"]  # fmt: skip
    began = time.time()
    nice = ["nice", "-n", str(niceness)] if niceness else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([*nice, *command, str(CONFIG), *overrides], cwd=ROOT, check=True, env=environment)
    return _read(folder, began)


def _read(folder: Path, began: float) -> Measured:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    seconds = steps[-1]["time"] - steps[0]["time"]
    rows = (steps[-1]["step"] - steps[0]["step"]) * run_config.load(CONFIG).training.global_batch_size
    waits = [line["data_wait"] for line in steps[1:]]
    return Measured(rows / seconds, sum(waits) / len(waits), seconds, steps[0]["time"] - began)
