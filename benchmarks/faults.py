"""Pretraining under faults: a worker, a node and the driver are killed mid-epoch; what is lost, and is it bit-equal?

A tiny BERT trains on two workers while processes are killed with SIGKILL at seeded random steps, ten times each
(RAYSL_FAULTS=3 for fewer, RAYSL_FAULT_KINDS=worker,driver for some). The rows that every worker wrote down and the final
weights are compared with those of the undisturbed run. Nodes are network namespaces (root and iproute2), each with a Ray
node of its own; the killed one comes back. A killed driver leaves them running, and a second one starts there. Trials that
are done stand in trials.jsonl of a folder in runs/faults, another for each state of raysl's code, and are not done again.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from benchmarks import Figure
from raysl import storage
from raysl.train import record
from tests import two_hosts
from tests.two_hosts import Host

ROOT = Path(__file__).parents[1]
CODE = b"".join(path.read_bytes() for path in sorted((ROOT / "raysl").rglob("*.py")))
FOLDER = ROOT / "runs" / "faults" / hashlib.sha256(CODE).hexdigest()[:12]
TRIALS = int(os.environ.get("RAYSL_FAULTS", "10"))
KINDS = tuple(os.environ.get("RAYSL_FAULT_KINDS", "worker,driver,node").split(","))
STEPS, CHECKPOINT_EVERY, WORKERS = 240, 20, 2
TIMEOUT_S = 600
WORDS = ["open", "read", "write", "close", "file", "socket", "server", "client", "matrix", "vector", "sum", "list", "tuple"]

HEAD = ["fault", "trial", "killed at", "went on from", "finished", "wrong steps", "bit-equal", "seconds"]


@dataclass(frozen=True)
class Trial:
    """One disturbed run."""

    fault: str
    number: int
    killed_at: int
    """Last step that rank 0 had done."""
    went_on_from: int
    """Step of the checkpoint that the run went on from; -1 where it began again, as no checkpoint was there yet."""
    finished: bool
    wrong_steps: int
    """Steps whose rows differ from those of the undisturbed run."""
    bit_equal: bool
    seconds: float


def run() -> Iterator[Figure]:
    """Kills, compares and counts; the table of all trials comes first."""
    trials = list(_trials())
    for row in [HEAD, *([str(value) for value in asdict(t).values()] for t in trials)]:
        print("  ".join(f"{cell[:12]:>{max(len(name), 8)}}" for cell, name in zip(row, HEAD, strict=True)))
    for kind in KINDS:
        mine = [t for t in trials if t.fault == kind]
        if not mine:
            continue
        yield Figure(f"{kind} killed", len(mine), "times", at_least=TRIALS)
        saved = [t.went_on_from >= 0 for t in mine if t.killed_at > CHECKPOINT_EVERY]
        yield Figure(f"{kind} killed: went on from a checkpoint", sum(saved), "runs", at_least=len(saved))
        yield Figure(f"{kind} killed: finished", sum(t.finished for t in mine), "runs", at_least=len(mine))
        yield Figure(f"{kind} killed: steps with wrong rows", sum(t.wrong_steps for t in mine), "", at_most=0)
        yield Figure(f"{kind} killed: bit-equal weights", sum(t.bit_equal for t in mine), "runs", at_least=len(mine))


def _trials() -> Iterator[Trial]:
    done = _done()
    reference = _reference()
    missing, hosts = two_hosts.missing(), list[Host]()
    with ExitStack() as open_things:
        for kind in KINDS:
            if kind == "node" and missing:
                print(f"node: skipped, {missing}")
                continue
            for number in range(TRIALS):
                if (kind, number) not in done:
                    if kind != "worker" and not hosts and not missing:
                        hosts = _started_hosts(open_things)
                    trial = _disturbed(kind, number, reference, () if kind == "worker" else hosts)
                    storage.append_jsonl(FOLDER / "trials.jsonl", asdict(trial))
                    done[kind, number] = trial
                yield done[kind, number]


def _done() -> dict[tuple[str, int], Trial]:
    path = FOLDER / "trials.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {(t.fault, t.number): t for t in (Trial(**json.loads(line)) for line in lines)}


def _reference() -> Path:
    """The undisturbed run, made once over rows that are prepared once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / "text").is_dir():
        numbers = random.Random(0)
        (FOLDER / "text").mkdir()
        for name in range(40):
            lines = [" ".join(numbers.choices(WORDS, k=40)) for _ in range(20)]
            (FOLDER / "text" / f"{name:02d}.txt").write_text("\n".join(lines))
    path = _yaml("reference")
    subprocess.run([*_raysl("prepare"), str(path)], cwd=ROOT, check=True)
    subprocess.run([*_raysl("pretrain"), str(path)], cwd=ROOT, check=True)
    return FOLDER / "reference"


