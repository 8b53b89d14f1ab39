"""Decisions about more documents than one task holds: band keys are divided by their value among tasks.

    scatter   units -> their keys, one batch for each part of the key space
    gather    one part of all scattered files -> forest of the documents that share a key there, repeated ids
    merge     eight forests -> one, level by level; the last one cuts all components into groups
    compare   one group -> decisions

Every step is a plain function that leaves one file or folder behind, whole or not at all; what it holds depends on the
source and the config alone. A step reads of the others' files what it needs: a batch, or the rows of a few documents.
Disk: 500 bytes a document while it lasts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysl import storage
from raysl.data.clean import STATS
from raysl.data.decisions import Corpus, batches, decide, write_decisions
from raysl.data.forests import Forest, forest_of_keys, groups, merged
from raysl.data.ids import DOCUMENT_ROW, id_hashes, renamed
from raysl.data.prints import mapped, write_prints

KEY, ROOT = "key", "root"
LIMIT = ".max_task_mb"
"""In the folder: the limit that its files were made for."""
SCATTERED = pa.schema([(KEY, pa.uint64()), (DOCUMENT_ROW, pa.int64())])
FOREST = pa.schema([(DOCUMENT_ROW, pa.int64()), (ROOT, pa.int64())])
BYTES_PER_KEY = 64
"""Memory that scattering or gathering a key takes: key, document, their order, sorted copies, edges."""
MOST_SCATTERED = 100_000
"""Documents of one scatter task, so that there is work for many."""
FAN_IN = 8


@dataclass(frozen=True)
class Keyed:
    """The steps over one corpus; pickled to the workers. `folder` holds what they leave."""

    corpus: Corpus
    folder: Path

    @property
    def num_parts(self) -> int:
        keys = len(self.corpus) * (self.corpus.settings.num_bands + 1)
        return max(1, ceil(keys * BYTES_PER_KEY / self.corpus.max_bytes))

    def begin(self) -> None:
        """Makes the folder ready. What another limit of memory has left there is cut otherwise: it is removed."""
        limit, path = str(self.corpus.max_task_mb), self.folder / LIMIT
        if not path.is_file() or path.read_text() != limit:
            storage.remove(self.folder)
            self.folder.mkdir(parents=True)
            storage.write_text(path, limit)

    def scatters(self) -> list[tuple[int, int]]:
        most = self.corpus.max_bytes / (BYTES_PER_KEY * (self.corpus.settings.num_bands + 1))
        return list(batches(self.corpus.sizes, min(most, MOST_SCATTERED)))

    def scattered(self, first: int) -> Path:
        return self.folder / f"scattered-{first:05d}.arrow"

    def part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}"

    def compared(self, group: int) -> Path:
        return self.folder / f"compared-{group:05d}"

    @property
    def groups(self) -> Path:
        return self.folder / "groups.arrow"

    def scatter(self, first: int, stop: int) -> dict[str, Any]:
        """Writes the keys of some units, then the hashes of their ids: one batch each for every part."""
        prints = self.corpus.prints()
        keys = [prints.keys_of_part(unit) for unit in range(first, stop)]
        rows = np.arange(prints.firsts[first], prints.firsts[stop])
        path = self.scattered(first)
        with storage.atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), SCATTERED) as writer:
            self._write(writer, np.concatenate(keys).ravel(), np.repeat(rows, prints.num_bands))
            self._write(writer, *id_hashes(prints, first, stop))
        return {"documents": len(rows)}

    def _write(self, writer: Any, keys: NDArray[np.uint64], documents: NDArray[np.int64]) -> None:
        parts = ((keys >> np.uint64(32)) * np.uint64(self.num_parts) >> np.uint64(32)).astype(np.int32)
        order = np.argsort(parts, kind="stable")
        bounds = np.searchsorted(parts[order], np.arange(self.num_parts + 1))
        for begin, end in pairwise(bounds):
            own = order[begin:end]
            writer.write_batch(pa.record_batch([pa.array(keys[own]), pa.array(documents[own])], schema=SCATTERED))

    def gather(self, number: int) -> dict[str, Any]:
        """Writes the forest of one part of the key space and the ids that repeat there."""
        forest = forest_of_keys(*self._read(number))
        new_ids = renamed(*self._read(self.num_parts + number), self.corpus.prints())
        with storage.atomic_path(self.part(number)) as temporary:
            temporary.mkdir()
            write_forest(forest, temporary / "forest.arrow")
            write_prints(new_ids, temporary / "renamed.arrow")
        return {"documents": len(forest.documents)}

    def _read(self, batch: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """One batch of every scattered file, read rather than mapped."""
        found = []
        for first, _ in self.scatters():
            with pa.OSFile(str(self.scattered(first))) as source:
                found.append(pa.ipc.open_file(source).get_batch(batch))
        return tuple(np.concatenate([one[name].to_numpy() for one in found]) for name in (KEY, DOCUMENT_ROW))  # type: ignore[return-value]

    def levels(self) -> list[list[tuple[list[Path], Path]]]:
        """Level by level, which forests become which; at most FAN_IN are left for `divide`."""
        paths = [self.part(number) / "forest.arrow" for number in range(self.num_parts)]
        found: list[list[tuple[list[Path], Path]]] = []
        while len(paths) > FAN_IN:
            level = [
                (paths[first : first + FAN_IN], self.folder / f"forest-{len(found)}-{first // FAN_IN:05d}.arrow")
                for first in range(0, len(paths), FAN_IN)
            ]
            found.append(level)
            paths = [path for _, path in level]
        return [*found, [(paths, self.groups)]]

    def merge(self, paths: Sequence[Path], path: Path) -> dict[str, Any]:
        """Writes one forest; or, of the last ones, the groups of components that are compared in one task each."""
        forest = merged([read_forest(one) for one in paths])
        if path != self.groups:
            write_forest(forest, path)
            return {"documents": len(forest.documents)}
        num_bytes = self.corpus.compared_bytes(forest.documents)
        schema = pa.schema([FOREST.field(DOCUMENT_ROW)])
        with storage.atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
            for rows in groups(forest, num_bytes, self.corpus.max_bytes):
                writer.write_batch(pa.record_batch([pa.array(rows)], schema=schema))
        return {"documents": len(forest.documents)}

    def num_groups(self) -> int:
        with pa.memory_map(str(self.groups)) as source:
            return int(pa.ipc.open_file(source).num_record_batches)

    def compare(self, group: int) -> dict[str, Any]:
        """Writes the decisions about one group."""
        with pa.memory_map(str(self.groups)) as source:
            rows = pa.ipc.open_file(source).get_batch(group)[DOCUMENT_ROW].to_numpy()
        found, num_capped = decide(self.corpus.prints(), rows, self.corpus.settings.threshold)
        with storage.atomic_path(self.compared(group)) as temporary:
            temporary.mkdir()
            write_prints(found, temporary / "decisions.arrow")
            storage.write_json(temporary / STATS, {"num_capped": num_capped})
        return {"documents": len(rows)}

    def collect(self, folder: Path) -> dict[str, Any]:
        """Joins all decisions, as `decisions.decide_in_one_task` leaves them. Memory: 50 bytes a duplicate."""
        compared = [self.compared(group) for group in range(self.num_groups())]
        found = [mapped(one / "decisions.arrow") for one in compared]
        new_ids = [mapped(self.part(number) / "renamed.arrow") for number in range(self.num_parts)]
        num_capped = sum(storage.read_json(one / STATS)["num_capped"] for one in compared)
        return write_decisions(found, pa.concat_tables(new_ids), num_capped, folder)


def write_forest(forest: Forest, path: Path) -> None:
    write_prints(pa.table({DOCUMENT_ROW: forest.documents, ROOT: forest.roots}, schema=FOREST), path)


def read_forest(path: Path) -> Forest:
    table = mapped(path)
    return Forest(*(table[name].to_numpy() for name in FOREST.names))
