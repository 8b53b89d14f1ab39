"""Keeps what the service was asked and what it answered, off the request path and within bounds.

`record` appends to a queue in memory and returns; a thread writes parquet files, each renamed into place when it is
whole. A full queue, a full disk or a folder that is gone loses records, which are counted, and never a request. A process
that is killed loses what it had not yet written: `flush_seconds` of traffic at most.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysl import storage

logger = logging.getLogger(__name__)

RECORDS, FEEDBACK = "records", "records/feedback"
ROWS_PER_FILE = 1000
"""The newest file is written again until it holds this many rows, so that quiet traffic makes few files."""
STALE_SECONDS = 3600

RECORD = pa.schema(
    [
        ("request_id", pa.string()), ("time", pa.timestamp("us", tz="UTC")), ("task", pa.string()),
        ("text", pa.large_string()), ("prediction", pa.large_string()), ("confidence", pa.float64()),
        ("latency_ms", pa.float64()), ("model_ms", pa.float64()), ("version", pa.int64()),
        ("embedding", pa.large_list(pa.float32())),
    ]
)  # fmt: skip
"""A request: `latency_ms` from its last byte to its answer, `model_ms` its share of the model's batch.

Large types, because all rows together can pass the 2 GiB that the others hold; files with those are read too.
"""

LABELLED = pa.schema([("request_id", pa.string()), ("time", pa.timestamp("us", tz="UTC")), ("label", pa.string())])
"""A label that came later, at /v1/feedback."""


@dataclass(frozen=True, slots=True)
class Record:
    """One answered request."""

    request_id: str
    time: float
    """Seconds since the epoch."""
    task: str
    text: str
    latency_ms: float
    model_ms: float
    version: int
    prediction: str | None = None
    confidence: float | None = None
    embedding: Any = None
    """Numbers of the embedding, or None."""


@dataclass(frozen=True, slots=True)
class Label:
    """One late label."""

    request_id: str
    time: float
    label: str


class RowFiles:
    """Parquet files <folder>/<writer>-<sequence>.parquet; together they hold about the newest `max_rows` rows."""

    def __init__(self, folder: Path, writer: str, arrow_schema: pa.Schema, max_rows: int) -> None:
        self.folder, self.writer, self.schema, self.max_rows = folder, writer, arrow_schema, max_rows
        self._rows: list[dict[str, Any]] = []
        self._sequence = 0
        self._unreadable: set[Path] = set()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes `rows` to disk, or raises OSError and keeps nothing of them."""
        size = max(1, min(ROWS_PER_FILE, self.max_rows))
        for start in range(0, len(rows), size):
            self._append_to_last([dict(row) for row in rows[start : start + size]], size)
        self._prune()

    def _append_to_last(self, rows: list[dict[str, Any]], size: int) -> None:
        if len(self._rows) + len(rows) > size:
            self._rows, self._sequence = [], self._sequence + 1
        table = pa.Table.from_pylist([*self._rows, *rows], self.schema)
        with storage.atomic_path(self.folder / f"{self.writer}-{self._sequence:08d}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
            storage.sync(temporary)  # a rename alone can leave an empty file where the power fails
        self._rows.extend(rows)

    def _prune(self) -> None:
        """Removes the oldest files, of any writer, while the others hold `max_rows` rows."""
        kept = 0
        for path in reversed(row_files(self.folder)):
            if kept >= self.max_rows:
                path.unlink(missing_ok=True)
                continue
            try:
                kept += pq.read_metadata(path).num_rows
            except FileNotFoundError:  # another writer pruned it
                continue
            except pa.ArrowInvalid as error:
                if path not in self._unreadable:
                    _warn_unreadable(path, error)
                self._unreadable.add(path)


def _warn_unreadable(path: Path, error: pa.ArrowInvalid) -> None:
    logger.warning("%s is left out, it cannot be read: %s", path, error)


def row_files(folder: Path) -> list[Path]:
    """Whole files, those written last at the end."""
    times = {}
    for path in folder.glob("*.parquet"):
        try:
            times[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # pruned between the two calls
            continue
    return sorted((path for path in times if not path.name.startswith(".")), key=lambda path: (times[path], path.name))


class Recorder:
    """The records of one replica. `writer` names its files and differs between replicas."""

    def __init__(
        self, run_folder: str | Path, writer: str, *, max_rows: int = 100_000, flush_seconds: float = 2.0,
        queue_rows: int = 10_000, max_text_chars: int = 10_000,
    ) -> None:  # fmt: skip
        root = Path(run_folder)
        self._records = RowFiles(root / RECORDS, writer, RECORD, max_rows)
        self._labels = RowFiles(root / FEEDBACK, writer, LABELLED, max_rows)
        self._flush_seconds, self._queue_rows, self._max_text_chars = flush_seconds, queue_rows, max_text_chars
        self._queue: deque[Record | Label] = deque()
        self._stop, self._writing = threading.Event(), threading.Lock()
        self.dropped = 0
        """Rows lost to a full queue or a disk that refused them."""
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def record(self, row: Record | Label) -> bool:
        """Takes a row to be written later; False where the queue was full and the row is dropped. Never raises."""
        if len(self._queue) >= self._queue_rows:
            self.dropped += 1
            return False
        self._queue.append(row)
        return True

    def _run(self) -> None:
        _remove_stale(self._records.folder)
        _remove_stale(self._labels.folder)
        while not self._stop.wait(self._flush_seconds):
            self.flush()

    def flush(self) -> None:
        """Writes what waits. Rows that the disk refuses are dropped and counted, with one warning each time."""
        with self._writing:
            rows = [self._queue.popleft() for _ in range(len(self._queue))]
            self._write(self._records, [_stored(r, self._max_text_chars) for r in rows if isinstance(r, Record)])
            self._write(self._labels, [_stored(r, self._max_text_chars) for r in rows if isinstance(r, Label)])

    def _write(self, files: RowFiles, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        try:
            files.append(rows)
        except (ValueError, TypeError, pa.ArrowException) as error:  # a task that answers odd values: its own rows go
            good = [row for row in rows if _fits(row, files.schema)]
            if len(good) in (0, len(rows)):
                self._lose(len(rows), error)
            else:
                self._lose(len(rows) - len(good), error)
                self._write(files, good)
        except OSError as error:
            self._lose(len(rows), error)

    def _lose(self, count: int, error: Exception) -> None:
        self.dropped += count
        logger.warning("%d records lost (%d in all): %s", count, self.dropped, error)

    def close(self) -> None:
        """Stops the thread and writes the rest."""
        self._stop.set()
        self._thread.join(timeout=10)
        self.flush()


def _stored(row: Record | Label, max_text_chars: int) -> dict[str, Any]:
    stored = {name: getattr(row, name) for name in row.__slots__}
    stored["time"] = int(row.time * 1e6)
    if isinstance(row, Record):
        stored["text"] = row.text[:max_text_chars].encode("utf-8", "replace").decode()  # a lone surrogate becomes `?`
    return stored


def _fits(row: Mapping[str, Any], arrow_schema: pa.Schema) -> bool:
    try:
        pa.Table.from_pylist([row], arrow_schema)
    except (ValueError, TypeError, pa.ArrowException):
        return False
    return True


def _remove_stale(folder: Path) -> None:
    """Temporary files that a killed process left behind."""
    for path in folder.glob(".*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue


def read_records(run_folder: str | Path, max_rows: int | None = None, where: pc.Expression | None = None) -> pa.Table:
    """All recorded requests of a run, the newest last, with `label` from feedback (null without; the last one wins).

    Different requests that share their id, as one that a gateway gave to all calls of a page, get none.
    `where` says which of them, by the columns of RECORD; the others take no memory.
    """
    root = Path(run_folder)
    records = _read(root / RECORDS, RECORD, where)
    if max_rows is not None:
        records = records.slice(max(0, len(records) - max_rows))
    labels = _read(root / FEEDBACK, LABELLED)
    newest = dict(zip(labels["request_id"].to_pylist(), labels["label"].to_pylist(), strict=True))
    shared = _shared(records)
    found = [None if place in shared else newest.get(name) for place, name in enumerate(records["request_id"].to_pylist())]
    return records.append_column("label", pa.array(found, pa.string()))


def _shared(records: pa.Table) -> set[int]:
    """Places of requests to one task that have their id from a client and differ: a label could be of any of them."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, key in enumerate(zip(records["task"].to_pylist(), records["request_id"].to_pylist(), strict=True)):
        places.setdefault(key, []).append(place)
    asked = records.select(["text", "prediction", "embedding"])
    return {place for alike in places.values() if not _same(asked, alike) for place in alike}


def _same(rows: pa.Table, places: Sequence[int]) -> bool:
    """Whether the rows are equal; looks no further than the first that differs."""
    first = rows.slice(places[0], 1).to_pylist() if len(places) > 1 else []
    return all(_alike(*first, *rows.slice(place, 1).to_pylist()) for place in places[1:])


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """By text and prediction; of what has no recorded text by the embedding, whose last digits depend on its batch."""
    if (one["text"], one["prediction"]) != (other["text"], other["prediction"]):
        return False
    if one["text"] or not one["embedding"] or not other["embedding"]:
        return True
    return len(one["embedding"]) == len(other["embedding"]) and np.allclose(one["embedding"], other["embedding"], atol=1e-4)


def _read(folder: Path, arrow_schema: pa.Schema, where: pc.Expression | None = None) -> pa.Table:
    tables = []
    for path in row_files(folder):
        try:
            tables.append(pq.read_table(path, schema=arrow_schema, partitioning=None, filters=where))
        except FileNotFoundError:  # pruned meanwhile
            continue
        except pa.ArrowInvalid as error:
            _warn_unreadable(path, error)
    table = pa.concat_tables(tables) if tables else arrow_schema.empty_table()
    return table.take(pc.sort_indices(table, sort_keys=[("time", "ascending")]))
