"""The search index of a bundle: embeddings of prepared documents, row by row beside the documents. Torch-free."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysl import schema, storage
from raysl.progress import Progress
from raysl.release.bundle import SEARCH_DOCUMENTS, SEARCH_EMBEDDINGS
from raysl.release.runtime import Floats, Runner


def write_search(folder: Path, runner: Runner, documents: pa.Table, known: Floats | None = None) -> None:
    """Writes search/: documents (id, text, label) and their embeddings, made on all cores.

    `known` are embeddings that the same encoder made of the first documents before.
    """
    first = 0 if known is None else len(known)
    texts = documents[schema.TEXT].slice(first).to_pylist()
    embeddings = [] if known is None else [known]
    if texts:
        with Progress("release: search index", total=len(texts), unit="documents") as progress:
            embeddings.append(runner.embed(texts, progress.advance))
    with storage.atomic_path(folder / SEARCH_EMBEDDINGS) as temporary, open(temporary, "wb") as file:
        np.save(file, np.concatenate(embeddings))
    with storage.atomic_path(folder / SEARCH_DOCUMENTS) as temporary:
        pq.write_table(documents, temporary, compression="zstd")
