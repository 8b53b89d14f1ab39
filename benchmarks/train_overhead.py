"""What Ray costs a training run: the bare loop, Ray with one worker, Ray with two, on the smoke GPT and the smoke BERT.

Rates are rows a second from the first logged step to the last, so the start of Ray (stated apart) is not in them. The bare
loop runs at the priority Ray gives its workers. Two bare loops side by side, which exchange nothing, are what two workers
could reach at most on this machine. The GPT's weights are in its layers; the BERT has one layer and a table of 2 M weights,
whose exchange and step do not shrink with more workers. RAYSL_OVERHEAD_MINUTES sets the length.
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
MINUTES = float(os.environ.get("RAYSL_OVERHEAD_MINUTES", "2.1"))
STEPS_A_MINUTE = {"gpt": 102, "bert": 240}
"""Of the bare loop, on one core with AMX: what makes the runs as long as MINUTES asks."""
MODULE = [sys.executable, "-m", "raysl.train.session"]
COMMAND = [sys.executable, "-m", "raysl.cli", "pretrain"]
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
    for kind in STEPS_A_MINUTE:
        yield from _overhead(kind)


def _overhead(kind: str) -> Iterator[Figure]:
    _prepare(kind)
    bare = _measured(kind, "bare", MODULE, 1, WORKER_NICENESS)
    one = _measured(kind, "ray1", COMMAND, 1)
    two = _measured(kind, "ray2", COMMAND, 2)
    with ThreadPoolExecutor() as pool:
        pair = list(pool.map(lambda name: _measured(kind, name, MODULE, 1, WORKER_NICENESS), ("left", "right")))
    alone = bare.rows_per_second
    limit = sum(each.rows_per_second for each in pair)
    yield Figure(f"{kind}: bare loop", alone, "rows/s")
    yield Figure(f"{kind}: length of the run with Ray, 1 worker", one.seconds, "s", at_least=120)
    yield Figure(f"{kind}: Ray, 1 worker", one.rows_per_second, "rows/s")
    yield Figure(f"{kind}: cost of Ray over the bare loop", 100 * (alone / one.rows_per_second - 1), "%", at_most=5)
    yield Figure(f"{kind}: start of Ray before the first logged step", one.start - bare.start, "s")
    yield Figure(f"{kind}: data wait, 1 worker", 100 * one.data_wait, "%", at_most=5)
    yield Figure(f"{kind}: data wait, 2 workers", 100 * two.data_wait, "%", at_most=5)
    yield Figure(f"{kind}: 2 workers over 1", two.rows_per_second / one.rows_per_second, "x", at_least=1.7)
    yield Figure(f"{kind}: 2 bare loops side by side over one: the machine's limit", limit / alone, "x")
    yield Figure(f"{kind}: 2 workers over 2 bare loops side by side", two.rows_per_second / limit, "x")


def _config(kind: str) -> Path:
    return ROOT / "configs" / "smoke" / f"{kind}.yaml"


def _folder(kind: str, name: str) -> Path:
    return ROOT / "runs" / "bench_train" / kind / name


def _prepare(kind: str) -> None:
    folder = _folder(kind, "prepared")
    if read_manifest(folder, "prepare") is None:
        command = [sys.executable, "-m", "raysl.cli", "prepare", str(_config(kind)), f"run_dir={folder}"]
        subprocess.run(command, cwd=ROOT, check=True)


def _measured(kind: str, name: str, command: list[str], workers: int, niceness: int = 0) -> Measured:
    folder, steps = _folder(kind, name), round(MINUTES * STEPS_A_MINUTE[kind])
    storage.remove(folder / "pretrain")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "prepare").is_symlink():
        (folder / "prepare").symlink_to(_folder(kind, "prepared") / "prepare", target_is_directory=True)
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    overrides = [f"run_dir={folder}", f"pretrain.max_steps={steps}", f"pretrain.num_workers={workers}",
                 "pretrain.log_every_steps=10", f"pretrain.evaluate_every_steps={steps}"]  # fmt: skip
    began = time.time()
    nice = ["nice", "-n", str(niceness)] if niceness else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([*nice, *command, str(_config(kind)), *overrides], cwd=ROOT, check=True, env=environment)
    return _read(kind, folder, began)


def _read(kind: str, folder: Path, began: float) -> Measured:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    seconds = steps[-1]["time"] - steps[0]["time"]
    rows = (steps[-1]["step"] - steps[0]["step"]) * run_config.load(_config(kind)).training.global_batch_size
    waits = [line["data_wait"] for line in steps[1:]]
    return Measured(rows / seconds, sum(waits) / len(waits), seconds, steps[0]["time"] - began)
