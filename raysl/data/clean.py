"""One unit of work of `prepare`: read a partition, normalize, filter, take its prints. Plain Python; Ray only calls it."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raysl import storage
from raysl.catalog import FILTERS, SOURCES
from raysl.data.config import PrepareConfig
from raysl.data.decontaminate import Contaminated
from raysl.data.filters import Filter, run_filters
from raysl.data.filters.base import Examples
from raysl.data.prints import PrintSettings, make_prints, write_prints
from raysl.data.redact import redact_column
from raysl.data.sources import BadRows, Partition, Source
from raysl.data.text import normalize, normalize_column
from raysl.schema import HAS_TITLE, ID, LABEL, RAW_DOCUMENT, REMOVED, TEXT

ROWS, PRINTS, DROPPED, STATS = "rows.parquet", "prints.arrow", "dropped.parquet", "stats.json"
EMPTY = "empty"


@dataclass(frozen=True)
class Cleaner:
    """Everything a clean task needs besides its partition; it is pickled to the workers."""

    config: PrepareConfig
    prints: PrintSettings
    seed: int
    compiled: bool
    evaluation: Path | None = None
    """Hashes of the n-grams of an evaluation set."""

    def __call__(self, partition: Partition, folder: Path) -> dict[str, Any]:
        """Writes the clean rows of the partition to `folder` (whole or absent); returns and keeps the counts."""
        source: Source = SOURCES.load(self.config.source.type)(self.config.source)
        filters = self._filters()
        bad, kept, dropped = BadRows(), [self._schema.empty_table()], [REMOVED.empty_table()]
        num_rows, redacted = 0, Counter[str]()
        for table in source.read(partition, bad):
            num_rows += len(table)
            good, removed = self._clean(table, filters, redacted)
            kept.append(good)
            dropped.append(removed)
        rows = pa.concat_tables(kept).combine_chunks()
        dropped.insert(0, removed_rows(bad.ids, bad.reasons))
        stats = {**self._stats(filters, bad, num_rows, rows), "redacted": redacted}
        with storage.atomic_path(folder) as temporary:
            temporary.mkdir()
            pq.write_table(rows, temporary / ROWS)
            write_prints(make_prints(rows, self.prints, self.compiled), temporary / PRINTS)
            pq.write_table(pa.concat_tables(dropped), temporary / DROPPED)
            (temporary / STATS).write_text(json.dumps(stats))
        return stats

    @property
    def _schema(self) -> pa.Schema:
        return RAW_DOCUMENT.append(pa.field(HAS_TITLE, pa.bool_())) if self.config.yields_titles else RAW_DOCUMENT

    def _filters(self) -> list[Filter]:
        """All tests of a document in their order."""
        filters: list[Filter] = [Empty(None), *(FILTERS.load(one.type)(one) for one in self.config.filters)]
        if self.config.decontaminate is not None and self.evaluation is not None:
            filters.append(Contaminated(self.config.decontaminate, self.evaluation))
        for one in filters:
            one.examples.seed, one.compiled = self.seed, self.compiled
        return filters

    def _clean(self, table: pa.Table, filters: Sequence[Filter], redacted: Counter[str]) -> tuple[pa.Table, pa.Table]:
        texts = normalize_column(table[TEXT])
        if self.config.redact is not None:
            texts, counts = redact_column(texts, self.config.redact)
            redacted.update(counts)
        titles = [has_title(text) for text in table[TEXT].to_pylist()] if HAS_TITLE in self._schema.names else None
        table = pa.table({ID: table[ID], TEXT: texts, LABEL: table[LABEL]}, schema=RAW_DOCUMENT)
        found = run_filters(filters, table)
        lost = np.flatnonzero(~found.passed)
        names = [reason for reason in found.reasons if reason is not None]
        batch = found.batch if titles is None else found.batch.append_column(HAS_TITLE, [titles])
        return batch.filter(pa.array(found.passed)), removed_rows(table[ID].take(lost).to_pylist(), names)

    def _stats(self, filters: Sequence[Filter], bad: BadRows, num_rows: int, rows: pa.Table) -> dict[str, Any]:
        examples = Examples(self.seed)
        dropped = bad.counts()
        edits: Counter[str] = Counter()
        for one in filters:
            edits.update(one.edits)
            examples.merge(one.examples.found)
            for reason, count in one.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + count
        for reason in bad.counts():
            names = [name for name, other in zip(bad.ids, bad.reasons, strict=True) if other == reason]
            examples.add(reason, pa.table({ID: names, TEXT: [""] * len(names)}))
        return {"documents_in": num_rows + len(bad.ids), "bad": bad.counts(), "clean": len(rows), "dropped": dropped,
                "text_bytes": rows[TEXT].nbytes, "edits": edits, "examples": examples.found}  # fmt: skip


class Empty(Filter):
    """Nothing is left of the text after normalization."""

    def keep(self, batch: pa.Table) -> dict[str, Any]:
        return {EMPTY: np.array([bool(text) for text in batch[TEXT].to_pylist()], np.bool_)}


def has_title(raw: str) -> bool:
    """Whether something is left of the first line, which normalization takes away where it is blank."""
    return bool(normalize(raw.partition("\n")[0]))


def removed_rows(ids: Sequence[str], reasons: Sequence[str], kept_ids: Sequence[str] | None = None,
                 jaccards: Sequence[float] | None = None) -> pa.Table:  # fmt: skip
    """Rows of schema.REMOVED."""
    nothing = [None] * len(ids)
    columns = (ids, reasons, kept_ids or nothing, nothing if jaccards is None else jaccards)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, REMOVED, strict=True)]
    return pa.Table.from_arrays(arrays, schema=REMOVED)


def read_texts(unit: Path, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    """Texts of some rows of a clean unit, which stand in their order there."""
    return values_at(pq.read_table(unit / ROWS, columns=[TEXT])[TEXT], rows)


def values_at(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    """Some values of a column, in its order; in one chunk while 2 GiB hold them. A `take` would join all values before."""
    mask = np.zeros(len(column), np.bool_)
    mask[rows] = True
    return pa.table([column.filter(pa.array(mask))], names=["values"]).combine_chunks()["values"]


def read_stats(folder: Path) -> dict[str, Any]:
    return storage.read_json(folder / STATS)


def read_counts(folder: Path) -> dict[str, Any]:
    """The stats of a unit without its examples and buckets, which are large when there are thousands of units."""
    return {name: value for name, value in read_stats(folder).items() if name not in ("examples", "buckets")}
