"""Files shared by the processes of a node: made once, kept while somebody needs them, gone after that."""

import fcntl
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from raysl.data.node_cache import NodeCache
from raysl.errors import DataError

SPAWN = multiprocessing.get_context("fork")


def slow_make(folder: Path):
    """Leaves one line in `folder`/made for each call."""

    def make(name: str, path: Path) -> None:
        with open(folder / "made", "a") as file:
            file.write(f"{os.getpid()}\n")
        path.write_text(name[:2])
        time.sleep(0.2)
        path.write_text(name)

    return make


def times_made(folder: Path) -> int:
    return len((folder / "made").read_text().splitlines())


def hold(folder: Path, texts) -> None:
    texts.put(NodeCache(folder / "cache", slow_make(folder)).hold("shard").read_text())


def test_nobody_waits_for_a_holder_to_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find the file missing; while the second asks for its turn to make it, the first makes it and keeps it."""
    first, second = (NodeCache(tmp_path, lambda name, path: path.write_text(name)) for _ in range(2))
    missing, held, flock = threading.Event(), threading.Event(), fcntl.flock

    def slow_flock(lock: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and threading.current_thread().name == "second" and not missing.is_set():
            flock(lock, fcntl.LOCK_UN)  # as the system itself does before it looks for the stronger lock
            missing.set()
            held.wait(20)
        flock(lock, operation)

    monkeypatch.setattr("raysl.data.node_cache.fcntl.flock", slow_flock)
    late = threading.Thread(target=second.hold, args=("shard",), daemon=True, name="second")
    late.start()
    assert missing.wait(20)
    first.hold("shard")
    held.set()
    late.join(10)
    assert not late.is_alive()


def test_one_process_makes_a_file_and_the_others_wait_for_the_whole_of_it(tmp_path: Path) -> None:
    texts = SPAWN.Queue()
    processes = [SPAWN.Process(target=hold, args=(tmp_path, texts)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [texts.get(timeout=20) for _ in processes] == ["shard"] * 4
    assert times_made(tmp_path) == 1


def test_a_file_stays_until_the_last_process_lets_it_go(tmp_path: Path) -> None:
    first, second = (NodeCache(tmp_path / "cache", slow_make(tmp_path)) for _ in range(2))
    path = first.hold("shard")
    second.hold("shard")
    assert not first.let_go("shard")
    assert path.is_file()
    assert second.let_go("shard")
    assert not path.is_file()


def make_and_hang(folder: Path) -> None:
    def make(name: str, path: Path) -> None:
        path.write_text("half")
        (folder / "begun").touch()
        time.sleep(60)

    NodeCache(folder / "cache", make).hold("shard")


def test_a_process_that_is_killed_while_it_makes_a_file_leaves_nothing_behind(tmp_path: Path) -> None:
    process = SPAWN.Process(target=make_and_hang, args=(tmp_path,))
    process.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    cache = NodeCache(tmp_path / "cache", slow_make(tmp_path))
    assert cache.hold("shard").read_text() == "shard"
    assert cache.names() == ["shard"]
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name.endswith(".tmp")] == []


def test_a_full_disk_names_the_keys_that_help(tmp_path: Path) -> None:
    def make(name: str, path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"No space left.*pretrain\.feed\.cache_dir.*pretrain\.window_shards"):
        NodeCache(tmp_path, make).hold("shard")


def test_a_folder_that_cannot_be_made_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written.*pretrain\.feed\.cache_dir"):
        NodeCache(tmp_path / "file" / "cache", lambda name, path: None).hold("shard")
