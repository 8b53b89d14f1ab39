"""Records are whole files within bounds, and nothing that happens to the disk reaches a request."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from raysl import storage
from raysl.monitor import recorder
from raysl.monitor.recorder import RECORD, Label, Record, Recorder, read_records, row_files


def _record(name: str, seconds: float = 0.0, text: str = "abc") -> Record:
    vector = np.array([1, 0], np.float32)
    return Record(name, 1e9 + seconds, "classify", text, 2.0, 1.0, 1, "tool", 0.9, vector)


def _recorder(folder: Path, writer: str = "a", **options: float) -> Recorder:
    return Recorder(folder, writer, **({"flush_seconds": 3600} | options))  # flushed by hand


def _names(folder: Path) -> list[str]:
    return list(read_records(folder)["request_id"].to_pylist())


def test_reads_back_what_was_recorded_newest_last(tmp_path: Path) -> None:
    first, second = _recorder(tmp_path, "a"), _recorder(tmp_path, "b")
    first.record(_record("late", 2))
    second.record(_record("early", 1))
    first.close()
    second.close()
    rows = read_records(tmp_path).to_pylist()
    assert [row["request_id"] for row in rows] == ["early", "late"]
    assert rows[0]["embedding"] == [1, 0]
    assert (rows[0]["time"].timestamp(), rows[0]["prediction"], rows[0]["label"]) == (1e9 + 1, "tool", None)


def test_the_last_label_of_a_request_wins(tmp_path: Path) -> None:
    writer = _recorder(tmp_path)
    for name in ("a", "b"):
        writer.record(_record(name))
    writer.record(Label("a", 5.0, "animal"))
    writer.record(Label("a", 4.0, "fruit"))
    writer.record(Label("unknown", 4.0, "fruit"))
    writer.close()
    assert read_records(tmp_path)["label"].to_pylist() == ["animal", None]


def test_columns_hold_more_than_two_gigabytes(tmp_path: Path) -> None:
    """Files that were written with the smaller types are read too."""
    writer = _recorder(tmp_path)
    writer.record(_record("a"))
    writer.close()
    (path,) = row_files(tmp_path / "records")
    smaller = {"text": pa.string(), "prediction": pa.string(), "embedding": pa.list_(pa.float32())}
    old = pq.read_table(path).cast(pa.schema([(field.name, smaller.get(field.name, field.type)) for field in RECORD]))
    pq.write_table(old, path)
    types = [read_records(tmp_path).schema.field(name).type for name in smaller]
    assert types == [pa.large_string(), pa.large_string(), pa.large_list(pa.float32())]


def test_some_of_the_records_can_be_read(tmp_path: Path) -> None:
    writer = _recorder(tmp_path)
    for number in range(3):
        writer.record(_record(str(number), number))
    writer.close()
    assert read_records(tmp_path, where=pc.field("request_id") != "1")["request_id"].to_pylist() == ["0", "2"]


def test_a_run_without_records_has_an_empty_table(tmp_path: Path) -> None:
    table = read_records(tmp_path)
    assert len(table) == 0
    assert {"request_id", "text", "embedding", "label"} <= set(table.column_names)


def test_long_texts_are_cut(tmp_path: Path) -> None:
    writer = _recorder(tmp_path, max_text_chars=4)
    writer.record(_record("a", text="ünïcodé"))
    writer.close()
    assert read_records(tmp_path)["text"].to_pylist() == ["ünïc"]


def test_a_lone_surrogate_in_a_text_is_replaced(tmp_path: Path) -> None:
    writer = _recorder(tmp_path)
    writer.record(_record("a", text="x\ud800"))
    writer.close()
    assert read_records(tmp_path)["text"].to_pylist() == ["x?"]


def test_a_row_of_a_wrong_type_stops_neither_the_thread_nor_later_rows(tmp_path: Path) -> None:
    writer = _recorder(tmp_path, flush_seconds=0.02)
    writer.record(Record("bad", 1.0, "classify", "a", "slow", 1.0, 1))  # type: ignore[arg-type]
    time.sleep(0.2)
    writer.record(_record("good"))
    writer.close()
    assert _names(tmp_path) == ["good"]
    assert writer.dropped == 1


def test_a_row_of_a_wrong_type_costs_no_row_beside_it(tmp_path: Path) -> None:
    """A task of the user's own that answers numbers cost the records of all tasks."""
    writer = _recorder(tmp_path)
    writer.record(_record("before"))
    writer.record(Record("bad", 1.0, "mine", "a", 2.0, 1.0, 1, prediction=3))  # type: ignore[arg-type]
    writer.record(_record("after", 1))
    writer.close()
    assert (_names(tmp_path), writer.dropped) == (["before", "after"], 1)


def test_a_label_is_given_to_no_request_whose_id_another_one_has(tmp_path: Path) -> None:
    writer = _recorder(tmp_path)
    for number, (name, text) in enumerate([("page", "a"), ("page", "b"), ("again", "a"), ("again", "a"), ("own", "c")]):
        writer.record(_record(name, number, text))
    writer.record(Record("own", 1e9 + 9, "search", "another text", 2.0, 1.0, 1))
    for name in ("page", "again", "own"):
        writer.record(Label(name, 2e9, name))
    writer.close()
    assert read_records(tmp_path)["label"].to_pylist() == [None, None, "again", "again", "own", "own"]


