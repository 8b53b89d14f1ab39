"""`prepare` on ten times the documents: CPU, memory and bytes, with keys grouped in one task and in many."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import Figure
from benchmarks._synthetic import write_corpus
from benchmarks.prepare_fixed import make_config
from raysl import cluster, storage
from raysl.data import minhash, usage
from raysl.data.pipeline import prepare

SIZES = (100_000, 1_000_000)
GROUPINGS = {"one task": 1000.0, "many tasks": 18.0}
"""Name -> max_task_mb; the second one is passed by the smaller corpus already."""


@dataclass(frozen=True)
class Took:
    """One run of `prepare`."""

    seconds: float
    cpu_seconds: float
    """Of all tasks."""
    task_mb: float
    """Peak of the largest task."""
    driver_mb: float
    files: Mapping[str, str]


def run() -> Iterator[Figure]:
    cluster.connect(num_cpus=2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        took = {}
        for size in SIZES:
            write_corpus(folder / f"{size}.parquet", size)
            for grouping, max_task_mb in GROUPINGS.items():
                took[size, grouping] = measured(folder, size, grouping, max_task_mb)
        cluster.disconnect()
        for size in SIZES:  # last, so that its memory is not the driver's
            yield from same(folder, size, [took[size, grouping] for grouping in GROUPINGS])
    for grouping in GROUPINGS:
        yield from growth(grouping, *(took[size, grouping] for size in SIZES))


def measured(folder: Path, size: int, grouping: str, max_task_mb: float) -> Took:
    """The reported times and peaks of each step are printed: where time goes."""
    config = make_config(folder / f"{size} {grouping}", folder / f"{size}.parquet", max_task_mb=max_task_mb)
    usage.reset_peak()
    started = time.monotonic()
    manifest = prepare(config)
    seconds, driver_mb = time.monotonic() - started, usage.peak_mb()
    steps = storage.read_json(config.folder / "prepare" / "report.json")["usage"]
    print(f"{size:,} documents, {grouping}: {seconds:.0f} s, driver {driver_mb:.0f} MB")
    for step, used in steps.items():
        print(f"  {step:<13} {used['seconds']:>7.1f} s {used['cpu_seconds']:>7.1f} CPU-s {used['peak_mb']:>6.0f} MB")
    cpu = sum(used["cpu_seconds"] for used in steps.values())
    return Took(seconds, cpu, max(used["peak_mb"] for used in steps.values()), driver_mb, manifest.files)


def same(folder: Path, size: int, runs: list[Took]) -> Iterator[Figure]:
    """Both groupings leave the same files, and remove what the plain function removes."""
    yield Figure(f"{size:,}: same files", float(runs[0].files == runs[1].files), "", at_least=1)
    table = pq.read_table(folder / f"{size}.parquet")
    found = minhash.deduplicate(table["text"])
    ids = table["id"].to_pylist()
    plain = [(ids[row], ids[found.kept[row]], found.jaccard[row]) for row in found.removed]
    removed = pq.read_table(folder / f"{size} one task" / "run" / "prepare" / "removed.parquet")
    rows = list(zip(*(removed[name].to_pylist() for name in ("id", "kept_id", "jaccard")), strict=True))
    yield Figure(f"{size:,}: removed as by the plain function", float(rows == plain), "", at_least=1)
    yield Figure(f"{size:,}: removed", len(rows), "documents")


def growth(grouping: str, small: Took, large: Took) -> Iterator[Figure]:
    times = SIZES[1] / SIZES[0]
    yield Figure(f"{grouping}: CPU a document, 1M by 100k", large.cpu_seconds / small.cpu_seconds / times, "", at_most=1)
    yield Figure(f"{grouping}: peak of a task, 1M by 100k", large.task_mb / small.task_mb, "", at_most=1.5)
    yield Figure(f"{grouping}: peak of the driver, 1M by 100k", large.driver_mb / small.driver_mb, "", at_most=1.5)
