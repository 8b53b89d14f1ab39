"""The smoke run itself: seconds of each stage and the parity of what it released."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import Figure
from raysl import run_config, storage
from raysl.stage import MANIFEST

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "smoke" / "bert.yaml"


def finished_run() -> Path:
    """Folder of the smoke run, made or completed by the command a user types."""
    subprocess.run([sys.executable, "-m", "raysl.cli", "run", str(CONFIG)], cwd=ROOT, check=True)
    return ROOT / run_config.load(CONFIG).folder.relative_to(Path.cwd())


def run() -> Iterator[Figure]:
    """Seconds are those of the start that made the stage; all of them have to fit the 12 minutes to the first query."""
    stages = storage.read_json(finished_run() / MANIFEST)["stages"]
    for name, stage in stages.items():
        yield Figure(f"{name}", stage["seconds"], "s")
    yield Figure("all stages", sum(stage["seconds"] for stage in stages.values()), "s", at_most=540)
    yield Figure("ONNX against PyTorch", stages["release"]["metrics"]["parity"], "", at_most=1e-4)