def test_rows_are_written_within_the_flush_time(tmp_path: Path) -> None:
    writer = _recorder(tmp_path, flush_seconds=0.05)
    writer.record(_record("a"))
    deadline = time.monotonic() + 10
    while not _names(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _names(tmp_path) == ["a"]
    writer.close()


def test_quiet_traffic_makes_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "ROWS_PER_FILE", 10)
    writer = _recorder(tmp_path)
    for number in range(25):
        writer.record(_record(f"{number:02d}", number))
        writer.flush()
    assert len(row_files(tmp_path / "records")) == 3
    assert _names(tmp_path) == [f"{number:02d}" for number in range(25)]


def test_only_about_the_newest_rows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "ROWS_PER_FILE", 10)
    writer = _recorder(tmp_path, max_rows=30)
    for number in range(200):
        writer.record(_record(f"{number:03d}", number))
        if number % 7 == 0:
            writer.flush()
    writer.close()
    names = _names(tmp_path)
    assert names == [f"{number:03d}" for number in range(200)][-len(names) :]
    assert 30 <= len(names) <= 40


def test_a_full_queue_drops_and_counts_and_returns_at_once(tmp_path: Path) -> None:
    writer = _recorder(tmp_path, queue_rows=3)
    started = time.perf_counter()
    taken = [writer.record(_record(str(number))) for number in range(1000)]
    assert time.perf_counter() - started < 0.5
    assert taken == [True] * 3 + [False] * 997
    assert writer.dropped == 997
    writer.close()
    assert len(_names(tmp_path)) == 3


def test_a_disk_that_refuses_loses_rows_and_no_request(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file where the folder should be")
    writer = _recorder(tmp_path)
    assert writer.record(_record("lost"))
    writer.flush()
    assert writer.dropped == 1
    (tmp_path / "records").unlink()
    assert writer.record(_record("kept"))
    writer.close()
    assert _names(tmp_path) == ["kept"]


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    writer = _recorder(tmp_path)
    writer.record(_record("a"))
    writer.flush()
    for path in row_files(tmp_path / "records"):
        path.unlink()
    (tmp_path / "records").rmdir()
    writer.record(_record("b", 1))
    writer.close()
    assert _names(tmp_path)[-1] == "b"


def test_a_file_that_cannot_be_read_costs_its_own_rows_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "records" / "gone-00000000.parquet"
    broken.parent.mkdir()
    broken.touch()
    writer = _recorder(tmp_path)
    for name in ("a", "b"):
        writer.record(_record(name))
        writer.flush()
    writer.close()
    assert writer.dropped == 0
    assert caplog.text.count(f"{broken} is left out") == 1
    assert _names(tmp_path) == ["a", "b"]


def test_a_file_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, list[Path]]] = []

    def sync(path: Path) -> None:
        synced.append((pq.read_metadata(path).num_rows, row_files(path.parent)))

    monkeypatch.setattr(storage, "sync", sync)
    writer = _recorder(tmp_path)
    writer.record(_record("a"))
    writer.close()
    assert synced == [(1, [])]


DIE_IN_THE_THIRD_WRITE = """
import io, os, signal, sys
import pyarrow.parquet as pq
from raysl.monitor.recorder import Record, Recorder

real, calls = pq.write_table, []

def write_half_and_die(table, path, **options):
    calls.append(path)
    if len(calls) < 3:
        return real(table, path, **options)
    whole = io.BytesIO()
    real(table, whole, **options)
    with open(path, "wb") as file:
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

pq.write_table = write_half_and_die
writer = Recorder(sys.argv[1], "killed", flush_seconds=3600)
for number in range(3):
    writer.record(Record(str(number), float(number), "classify", "text", 1.0, 1.0, 1, "a", 0.5, [0.5] * 64))
    writer.flush()
"""


def test_a_writer_killed_in_the_middle_of_a_file_leaves_only_whole_files(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DIE_IN_THE_THIRD_WRITE, str(tmp_path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    for path in row_files(tmp_path / "records"):
        pq.read_table(path)
    assert _names(tmp_path) == ["0", "1"]


def test_what_a_killed_writer_left_behind_is_cleared_away_later(tmp_path: Path) -> None:
    left = tmp_path / "records" / ".a-00000000.parquet.1.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half")
    old = time.time() - 2 * recorder.STALE_SECONDS
    os.utime(left, (old, old))
    writer = _recorder(tmp_path)
    deadline = time.monotonic() + 10
    while left.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.close()
    assert not left.exists()


def test_pictures_that_share_an_id_are_told_apart_by_their_embeddings(tmp_path: Path) -> None:
    writer = _recorder(tmp_path)
    again = [1, 1e-6]  # the same picture in another batch
    for number, (name, vector) in enumerate([("page", [1, 0]), ("page", [0, 1]), ("again", [1, 0]), ("again", again)]):
        embedding = np.array(vector, np.float32)
        writer.record(Record(name, 1e9 + number, "classify", "", 2.0, 1.0, 1, "cat", 0.9, embedding))
    for name in ("page", "again"):
        writer.record(Label(name, 2e9, name))
    writer.close()
    assert read_records(tmp_path)["label"].to_pylist() == [None, None, "again", "again"]
