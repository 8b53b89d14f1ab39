"""Labelled rows as an encoder reads them: padded tokens, or images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysl.data.labelled import Documents, Labelled, Pictures
from raysl.data.pixels import PixelFormat, to_images
from raysl.data.rows import Row
from raysl.data.shards import Tokens
from raysl.data.tokenizer_file import load_tokenizer
from raysl.models.encoder import Encoder
from raysl.models.text import SEP
from raysl.models.vision import VisionEncoder
from raysl.objectives.base import pad

EVALUATION_TOKENS = 8192
"""Tokens of one batch when nothing is trained; batches are of like length, so little is padding."""
KEPT_BYTES = 2**30
"""Pixels that are kept in memory."""
EVALUATION_IMAGES = 256
"""Images of one batch at most when nothing is trained."""
EVALUATION_NUMBERS = EVALUATION_IMAGES * 224**2 * 3
"""Numbers of its images at most: of larger images fewer are a batch, as their maps inside the network are larger too."""


def tokenize(tokenizer_path: Path, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
    """Token ids of each text as in the shards: cut to `max_tokens`, closed by [SEP]."""
    encodings = load_tokenizer(tokenizer_path).encode_batch(list(texts), add_special_tokens=False)
    return [np.array([*encoding.ids[: max_tokens - 1], SEP], np.int32) for encoding in encodings]


def rows_of(labelled: Labelled, prepared: Path, max_tokens: int) -> Sequence[Row]:
    """Tokens of documents, or pixels of pictures: decoded once, or, where they are many, each time one is read."""
    if isinstance(labelled, Pictures):
        pixels = labelled.pixels
        return list(pixels) if sum(row.nbytes for row in pixels[:1]) * len(pixels) <= KEPT_BYTES else pixels
    assert isinstance(labelled, Documents)
    return list(tokenize(prepared / "tokenizer.json", labelled.texts, max_tokens))


def to_tensor(encoder: Encoder, rows: Sequence[Row]) -> Tensor:
    """What `encoder.embed` reads: tokens (rows, length), or images (rows, channel, height, width)."""
    if isinstance(encoder, VisionEncoder):
        image = encoder.image
        return torch.from_numpy(to_images(np.stack(rows), PixelFormat(image.size, image.channels, image.patch_size)))
    return torch.from_numpy(pad(rows))


def batches(encoder: Encoder, rows: Sequence[Row]) -> Iterator[npt.NDArray[np.int64]]:
    """Places of the rows of one batch at a time, each row once."""
    if not isinstance(encoder, VisionEncoder):
        yield from batches_by_length(rows)
        return
    fitting = EVALUATION_NUMBERS // (encoder.image.size**2 * encoder.image.channels)
    size = max(1, min(EVALUATION_IMAGES, fitting))
    for start in range(0, len(rows), size):
        yield np.arange(start, min(start + size, len(rows)))


def batches_by_length(rows: Sequence[Row]) -> Iterator[npt.NDArray[np.int64]]:
    """Places of rows of like length, about EVALUATION_TOKENS tokens at a time."""
    order = np.argsort([len(row) for row in rows], kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * len(rows[order[stop]]) <= EVALUATION_TOKENS:
            stop += 1
        yield order[start:stop]
        start = stop
