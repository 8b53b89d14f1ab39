"""How fast the command line answers: `--help`, a wrong key."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import Figure

REPEATS = 5
SHIPPED = Path(__file__).parents[1] / "configs" / "smoke" / "bert.yaml"


def run() -> Iterator[Figure]:
    yield Figure("raysl --help", _median(["--help"], 0), "s", at_most=0.3)
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["pretrain", str(SHIPPED), f"run_dir={folder}", "pretrain.max_stepz=1"]
        yield Figure("a wrong key refused", _median(arguments, 2), "s", at_most=1)


def _median(arguments: list[str], code: int) -> float:
    """Seconds of the middle one of a few runs."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "raysl.cli", *arguments], capture_output=True, text=True)
        times.append(time.perf_counter() - started)
        if done.returncode != code:
            raise RuntimeError(f"raysl {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return statistics.median(times)
