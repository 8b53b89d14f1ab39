"""Which documents are duplicates, decided component by component; in one task, or in many (keyed.py), with the same result.

Whether a document goes depends on the documents that share a band key with it, directly or over others, and on nothing
else. So whole components, each decided in order by `minhash.find_duplicates`, give what one call over everything gives.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysl import storage
from raysl.data import minhash
from raysl.data.clean import PRINTS, STATS
from raysl.data.forests import Forest, forest_of_keys, groups, merged
from raysl.data.ids import DOCUMENT_ROW, id_hashes, renamed
from raysl.data.prints import Prints, PrintSettings, write_prints

KEPT, JACCARD, CLUSTER = "kept", "jaccard", "cluster"
DECIDED = pa.schema([(DOCUMENT_ROW, pa.int64()), (KEPT, pa.int64()), (JACCARD, pa.float64()), (CLUSTER, pa.int64())])
"""Documents that go, or are in the cluster of an earlier one; rows are numbered over all units. Others stay."""
DECISIONS, BY_KEPT, NEW_IDS = "decisions.arrow", "by_kept.arrow", "renamed.arrow"
BANDS_AT_ONCE = 3
COMPARED_AT_ONCE = 32e6
"""Bytes of documents that one task reads to compare them; larger groups are not faster."""
BYTES_PER_DOCUMENT = 200
"""Memory of a document in the one task that holds all of them, as measured on a million."""


@dataclass(frozen=True)
class Corpus:
    """The clean units that are compared with each other; pickled to every task."""

    units: tuple[Path, ...]
    sizes: tuple[int, ...]
    """Documents of each unit."""
    settings: PrintSettings
    max_task_mb: float

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def max_bytes(self) -> float:
        return self.max_task_mb * 1e6

    @property
    def fits_one_task(self) -> bool:
        """Keys of some bands and their sorted order, ids and the components, for every document."""
        return len(self) * BYTES_PER_DOCUMENT <= self.max_bytes

    def prints(self) -> Prints:
        return Prints([unit / PRINTS for unit in self.units], self.settings.num_bands, self.sizes)

    def compared_bytes(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """Memory that comparing each of the (sorted) documents takes: shingles and their set, keys and buckets."""
        return 16 * self.prints().num_shingles(documents) + 24 * self.settings.num_bands + 100


def decide_in_one_task(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Writes the decisions about all documents to `folder` (whole or absent).

    Memory: BYTES_PER_DOCUMENT; beside it COMPARED_AT_ONCE, or one component that is larger.
    """
    prints = corpus.prints()
    forest = candidates(prints)
    limit = min(corpus.max_bytes, COMPARED_AT_ONCE)
    found = [decide(prints, rows, corpus.settings.threshold)
             for rows in groups(forest, corpus.compared_bytes(forest.documents), limit)]  # fmt: skip
    new_ids = renamed(*id_hashes(prints, 0, prints.num_parts), prints)
    return write_decisions([table for table, _ in found], new_ids, sum(capped for _, capped in found), folder)


def candidates(prints: Prints) -> Forest:
    """Components of all documents that share a key, a few bands at a time."""
    forest, documents = merged([]), np.arange(len(prints))
    for first in range(0, prints.num_bands, BANDS_AT_ONCE):
        keys = prints.keys(first, min(first + BANDS_AT_ONCE, prints.num_bands))
        own = [forest_of_keys(np.ascontiguousarray(column), documents) for column in keys.T]
        forest = merged([forest, *own])
    return forest


def decide(prints: Prints, rows: NDArray[np.int64], threshold: float) -> tuple[pa.Table, int]:
    """Decides about the sorted rows, whole components; returns DECIDED and how many documents hit the cap."""
    found = minhash.find_duplicates(prints.keys_of(rows), lambda own: prints.shingles_of(rows[own]), threshold)
    moved = np.flatnonzero((found.kept >= 0) | (found.cluster != np.arange(len(rows))))
    kept = np.where(found.kept[moved] >= 0, rows[found.kept[moved]], -1)
    columns = (rows[moved], kept, found.jaccard[moved], rows[found.cluster[moved]])
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=DECIDED), found.num_capped


def write_decisions(found: Sequence[pa.Table], new_ids: pa.Table, num_capped: int, folder: Path) -> dict[str, Any]:
    """Lays all decisions where the tasks that carry them out find theirs: by document, and by the document kept."""
    decided = pa.concat_tables([DECIDED.empty_table(), *found]).sort_by(DOCUMENT_ROW)
    stats = {"documents": int((decided[KEPT].to_numpy() >= 0).sum()), "num_capped": num_capped}
    with storage.atomic_path(folder) as temporary:
        temporary.mkdir()
        write_prints(decided, temporary / DECISIONS)
        by_kept = decided.select([KEPT, DOCUMENT_ROW]).sort_by([(KEPT, "ascending"), (DOCUMENT_ROW, "ascending")])
        write_prints(by_kept, temporary / BY_KEPT)
        write_prints(new_ids.sort_by(DOCUMENT_ROW), temporary / NEW_IDS)
        storage.write_json(temporary / STATS, stats)
    return stats


def between(table: pa.Table, name: str, first: int, stop: int) -> pa.Table:
    """The rows of a mapped table sorted by `name` whose value lies in first to stop - 1; reads little else."""
    if not len(table):
        return table
    values = table[name].chunk(0).to_numpy()  # one record batch, not copied
    begin, end = np.searchsorted(values, [first, stop])
    return table.slice(begin, end - begin)


def batches(sizes: Sequence[int], most: float) -> Iterator[tuple[int, int]]:
    """Ranges of units (first, one past the last) of at most about `most` documents."""
    first, count = 0, 0
    for number, size in enumerate(sizes):
        if count and count + size > most:
            yield first, number
            first, count = number, 0
        count += size
    yield first, len(sizes)
