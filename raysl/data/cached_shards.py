"""Shards that come to a node's disk one window ahead: fetched from an object store, or decoded from stored pictures."""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raysl.data.node_cache import Make, NodeCache
from raysl.data.shard_facts import ShardFacts

logger = logging.getLogger(__name__)

POLL_S = 0.05


class CachedShards:
    """At most the window that is read and the next one lie on a node, shared by its ranks.

    A window that is smaller than a batch may be joined by the few others that the batch reaches into.
    """

    def __init__(self, folder: Path, facts: dict[str, ShardFacts], make: Make, window_shards: int | None = None,
                 threads: int = 4) -> None:  # fmt: skip
        """`facts` by the names of the shards; `make(name, path)` brings one here, `threads` at a time."""
        self.names, self.window_shards = sorted(facts), window_shards
        self._facts = facts
        self._cache = NodeCache(folder, make)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="shards")
        self._wanted: tuple[Sequence[int], Sequence[int]] = ((), ())
        self._changed = threading.Condition()
        self._round = 0
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return str(self._cache.folder)

    def facts(self, number: int) -> ShardFacts:
        return self._facts[self.names[number]]

    def path(self, number: int) -> Path:
        return self._cache.hold(self.names[number])

    def hold(self, now: Sequence[int], ahead: Sequence[int]) -> None:
        """Gives up older shards; a thread brings what is read `now` and then, when those are gone, what is `ahead`."""
        with self._changed:
            self._wanted, self._round = (now, ahead), self._round + 1
            self._changed.notify()
        self._make_room()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="shards")
            self._thread.start()

    def close(self) -> None:
        """Stops the thread and removes what no other rank of this node holds."""
        with self._changed:
            self._wanted, self._round = ((), ()), -1
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._pool.shutdown(cancel_futures=True)
        self._make_room()

    def _work(self) -> None:
        done = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._round != done)  # noqa: B023 (read under the lock)
                done, (now, ahead) = self._round, self._wanted
            if done < 0:
                return
            self._bring(now, done)
            while not self._make_room() and self._round == done:
                time.sleep(POLL_S)  # another rank of this node still reads the window before
            self._bring(ahead, done)

    def _bring(self, numbers: Sequence[int], turn: int) -> None:
        """Failures are left to `path`, which tries again and raises."""

        def bring(number: int) -> None:
            try:
                if self._round == turn:
                    self._cache.hold(self.names[number])
            except Exception as error:  # whatever it was, the thread goes on with the other shards
                logger.warning("%s", error)

        list(self._pool.map(bring, numbers))

    def _make_room(self) -> bool:
        """Gives up the shards of windows that are over; whether they are gone from the node."""
        with self._changed:
            wanted = {self.names[number] for numbers in self._wanted for number in numbers}
        return self._cache.clear(but=wanted)
