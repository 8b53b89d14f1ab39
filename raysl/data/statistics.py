"""What has to be counted over the train rows before training: token frequencies; mean and deviation of each channel.

Beside a copy in a store they lie in one small file, so that no node has to read all shards first.
"""

import json
import math
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
BYTES_PER_TOKEN = 4


STATISTICS_TOKENS = 100_000_000
"""Every rank counts when it starts, so that of a large set a part has to do: about ten seconds of a core."""
STATISTICS_SHARDS = 1_000


def token_frequencies(folder: Path, vocab_size: int, most_tokens: int = STATISTICS_TOKENS) -> Frequencies:
    """Share of the documents in `folder` that hold each token (vocab_size,).

    Of more than about `most_tokens` tokens the first documents of each shard are counted, of more than 1,000 shards evenly
    spaced ones. It is the prior of a token's weight in a pooled embedding.
    """
    paths = sorted(folder.glob("shard-*.arrow"))
    paths = paths[:: -(-len(paths) // STATISTICS_SHARDS) or 1]
    share = min(1.0, most_tokens * BYTES_PER_TOKEN / max(sum(path.stat().st_size for path in paths), 1))
    counts, num_documents = np.zeros(vocab_size), 0
    for path in paths:
        shard = open_shard(path)
        taken = math.ceil(shard.num_documents * share)
        first, last = (int(shard.offsets[place]) for place in (0, taken))
        document = np.repeat(np.arange(taken, dtype=np.int64), np.diff(shard.offsets[: taken + 1]))
        seen = np.unique(document * vocab_size + shard.values[first:last])
        counts += np.bincount(seen % vocab_size, minlength=vocab_size)
        num_documents += taken
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
