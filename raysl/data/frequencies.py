"""In how many documents each token stands: the prior of a token's weight in a pooled embedding."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from raysl.data.shards import open_shard


def token_frequencies(folder: Path, vocab_size: int) -> npt.NDArray[np.float64]:
    """Share of the documents in `folder` that hold each token (vocab_size,); one pass over the shards."""
    counts, num_documents = np.zeros(vocab_size), 0
    for path in sorted(folder.glob("shard-*.arrow")):
        shard = open_shard(path)
        document = np.repeat(np.arange(shard.num_documents, dtype=np.int64), np.diff(shard.offsets))
        seen = np.unique(document * vocab_size + shard.values)
        counts += np.bincount(seen % vocab_size, minlength=vocab_size)
        num_documents += shard.num_documents
    return counts / max(num_documents, 1)
