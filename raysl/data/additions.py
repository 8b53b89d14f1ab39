"""New labelled rows after a run was prepared: the same normalization, filters and near-duplicate removal, for them alone.

Plain Python, in memory: what comes back from a service between two updates is small beside the corpus.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from raysl.catalog import FILTERS, SOURCES
from raysl.config import PluginConfig
from raysl.data.config import PrepareConfig
from raysl.data.decontaminate import Contaminated, write_ngrams
from raysl.data.dedup import deduplicate_against
from raysl.data.filters import Filter, run_filters
from raysl.data.redact import redact_column
from raysl.data.sources import BadRows, Source
from raysl.data.text import normalize_column
from raysl.schema import ID, LABEL, RAW_DOCUMENT, TEXT

EMPTY, NO_LABEL = "empty", "no_label"


@dataclass(frozen=True)
class Additions:
    """The rows (id, text, label) that are new, and how many went under each reason."""

    rows: pa.Table
    dropped: dict[str, int]


def read_source(source: PluginConfig, partition_mb: float) -> tuple[pa.Table, dict[str, int]]:
    """All readable rows of a source, and the counts of the unreadable ones."""
    reader: Source = SOURCES.load(source.type)(source)
    bad = BadRows()
    tables = [table for part in reader.partitions(partition_mb) for table in reader.read(part, bad)]
    return pa.concat_tables([RAW_DOCUMENT.empty_table(), *tables]), bad.counts()


def as_prepared(texts: pa.ChunkedArray, config: PrepareConfig) -> pa.Array:
    """Texts in the form in which `prepare` keeps them."""
    normal = normalize_column(texts)
    return normal if config.redact is None else redact_column(normal, config.redact)[0]


def prepare_additions(rows: pa.Table, known: pa.Table, index_folder: Path, config: PrepareConfig) -> Additions:
    """Keeps the rows that have a label, pass the filters of `prepare` (evaluation sets too) and are near no kept document.

    Kept documents are those of the index and the rows of `known`, which were added since. Ids of `rows` are unique.
    """
    rows = rows.select([ID, TEXT, LABEL]).cast(RAW_DOCUMENT)
    rows = rows.set_column(1, TEXT, as_prepared(rows[TEXT], config))
    named = np.array([bool(label) for label in rows[LABEL].to_pylist()], np.bool_)
    filled = np.array([bool(text) for text in rows[TEXT].to_pylist()], np.bool_)
    dropped = Counter({EMPTY: int((~filled).sum()), NO_LABEL: int((filled & ~named).sum())})
    rows = rows.filter(pa.array(named & filled))
    with TemporaryDirectory() as folder:
        found = run_filters(_filters(config, Path(folder) / "evaluation.npy"), rows)
    dropped.update(reason for reason in found.reasons if reason is not None)
    rows = found.batch.filter(pa.array(found.passed))
    if len(rows):
        late = set(rows[ID].to_pylist())
        known = known.set_column(0, ID, pa.array([f"known:{place}" for place in range(len(known))], pa.string()))
        unique = deduplicate_against(index_folder, pa.concat_tables([known, rows]).combine_chunks())
        gone = [
            why for name, why in zip(*(unique.removed[c].to_pylist() for c in (ID, "reason")), strict=True) if name in late
        ]
        dropped.update(gone)
        rows = unique.kept.filter(pa.array([name in late for name in unique.kept[ID].to_pylist()], pa.bool_()))
    return Additions(rows, {reason: count for reason, count in dropped.items() if count})


def _filters(config: PrepareConfig, evaluation: Path) -> list[Filter]:
    """Those that `prepare` applies; hashes of the evaluation set, where there is one, are written to `evaluation`."""
    filters: list[Filter] = [FILTERS.load(one.type)(one) for one in config.filters]
    if config.decontaminate is not None:
        write_ngrams(config.decontaminate, config.partition_mb, evaluation, config.redact)
        filters.append(Contaminated(config.decontaminate, evaluation))
    return filters
