"""Latency and CPU per request of the service beside plain FastAPI with the same model and micro-batcher.

A classifier of two transformer layers of width 128, random weights, 64 tokens a text. All servers run at once and are
asked in turns, three rounds, medians; the client is asyncio on the same machine, its cost is not counted.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import Figure
from benchmarks._serve_peer import free_port, make_bundle

ROUNDS, SECONDS, CONNECTIONS = 3, 3.0, (1, 16, 64)
TEXT = "Return the absolute value of the argument, which may be an integer or a floating point number. " * 3
BODY = json.dumps({"text": TEXT}).encode()
SERVE = "import sys; from raysl import run_config; from raysl.serve.app import serve; serve(run_config.load(sys.argv[1]))"


@dataclass(frozen=True)
class Cell:
    """One round at one number of connections."""

    rate: float
    """Answers a second."""
    p50: float
    p99: float
    cpu: float
    """CPU ms a request, of the server and all its processes."""
    errors: int


def run() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        version = make_bundle(Path(folder))
        servers = {
            name: stack.enter_context(serving(Path(folder), name, version)) for name in ("fastapi", "direct", "proxy")
        }
        cells: dict[tuple[str, int], list[Cell]] = {}
        for _ in range(ROUNDS):
            for connections in CONNECTIONS:
                for name, (pid, port) in servers.items():
                    cells.setdefault((name, connections), []).append(measure(pid, port, connections))
    yield from figures({key: middle(rounds) for key, rounds in cells.items()})


def figures(cells: dict[tuple[str, int], Cell]) -> Iterator[Figure]:
    ours, peer = "direct", "fastapi"
    for connections in CONNECTIONS[:2]:
        cell = cells[ours, connections]
        yield Figure(f"latency p50, {connections} connections", cell.p50, "ms", at_most=5 if connections == 1 else 25)
        yield Figure(f"latency p99, {connections} connections", cell.p99, "ms", at_most=15 if connections == 1 else 40)
    for connections in CONNECTIONS:
        ratio = cells[ours, connections].rate / cells[peer, connections].rate
        yield Figure(f"requests/s over FastAPI's, {connections} connections", ratio, "x", at_least=0.9)
    yield Figure("requests/s at 64 over 16 connections", cells[ours, 64].rate / cells[ours, 16].rate, "x", at_least=0.9)
    for name, limit in ((ours, None), (peer, None), ("proxy", None)):
        yield Figure(f"CPU per request at 16, {name}", cells[name, 16].cpu, "ms", at_most=limit)
        yield Figure(f"requests/s at 16, {name}", cells[name, 16].rate, "/s")
    overhead = cells[ours, 16].cpu / cells[peer, 16].cpu
    yield Figure("CPU per request over FastAPI's, 16 connections", overhead, "x", at_most=1.3)
    yield Figure("answers that were not 200", sum(cell.errors for cell in cells.values()), "", at_most=0)


def middle(rounds: list[Cell]) -> Cell:
    values = {name: statistics.median(getattr(cell, name) for cell in rounds) for name in ("rate", "p50", "p99", "cpu")}
    return Cell(**values, errors=sum(cell.errors for cell in rounds))


@contextmanager
def serving(folder: Path, name: str, version: int) -> Iterator[tuple[int, int]]:
    """(pid, port) of a server that answers; afterwards it is stopped."""
    port = free_port()
    if name == "fastapi":
        bundle = folder / "registry" / "versions" / str(version)
        command = [sys.executable, "-m", "benchmarks._serve_peer", str(bundle), str(port)]
    else:
        config: dict[str, Any] = {
            "name": name, "run_dir": str(folder), "prepare": {"source": "python_docs"},
            "pretrain": {"objective": "bert", "model": "bert"},
            "serve": {"tasks": ["classify"], "port": port, "ingress": name, "cpus_per_replica": 0.5},
        }  # fmt: skip
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps(config))
        command = [sys.executable, "-c", SERVE, str(path)]
    with open(folder / f"{name}.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until_answering(process, port, folder / f"{name}.log")
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(60)


def wait_until_answering(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended:\n{log.read_text()}")
        if asyncio.run(_load(port, 1, 0.1))[0]:
            return
        time.sleep(0.2)
    raise RuntimeError(f"the server does not answer:\n{log.read_text()}")


def measure(pid: int, port: int, connections: int) -> Cell:
    asyncio.run(_load(port, connections, 0.5))
    before, started = tree_cpu(pid), time.perf_counter()
    latencies, errors = asyncio.run(_load(port, connections, SECONDS))
    seconds, used = time.perf_counter() - started, tree_cpu(pid) - before
    points = statistics.quantiles(latencies, n=100)
    return Cell(len(latencies) / seconds, 1e3 * points[49], 1e3 * points[98], 1e3 * used / len(latencies), errors)


async def _load(port: int, connections: int, seconds: float) -> tuple[list[float], int]:
    """Latencies in s and the number of answers other than 200, of so many connections that each ask one after another."""
    results = await asyncio.gather(*(_client(port, time.perf_counter() + seconds) for _ in range(connections)))
    return [latency for latencies, _ in results for latency in latencies], sum(errors for _, errors in results)


async def _client(port: int, until: float) -> tuple[list[float], int]:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return [], 1
    head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    latencies, errors = [], 0
    while time.perf_counter() < until:
        started = time.perf_counter()
        writer.write(head.encode() + BODY)
        if await _answer(reader) == 200:
            latencies.append(time.perf_counter() - started)
        else:
            errors += 1
    writer.close()
    return latencies, errors


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"content-length: " in head:
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    else:  # chunks
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return int(head[9:12])


def tree_cpu(pid: int) -> float:
    """CPU seconds of a process and all below it (Linux)."""
    children: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
            used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    waiting, total = [pid], 0.0
    while waiting:
        current = waiting.pop()
        total += used.get(current, 0.0)
        waiting += children.get(current, [])
    return total
