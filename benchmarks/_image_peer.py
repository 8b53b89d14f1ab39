"""Image benchmarks in turns: lightly's side runs in a Python of its own (RAYSL_PEERS_PYTHON), ours in this one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks import Figure

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("RAYSL_SHARED", ROOT.parent / "shared"))
PYTHON = os.environ.get("RAYSL_PEERS_PYTHON", sys.executable)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def why_not() -> str | None:
    """Why the peers cannot be run here; None where they can."""
    if not (SHARED / "peers" / "train").is_dir():
        return f"{SHARED}/peers/train is not there; set RAYSL_SHARED to the folder that holds peers/ and data/"
    found = "import sys, importlib.util as u; sys.exit(None in map(u.find_spec, sys.argv[1:]))"
    done = subprocess.run([PYTHON, "-c", found, "lightly", "timm"], capture_output=True)
    return "set RAYSL_PEERS_PYTHON to a Python with lightly and timm" if done.returncode else None


def rate(command: list[str], cwd: Path) -> float:
    """Images a CPU-second of one thread, from the last line that a script prints."""
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    line = [line for line in done.stdout.splitlines() if line.startswith("{")][-1]
    return float(json.loads(line)["per_cpu_s_p50"])


def ours(*arguments: str) -> float:
    return rate([sys.executable, "-m", "benchmarks._image_own", *arguments], ROOT)


def lightly(script: str, *arguments: str) -> float:
    return rate([PYTHON, script, *arguments], SHARED / "peers" / "train")


def ratio(name: str, own: list[float], peer: list[float], at_least: float) -> Figure:
    """Median over the turns of ours over theirs."""
    return Figure(name, median(a / b for a, b in zip(own, peer, strict=True)), "x", at_least=at_least)
