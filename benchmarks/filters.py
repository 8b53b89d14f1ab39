"""Quality filters: speed, and decisions beside datatrove's on 10,000 real documents (DATATROVE_PYTHON: its interpreter)."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import Figure, _documents
from raysl.data.filters import Filter, run_filters
from raysl.data.filters.c4 import C4
from raysl.data.filters.fineweb import FineWeb
from raysl.data.filters.quality import Quality
from raysl.data.filters.repetition import Repetition
from raysl.data.text import normalize

PYTHON = os.environ.get("DATATROVE_PYTHON", sys.executable)
WORK = _documents.ROOT / "runs" / "bench_filters"
NUM_DOCUMENTS, NUM_NUMPY, NUM_PEER = 10_000, 2000, 1000
BATCH = 1024
RUNS = 3
REPEATED_LINE_CHARS = 0.1
"""FineWeb's rule as the paper has it; datatrove's code has 0.01."""


def run() -> Iterator[Figure]:
    if not _documents.available():
        return
    texts = [text for text in map(normalize, _documents.mixture(NUM_DOCUMENTS)) if text]
    table = pa.table({"id": [str(n) for n in range(len(texts))], "text": texts, "label": pa.nulls(len(texts), pa.string())})
    print(f"{len(texts):,} documents, {size_of(table) / 1e6:.1f} MB; all four families one after the other, one thread")
    yield Figure("compiled, first batch, JIT cached or not", cpu_seconds(table.slice(0, 1), True), "CPU-s")
    yield Figure("compiled", speed(table, True), "MB/CPU-s", at_least=25)
    yield Figure("without numba", speed(table.slice(0, NUM_NUMPY), False), "MB/CPU-s")
    for family in families():
        yield Figure(f"compiled, {type(family).__name__} alone", speed(table, True, [type(family).__name__]), "MB/CPU-s")
    yield from beside_datatrove(table)


def families() -> list[Filter]:
    """Thresholds, marks and quotes as datatrove has them."""
    return [
        Quality(Quality.Config(count_marks=True)), Repetition(Repetition.Config()),
        C4(C4.Config(typographic_quotes=False)), FineWeb(FineWeb.Config(max_repeated_line_chars=REPEATED_LINE_CHARS)),
    ]  # fmt: skip


def size_of(table: pa.Table) -> int:
    return sum(len(text.encode()) for text in table["text"].to_pylist())


def cpu_seconds(table: pa.Table, compiled: bool, names: Sequence[str] = ()) -> float:
    filters = [one for one in families() if not names or type(one).__name__ in names]
    for one in filters:
        one.compiled = compiled
    batches = [table.slice(start, BATCH) for start in range(0, len(table), BATCH)]
    started = time.process_time()
    for batch in batches:
        run_filters(filters, batch)
    return time.process_time() - started


def speed(table: pa.Table, compiled: bool, names: Sequence[str] = ()) -> float:
    return size_of(table) / 1e6 / min(cpu_seconds(table, compiled, names) for _ in range(RUNS))


def beside_datatrove(table: pa.Table) -> Iterator[Figure]:
    if subprocess.run([PYTHON, "-c", "import datatrove, spacy"], capture_output=True).returncode:
        print("skipped: datatrove is not installed; set DATATROVE_PYTHON to an interpreter that has it")
        return
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / "documents.jsonl"
    _documents.write_jsonl(table["text"].to_pylist(), path)
    peer = datatrove(path)
    yield Figure(f"datatrove, the first {NUM_PEER:,}", peer["chain_bytes"] / 1e6 / peer["chain_seconds"], "MB/CPU-s")
    for name, family in zip(peer["decisions"], families(), strict=True):
        family.compiled = True
        theirs, ours = peer["decisions"][name], reasons(family, table)
        same = [bool(one) == bool(other) for one, other in zip(ours, theirs, strict=True)]
        print_differences(name, theirs, ours)
        yield Figure(f"decisions equal to datatrove's: {name}", float(np.mean(same)), "", at_least=0.99)


def datatrove(path: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("_datatrove_filters.py")
    command = [PYTHON, "-P", str(script), str(path), str(NUM_PEER), str(REPEATED_LINE_CHARS)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def reasons(family: Filter, table: pa.Table) -> list[str]:
    """The first reason of each document, '' for those that stay."""
    found = [""] * len(table)
    for reason, keep in reversed(list(family.keep(table).items())):
        for row in np.flatnonzero(~np.asarray(keep)):
            found[row] = reason
    return found


def print_differences(name: str, theirs: Sequence[str], ours: Sequence[str]) -> None:
    pairs = Counter((one, other) for one, other in zip(theirs, ours, strict=True) if bool(one) != bool(other))
    for (one, other), count in pairs.most_common():
        print(f"  {name:<11} datatrove: {one or 'keeps':<30} raysl: {other or 'keeps':<24} {count:>4}")
