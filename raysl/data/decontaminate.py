"""Documents that share a run of words with an evaluation set: a model that trained on them would be graded on what it read.

The n-grams of the evaluation set are hashed once, sorted, and mapped into memory by every task.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysl import storage
from raysl.catalog import SOURCES
from raysl.data import minhash
from raysl.data.config import DecontaminateConfig, RedactConfig
from raysl.data.filters.base import Bools, Filter
from raysl.data.redact import redact_column
from raysl.data.sources import BadRows, Source
from raysl.data.text import normalize_column
from raysl.errors import DataError
from raysl.schema import TEXT


def write_ngrams(
    config: DecontaminateConfig, partition_mb: float, path: Path, redacted: RedactConfig | None = None
) -> dict[str, Any]:
    """Writes the sorted hashes of all n-grams of the evaluation set; returns counts, those of its bad rows by reason.

    Its texts are redacted as the documents are that they are compared with. Raises DataError where the set holds no text.
    """
    source: Source = SOURCES.load(config.source.type)(config.source)
    found, num_documents, bad = [np.zeros(0, np.uint64)], 0, BadRows()
    for partition in source.partitions(partition_mb):
        for table in source.read(partition, bad):
            num_documents += len(table)
            texts = normalize_column(table[TEXT])
            if redacted is not None:
                texts, _ = redact_column(texts, redacted)
            found.append(np.unique(ngrams(texts, config.ngram)[0]))
    hashes = np.unique(np.concatenate(found))
    if not len(hashes):
        raise DataError("prepare.decontaminate.source holds no text. Give it another path or another text_column.")
    with storage.atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, hashes)
    return {"documents": num_documents, "ngrams": len(hashes), "bad": bad.counts()}


def ngrams(texts: pa.Array, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the n-grams of all texts, and the text each stands in; a text of fewer words is one of its own."""
    hashes, rows, first = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
    for chunk in minhash.chunks(texts, compiled=False):
        own, starts = minhash.shingle_hashes(chunk, n, compiled=False)
        hashes.append(own)
        rows.append(np.repeat(np.arange(first, first + len(chunk)), np.diff(starts)))
        first += len(chunk)
    return np.concatenate(hashes), np.concatenate(rows)


class Contaminated(Filter):
    """Costs about as much as the shingles of de-duplication: 0.025 CPU seconds for a MB."""

    config: DecontaminateConfig

    def __init__(self, config: DecontaminateConfig, path: Path) -> None:
        super().__init__(config)
        self._evaluation = np.load(path, mmap_mode="r")

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        hashes, rows = ngrams(batch[TEXT].combine_chunks(), self.config.ngram)
        places = np.minimum(np.searchsorted(self._evaluation, hashes), len(self._evaluation) - 1)
        keep = np.ones(len(batch), np.bool_)
        keep[rows[self._evaluation[places] == hashes]] = False
        return {"contaminated": keep}
