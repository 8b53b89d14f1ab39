"""Runs the peers' training scripts and ours side by side, one thread each, in turns."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("RAYSL_SHARED", ROOT.parent / "shared"))
PYTHON = os.environ.get("RAYSL_PEERS_PYTHON", sys.executable)
"""Python that has transformers and accelerate; the one in use by default."""


def why_not() -> str | None:
    """What is missing for a comparison, in words."""
    if not (SHARED / "peers" / "train").is_dir():
        return f"{SHARED}/peers/train is not there; set RAYSL_SHARED to the folder that holds peers/ and data/"
    found = "import sys, importlib.util as u; sys.exit(None in map(u.find_spec, sys.argv[1:]))"
    done = subprocess.run([PYTHON, "-c", found, "transformers", "accelerate"], capture_output=True)
    return "set RAYSL_PEERS_PYTHON to a Python with transformers and accelerate" if done.returncode else None


def ours(objective: str, texts: str, steps: int, *more: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks._train_own", objective, str(SHARED / "data" / texts), "--steps", str(steps)]
    return _last_line([*command, *more])


def theirs(script: str, texts: str, implementation: str, steps: int) -> dict[str, float]:
    paths = [str(SHARED / "peers" / "train" / script), str(SHARED / "data" / texts)]
    return _last_line([PYTHON, *paths, "--impl", implementation, "--iters", str(steps)])


def _last_line(command: Sequence[str]) -> dict[str, float]:
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return dict(json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith('{"'))))


def ratio(own: Sequence[dict[str, float]], peer: Sequence[dict[str, float]]) -> float:
    """Median over the rounds of our rate over theirs in the same round."""
    return statistics.median(a["per_cpu_s_p50"] / b["per_cpu_s_p50"] for a, b in zip(own, peer, strict=True))