def _yaml(name: str) -> Path:
    data = {
        "name": name,
        "run_dir": str(FOLDER / name),
        "prepare": {
            "source": {"type": "files", "path": str(FOLDER / "text"), "txt_unit": "line"},
            "tokenizer": {"type": "wordpiece", "vocab_size": 300},
        },
        "pretrain": {
            "objective": "bert",
            "model": {"type": "bert", "num_layers": 2, "width": 64, "num_heads": 2, "context_length": 64},
            "global_batch_size": 32, "max_steps": STEPS, "num_workers": WORKERS, "precision": "fp32", "device": "cpu",
            "ema_decay": 0.99, "log_every_steps": 10, "evaluate_every_steps": 60, "tensorboard": False,
            "checkpoint": {"every_steps": CHECKPOINT_EVERY}, "max_failures": 5, "record_rows": True,
        },
    }  # fmt: skip
    path = FOLDER / f"{name}.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def _raysl(command: str) -> list[str]:
    return [sys.executable, "-m", "raysl.cli", command]


def _disturbed(kind: str, number: int, reference: Path, hosts: Sequence[Host]) -> Trial:
    moment = random.Random(f"{kind} {number}").randrange(5, STEPS - 10)
    name = f"{kind}-{number}"
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "prepare").symlink_to(reference / "prepare", target_is_directory=True)
    command = [*_raysl("pretrain"), str(_yaml(name))]
    started = time.monotonic()
    process = _start(command, hosts)
    killed_at = _wait_for_step(folder, moment, process)
    FAULTS[kind](process, number, hosts)
    if kind == "driver":
        process.wait()
        process = _start(command, hosts)
    code = _wait(process)
    return Trial(
        kind, number, killed_at, _went_on_from(folder), code == 0, _wrong_steps(folder, reference),
        _same_weights(folder, reference), time.monotonic() - started,
    )  # fmt: skip


def _start(command: list[str], hosts: Sequence[Host]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if hosts:
        head = hosts[0]
        environment = {**head.environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        environment["RAY_ADDRESS"] = f"{head.address}:6379"
        command = ["ip", "netns", "exec", head.name, *command]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return -1


def _wait_for_step(folder: Path, step: int, process: subprocess.Popen[bytes]) -> int:
    until = time.monotonic() + TIMEOUT_S
    path = folder / "pretrain" / "rows" / f"from-{0:09d}-rank-0-of-{WORKERS}.jsonl"
    while time.monotonic() < until and process.poll() is None:
        done = path.read_text(encoding="utf-8").count("\n") if path.is_file() else 0
        if done >= step:
            return done
        time.sleep(0.01)
    raise RuntimeError(f"{folder} ended with {process.poll()} before step {step}; see {folder / 'raysl.log'}")


def _kill_worker(process: subprocess.Popen[bytes], number: int, hosts: Sequence[Host]) -> None:
    workers = sorted(pid for pid in _descendants(process.pid) if _name(pid).startswith("ray::RayTrainWorker"))
    os.kill(workers[number % len(workers)], signal.SIGKILL)


def _kill_driver(process: subprocess.Popen[bytes], number: int, hosts: Sequence[Host]) -> None:
    process.kill()


def _kill_node(process: subprocess.Popen[bytes], number: int, hosts: Sequence[Host]) -> None:
    """The second host loses all its processes at once, and comes back as a new node."""
    two_hosts.kill(hosts[1])
    time.sleep(1)
    two_hosts.join(hosts[1], hosts[0], Path(hosts[1].environment["HOME"]).parent / f"ray2-{number}")


FAULTS: dict[str, Callable[[subprocess.Popen[bytes], int, Sequence[Host]], None]] = {
    "worker": _kill_worker,
    "driver": _kill_driver,
    "node": _kill_node,
}


def _started_hosts(open_things: ExitStack) -> list[Host]:
    """A short path: the name of a Unix socket has 107 characters at most."""
    folder = Path(tempfile.mkdtemp(prefix="raysl_f_"))
    open_things.callback(shutil.rmtree, folder, ignore_errors=True)
    hosts = open_things.enter_context(two_hosts.two_hosts(folder))
    two_hosts.start_ray(hosts, folder)
    return list(hosts)


def _descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError):
                parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found, waiting = [], [pid]
    while waiting:
        children = [child for child, parent in parents.items() if parent == waiting[0]]
        found += children
        waiting = [*waiting[1:], *children]
    return found


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    return ""


def _went_on_from(folder: Path) -> int:
    starts = sorted({int(path.name.split("-")[1]) for path in (folder / "pretrain" / "rows").glob("from-*")})
    return starts[-1] if len(starts) > 1 else -1


def _wrong_steps(folder: Path, reference: Path) -> int:
    expected, seen = (record.read(run / "pretrain" / "rows") for run in (reference, folder))
    return sum(expected.get(step) != seen.get(step) for step in {*expected, *seen})


def _same_weights(folder: Path, reference: Path) -> bool:
    ours, theirs = (run / "pretrain" / "model.safetensors" for run in (folder, reference))
    return ours.is_file() and storage.hash_file(ours) == storage.hash_file(theirs)
