"""What has to be counted over the train rows before training: token frequencies; mean and deviation of each channel.

Beside a copy in a store they lie in one small file, so that no node has to read all shards first.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from raysl.data.decode import EncodedRows
from raysl.data.pixels import PixelRows, channel_statistics
from raysl.data.prepared import ENCODED, PIXELS, STATISTICS, TOKENIZER, TOKENS, Prepared
from raysl.data.shards import open_shard
from raysl.schema import TRAIN

Frequencies = npt.NDArray[np.float64]


def token_frequencies(folder: Path, vocab_size: int) -> Frequencies:
    """Share of the documents in `folder` that hold each token (vocab_size,); one pass over the shards.

    It is the prior of a token's weight in a pooled embedding.
    """
    counts, num_documents = np.zeros(vocab_size), 0
    for path in sorted(folder.glob("shard-*.arrow")):
        shard = open_shard(path)
        document = np.repeat(np.arange(shard.num_documents, dtype=np.int64), np.diff(shard.offsets))
        seen = np.unique(document * vocab_size + shard.values)
        counts += np.bincount(seen % vocab_size, minlength=vocab_size)
        num_documents += shard.num_documents
    return counts / max(num_documents, 1)


@dataclass(frozen=True)
class TextStatistics:
    """Of the documents of the train split."""

    frequencies: list[float]
    """Share of the documents that hold each token."""


@dataclass(frozen=True)
class ImageStatistics:
    """Of the images of the train split."""

    size: int
    channels: int
    patch_size: int
    mean: tuple[float, ...]
    """Of each channel, on the scale 0 to 1."""
    std: tuple[float, ...]
    """Of each channel, on the scale 0 to 1."""


def statistics_of(prepared: Prepared) -> TextStatistics | ImageStatistics:
    """Read where a copy in a store holds them, else counted."""
    if not prepared.remote:
        return count(Path(prepared.location))
    said = json.loads(prepared.file(STATISTICS).read_text(encoding="utf-8"))
    return TextStatistics(**said) if "frequencies" in said else ImageStatistics(**said)


def count(folder: Path) -> TextStatistics | ImageStatistics:
    """Of the prepared outputs in a folder of this machine."""
    if (folder / TOKENS).is_dir():
        vocab_size = len(json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))["model"]["vocab"])
        return TextStatistics(token_frequencies(folder / TOKENS / TRAIN, vocab_size).tolist())
    encoded = folder / ENCODED / TRAIN
    rows = EncodedRows(encoded) if encoded.is_dir() else PixelRows(folder / PIXELS / TRAIN)
    mean, std = channel_statistics(rows)
    return ImageStatistics(rows.form.size, rows.form.channels, rows.form.patch_size, mean, std)
