"""The search index of a bundle: embeddings of prepared documents or pictures, row by row beside them. Torch-free."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysl import storage
from raysl.progress import Progress
from raysl.release.bundle import SEARCH_DOCUMENTS, SEARCH_EMBEDDINGS
from raysl.release.documents import described
from raysl.release.runtime import Floats, Runner


def write_search(folder: Path, runner: Runner, documents: pa.Table, known: Floats | None = None) -> None:
    """Writes search/: documents (id, text, label; of pictures no text) and their embeddings, made on all cores.

    `known` are embeddings that the same encoder made of the first documents before.
    """
    contents = runner.contents(documents.slice(0 if known is None else len(known)))
    embeddings = [] if known is None else [known]
    if len(contents):
        with Progress("release: search index", total=len(contents), unit="rows") as progress:
            embeddings.append(runner.embed(contents, progress.advance))
    with storage.atomic_path(folder / SEARCH_EMBEDDINGS) as temporary, open(temporary, "wb") as file:
        np.save(file, np.concatenate(embeddings))
    with storage.atomic_path(folder / SEARCH_DOCUMENTS) as temporary:
        pq.write_table(described(documents), temporary, compression="zstd")
