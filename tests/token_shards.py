"""Token shards written by hand, as `prepare` leaves them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysl import schema
from raysl.models.text import SEP


def write_shards(
    folder: Path, shards: Sequence[Sequence[Sequence[int]]], titles: Sequence[Sequence[int]] | None = None
) -> Path:
    """One file for each list of documents; the closing [SEP] is added. `titles`: tokens of each document's title."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, documents in enumerate(shards):
        tokens = [[*document, SEP] for document in documents]
        names = [f"{number}-{place}" for place in range(len(tokens))]
        columns = [names, [None] * len(tokens), tokens, *([] if titles is None else [titles[number]])]
        batch = pa.record_batch(columns, schema=schema.TOKENIZED if titles is None else schema.TITLED)
        with (
            pa.OSFile(str(folder / f"shard-{number:05d}.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema) as writer,
        ):
            writer.write_batch(batch)
    return folder


def random_documents(count: int, seed: int = 0, vocab_size: int = 50, topics: int = 5) -> list[list[int]]:
    """Documents of 16 to 40 tokens; each uses the words of its own topic, so that its two halves are alike."""
    generator = np.random.default_rng(seed)
    words = (vocab_size - 5) // topics
    return [
        (5 + number % topics * words + generator.integers(0, words, generator.integers(16, 41))).tolist()
        for number in range(count)
    ]
