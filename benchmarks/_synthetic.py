"""Made-up documents in any number, a tenth of them near-copies, for benchmarks of scale."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WORDS_IN_ALL, WORDS = 50_000, 16
ROWS = 20_000
"""Documents of one row group, which is what a task reads."""


def write_corpus(path: Path, num_documents: int, seed: int = 0) -> None:
    """A parquet file of short documents (100 bytes); every tenth is one before it with one or two words behind it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, pa.schema([("id", pa.string()), ("text", pa.string())])) as writer:
        for first, texts in _texts(num_documents, np.random.default_rng(seed)):
            ids = [f"d{number}" for number in range(first, first + len(texts))]
            writer.write_table(pa.table({"id": ids, "text": texts}), row_group_size=ROWS)


def _texts(num_documents: int, random: np.random.Generator) -> Iterator[tuple[int, list[str]]]:
    vocabulary = np.array([f"{letter}{n:x}" for n, letter in enumerate(random.choice(list("ghklmnprst"), WORDS_IN_ALL))])
    for first in range(0, num_documents, ROWS):
        texts = [
            " ".join(row) for row in vocabulary[random.integers(0, WORDS_IN_ALL, (min(ROWS, num_documents - first), WORDS))]
        ]
        for copy in range(9, len(texts), 10):
            texts[copy] = " ".join([texts[random.integers(0, copy)], *["again", "and again"][: random.integers(1, 3)][-1:]])
        yield first, texts
