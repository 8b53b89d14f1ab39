"""Shards that come a window ahead: two windows on disk at most, in the order of the run, from any position."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from raysl.data.cached_shards import CachedShards
from raysl.data.rows import RowFeed
from raysl.data.shard_facts import shard_facts
from raysl.data.shards import TokenRows
from raysl.errors import StoreError
from tests.token_shards import random_documents, write_shards

NUM_SHARDS, WINDOW, ROWS = 10, 2, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents = random_documents(NUM_SHARDS * ROWS)
    return write_shards(tmp_path_factory.mktemp("there"), [documents[i::NUM_SHARDS] for i in range(NUM_SHARDS)])


class Store:
    """A folder that counts what is fetched from it."""

    def __init__(self, folder: Path, broken: str = "") -> None:
        self.folder, self.broken, self.fetched = folder, broken, list[str]()

    def __call__(self, name: str, path: Path) -> None:
        if name == self.broken:
            raise StoreError(f"{name} cannot be read")
        self.fetched.append(name)
        path.write_bytes((self.folder / name).read_bytes())


def feed_of(store: Store, cache: Path) -> RowFeed:
    facts = {path.name: shard_facts(path) for path in store.folder.iterdir()}
    return RowFeed(TokenRows(CachedShards(cache, facts, store, WINDOW), "documents", 64), seed=4)


def read(feed: RowFeed, start: int, count: int, step: int = 1) -> list[list[int]]:
    positions = list(range(start, start + count, step))
    numbers = [int(feed.order.rows(position, 1)[0]) for position in positions]
    return [row.tolist() for row in feed.read(positions, numbers)]


def on_disk(cache: Path) -> int:
    return len(list(cache.glob("shard-*.arrow")))


def test_rows_are_those_of_the_folder_and_two_windows_lie_on_disk_at_most(folder: Path, tmp_path: Path) -> None:
    feed, local = feed_of(Store(folder), tmp_path), TokenRows(folder, "documents", 64)
    numbers = feed.order.rows(0, 2 * len(local)).tolist()
    most, found = 0, []
    for position, number in enumerate(numbers):
        found += [row.tolist() for row in feed.read([position], [number])]
        most = max(most, on_disk(tmp_path))
    assert found == [local.row(number).tolist() for number in numbers]
    assert WINDOW <= most <= 2 * WINDOW
    feed.rows.shards.close()
    assert on_disk(tmp_path) == 0


def test_a_resumed_run_fetches_the_window_of_its_position_first_and_no_shard_before_it(folder: Path, tmp_path: Path) -> None:
    store = Store(folder)
    feed = feed_of(store, tmp_path)
    position = 5 * ROWS
    read(feed, position, 1)
    window = feed.order.window(position)
    wait_for(lambda: len(store.fetched) == 2 * WINDOW)
    names = [f"shard-{number:05d}.arrow" for number in window.shards]
    assert set(store.fetched[:WINDOW]) == set(names)
    following = feed.order.window(window.end).shards
    assert set(store.fetched[WINDOW:]) == {f"shard-{number:05d}.arrow" for number in following}
    feed.rows.shards.close()


def wait_for(true) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_ranks_of_one_node_fetch_each_shard_once_and_the_faster_one_waits_with_what_is_ahead(
    folder: Path, tmp_path: Path
) -> None:
    """Two readers with steps in common, as ranks have them: one reads even positions, the other odd ones."""
    store, barrier, most = Store(folder), threading.Barrier(2), [0]
    parts: list[list[list[int]]] = [[], []]

    def rank(number: int) -> None:
        feed = feed_of(store, tmp_path)
        for start in range(0, NUM_SHARDS * ROWS, 8):
            parts[number] += read(feed, start + number, 8, step=2)
            most[0] = max(most[0], on_disk(tmp_path))
            barrier.wait(20)
        feed.rows.shards.close()

    threads = [threading.Thread(target=rank, args=(number,), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    local = TokenRows(folder, "documents", 64)
    whole = [local.row(int(n)).tolist() for n in feed_of(store, tmp_path).order.rows(0, len(local))]
    assert [parts[0][i // 2] if i % 2 == 0 else parts[1][i // 2] for i in range(len(whole))] == whole
    assert most[0] <= 2 * WINDOW
    next_epoch = 2 * WINDOW  # fetched ahead at the end of the first
    assert len(store.fetched) <= NUM_SHARDS + next_epoch


def test_a_batch_over_many_small_windows_is_read(folder: Path, tmp_path: Path) -> None:
    facts = {path.name: shard_facts(path) for path in folder.iterdir()}
    feed = RowFeed(TokenRows(CachedShards(tmp_path, facts, Store(folder), 1), "documents", 64), seed=4)
    numbers = feed.order.rows(0, 60).tolist()
    local = TokenRows(folder, "documents", 64)
    found = feed.read(range(60), numbers)
    assert all(np.array_equal(row, local.row(number)) for row, number in zip(found, numbers, strict=True))
    feed.rows.shards.close()


def test_a_shard_that_cannot_be_had_stops_the_reader_with_its_reason(folder: Path, tmp_path: Path) -> None:
    feed = feed_of(Store(folder, broken="shard-00003.arrow"), tmp_path)
    with pytest.raises(StoreError, match=r"shard-00003\.arrow cannot be read"):
        read(feed, 0, NUM_SHARDS * ROWS)
    feed.rows.shards.close()
