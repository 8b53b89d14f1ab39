"""What `prepare` left, read where it lies: the run's own folder, or a copy of it in an object store.

From a store every node fetches what it needs into a folder on its own disk: small files once, shards a window ahead.
"""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from raysl import storage
from raysl.data import transfer
from raysl.data.cached_shards import CachedShards
from raysl.data.decode import decode_file
from raysl.data.node_cache import Make, NodeCache
from raysl.data.rows import LocalShards, Shards
from raysl.data.shard_facts import ShardFacts, shard_facts
from raysl.data.sources.stores import is_remote
from raysl.errors import StageError, StoreError
from raysl.run_config import RunConfig
from raysl.stage import MANIFEST, Manifest, require

FACTS = "shards.json"
"""In a store, beside the manifest: what is known of each shard without reading it."""
STATISTICS = "statistics.json"
"""In a store: what is counted over the train rows."""
TOKENIZER = "tokenizer.json"
TOKENS, PIXELS, ENCODED = "tokens", "pixels", "encoded"
FETCHES = 4
"""Shards that one process fetches at a time."""


@dataclass(frozen=True)
class Decoder:
    """Who decodes shards of stored pictures."""

    decode: Callable[[str], bytes]
    """decode(path or URI of a shard) -> the pixel shard, as a file holds it."""
    at_a_time: int
    """Shards that one process has decoded at a time."""


IN_PROCESS = Decoder(decode_file, 1)
"""The training process itself, in a thread."""


@dataclass(frozen=True)
class Prepared:
    """Prepared outputs at `location`; `cache` is a folder on this node's own disk, used where they do not lie on it."""

    location: str
    cache_root: Path
    run: str
    """Names the run: two runs share no cached file, since each removes what it has read."""
    window_shards: int | None = None
    decoder: Decoder = IN_PROCESS
    _opened: list[CachedShards] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(cls, config: RunConfig, decoder: Decoder = IN_PROCESS) -> "Prepared":
        """The prepared outputs that the run of `config` trains on."""
        feed = config.training.feed
        location = feed.shards.rstrip("/") or str(config.folder / "prepare")
        root = Path(feed.cache_dir or Path(tempfile.gettempdir()) / f"raysl-shards-{os.getuid()}")
        return cls(location, root, str(config.folder), config.training.window_shards, decoder)

    @property
    def remote(self) -> bool:
        return is_remote(self.location)

    @cached_property
    def manifest(self) -> Manifest:
        """What prepare said when it was done. Raises StageError where it is not there."""
        if not self.remote:
            folder = Path(self.location)
            return require(folder.parent, folder.name, "prepare")
        try:
            return Manifest(**json.loads(transfer.read(f"{self.location}/{MANIFEST}")))
        except StoreError as error:
            raise StageError(f"No prepared outputs in pretrain.feed.shards: {error}") from error

    def file(self, name: str) -> Path:
        """A small file of the outputs, on this node."""
        return self._files.hold(name) if self.remote else Path(self.location) / name

    def has(self, folder: str) -> bool:
        """Whether there are outputs below `folder`."""
        if not self.remote:
            return (Path(self.location) / folder).is_dir()
        return any(name.startswith(f"{folder}/") for name in self.manifest.files)

    def shards(self, kind: str, split: str) -> Shards:
        """The shards of a split of `kind` tokens or pixels; pixels are decoded where pictures were stored."""
        if kind == PIXELS and self.has(ENCODED):
            return self._decoded(f"{ENCODED}/{split}")
        if self.remote:
            folder = f"{kind}/{split}"
            facts = self._facts_of(folder)
            return self._cached(folder, facts, lambda name, path: self._fetch(f"{folder}/{name}", path), FETCHES)
        return LocalShards(Path(self.location) / kind / split, self.window_shards)

    def _decoded(self, folder: str) -> Shards:
        def make(name: str, path: Path) -> None:
            path.write_bytes(self.decoder.decode(f"{self.location}/{folder}/{name}"))

        if self.remote:
            facts = self._facts_of(folder)
        else:
            facts = {path.name: shard_facts(path) for path in (Path(self.location) / folder).glob("shard-*.arrow")}
        return self._cached(folder, facts, make, self.decoder.at_a_time)

    def _cached(self, folder: str, facts: dict[str, ShardFacts], make: Make, threads: int) -> Shards:
        self._opened.append(CachedShards(self._cache / folder, facts, make, self.window_shards, threads))
        return self._opened[-1]

    def close(self) -> None:
        """Removes from this node's cache what no other process of the run holds."""
        for shards in self._opened:
            shards.close()
        if self.remote:
            self._files.clear()

    def _fetch(self, name: str, path: Path) -> None:
        transfer.fetch(f"{self.location}/{name}", path, self.manifest.files.get(name))

    def _facts_of(self, folder: str) -> dict[str, ShardFacts]:
        said = json.loads(self.file(FACTS).read_text(encoding="utf-8")).get(folder, {})
        return {name: ShardFacts(**facts) for name, facts in said.items()}

    @property
    def _cache(self) -> Path:
        """Another one for other content, so that a shard of an older copy is never taken for one of this."""
        return self.cache_root / storage.hash_json([self.run, self.location, self.manifest.content_hash])[:16]

    @cached_property
    def _files(self) -> NodeCache:
        return NodeCache(self._cache / "files", self._fetch)
