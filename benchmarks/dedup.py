"""Near-duplicate removal beside its peers, scored against exact truth (needs ../shared, or RAYSL_SHARED).

Peers do not fit one environment: RAYSL_PEERS names a folder of virtual environments, one for each of PEERS.
"""

import gzip
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import Figure
from raysl.data import minhash
from raysl.data.sources import BadRows, PythonDocs

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("RAYSL_SHARED", ROOT.parent / "shared"))
CORPUS = ROOT / "runs" / "bench_dedup"
CORPUS_MB = 85
RUNS = 3
PEER_ENVIRONMENTS = Path(os.environ.get("RAYSL_PEERS", ROOT.parent / "peers"))
BANDS, ROWS = minhash.lsh_parameters(0.8)
PEERS = {"datasketch": "datasketch", "rensa": "rensa", "gaoya": "gaoya", "daft": "daft", "datatrove": "datatrove"}
"""System of peers/dedup/run.py -> the module it needs."""


def own(path: str, threshold: float, bands: int, rows: int, ngram: int = 5) -> tuple[Any, Any]:
    """The entry for the peers' `own` slot: removed row numbers and cluster labels."""
    return _own(path, threshold, bands, rows, ngram, compiled=True)


def own_numpy(path: str, threshold: float, bands: int, rows: int, ngram: int = 5) -> tuple[Any, Any]:
    """The same without numba."""
    return _own(path, threshold, bands, rows, ngram, compiled=False)


def _own(path: str, threshold: float, bands: int, rows: int, ngram: int, compiled: bool) -> tuple[Any, Any]:
    texts = pq.read_table(path, columns=["text"])["text"]
    found = minhash.deduplicate(texts, threshold, ngram, bands, rows, compiled=compiled)
    return found.removed, found.cluster


def run() -> Iterator[Figure]:
    if not (SHARED / "peers" / "dedup").is_dir():
        print(f"skipped: {SHARED}/peers/dedup is not there; set RAYSL_SHARED to the folder that holds peers/ and data/")
        return
    make_corpus()
    yield Figure("parquet to removed list, numba, warm process", warm(own), "MB/CPU-s", at_least=60)
    yield Figure("parquet to removed list, numpy, warm process", warm(own_numpy), "MB/CPU-s", at_least=40)
    fast = measured("own", "own")
    yield Figure("numba, with start, imports and cached JIT", fast["mb_per_cpu_s"], "MB/CPU-s")
    yield Figure("numpy, with start and imports", measured("own", "own_numpy")["mb_per_cpu_s"], "MB/CPU-s")
    for system, module in PEERS.items():
        if python_of(system, module) is None:
            print(f"skipped: {system} is neither installed here nor in {PEER_ENVIRONMENTS / system}")
            continue
        found = measured(system, None, runs=1)
        yield Figure(system, found["mb_per_cpu_s"], "MB/CPU-s")
        told = ("precision_80", "kept_neighbour_80", "leak", "peak_mb")
        print(f"  {system}: " + ", ".join(f"{name} {found[name]:.4g}" for name in told))
    yield from quality(fast)
    yield from licences()


def python_of(system: str, module: str) -> str | None:
    """The interpreter that has a peer."""
    own = PEER_ENVIRONMENTS / system / "bin" / "python"
    if own.is_file():
        return str(own)
    return sys.executable if importlib.util.find_spec(module) else None


def warm(function: Callable[..., Any]) -> float:
    """MB of text per CPU second (all threads) of the best call after the first, which loads compiled code."""
    path = CORPUS / "corpus.parquet"
    num_bytes = sum(len(text.encode()) for text in pq.read_table(path, columns=["text"])["text"].to_pylist())
    seconds = []
    for _ in range(1 + RUNS):
        started = time.process_time()
        function(str(path), threshold=0.8, bands=BANDS, rows=ROWS)
        seconds.append(time.process_time() - started)
    return num_bytes / 1e6 / min(seconds[1:])


def quality(result: dict[str, Any]) -> Iterator[Figure]:
    yield Figure("removed with any neighbour at J >= .8", result["precision_80"], "", at_least=1)
    yield Figure("removed with a kept neighbour at J >= .8", result["kept_neighbour_80"], "", at_least=1)
    yield Figure("true pairs left", result["leak"], "", at_most=0.001)
    yield Figure("planted recall at J = .8", result["recall"]["0.8"], "", at_least=0.99)
    for bucket in ("0.85", "0.9", "0.95", "1.0"):
        if bucket in result["recall"]:
            yield Figure(f"planted recall at J = {bucket}", result["recall"][bucket], "", at_least=1)


def measured(system: str, entry: str | None, runs: int = RUNS) -> dict[str, Any]:
    """The best of a few runs, so that a neighbour on the machine counts less."""
    python = python_of(system, PEERS[system]) if system in PEERS else sys.executable
    command = [str(python), str(SHARED / "peers/dedup/run.py"), str(CORPUS), "--system", system, "--runs", str(runs)]
    command += ["--bands", str(BANDS), "--rows", str(ROWS), "--entry", f"benchmarks.dedup:{entry}"] if entry else []
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return max(records, key=lambda record: record.get("mb_per_cpu_s") or 0)


def make_corpus() -> None:
    """Novels, PEPs, dialogues and docstrings with planted near-duplicates; finding every true pair takes minutes."""
    if (CORPUS / "truepairs.parquet").is_file():
        return
    CORPUS.mkdir(parents=True, exist_ok=True)
    docs = CORPUS / "docstrings.jsonl"
    source = PythonDocs(PythonDocs.Config())
    with open(docs, "w", encoding="utf-8") as file:
        for partition in source.partitions(10.0):
            for table in source.read(partition, BadRows()):
                file.writelines(json.dumps({"text": text}) + "\n" for text in table["text"].to_pylist())
    text = SHARED / "data" / "text"
    inputs = [str(docs), str(text / "peps.jsonl.gz"), str(text / "gutenberg")]
    command = [sys.executable, str(SHARED / "peers/dedup/corpus.py"), *inputs, "--out", str(CORPUS), "--mb", str(CORPUS_MB)]
    subprocess.run(command, check=True)


def licences() -> Iterator[Figure]:
    """Licence texts, dense in pairs all the way from .5 to 1."""
    with gzip.open(SHARED / "data/dedup/license_texts.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    place = {row["id"]: number for number, row in enumerate(rows)}
    pairs = pq.read_table(SHARED / "data/dedup/license_texts_pairs.parquet", filters=[("jaccard", ">=", 0.8)])
    first, second = (np.array([place[name] for name in pairs[side].to_pylist()]) for side in ("a", "b"))
    found = minhash.deduplicate(pa.array([row["text"] for row in rows]))
    removed = found.kept >= 0
    neighbour = np.zeros(len(rows), np.bool_)
    neighbour[first[~removed[second]]] = True
    neighbour[second[~removed[first]]] = True
    yield Figure("licences: removed", float(removed.sum()), "texts")
    yield Figure("licences: with a kept neighbour at J >= .8", float(neighbour[removed].mean()), "", at_least=1)
    left = ~removed[first] & ~removed[second]
    yield Figure("licences: true pairs left", float(left.mean()), "", at_most=0.001)
