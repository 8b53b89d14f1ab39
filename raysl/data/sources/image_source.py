"""What a source of pictures is, and the small set that every machine has."""

import gzip
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from raysl import storage
from raysl.config import PluginConfig
from raysl.data.sources.base import BadRows, Partition, Source

ImageRow = tuple[str, bytes, str | None]
"""id, bytes as they are stored, label."""
NUM_DIGITS, DIGITS_PER_PARTITION = 1797, 450


class ImageSource(Source):
    """Base of sources whose modality is `images`. A subclass yields pictures one by one, undecoded."""

    def images(self, partition: Partition, bad: BadRows) -> Iterator[ImageRow]:
        """Yields the pictures of a partition; what cannot be read at all goes to `bad`."""
        raise NotImplementedError


class DigitsConfig(PluginConfig):
    """Scikit-learn's 1,797 handwritten digits, grey, 8 x 8 pixels: pictures that every machine has."""

    type: str = "digits"
    modality: ClassVar[str] = "images"


class Digits(ImageSource):
    """The label is the digit, the id digit-0000 to digit-1796."""

    Config: ClassVar[type[PluginConfig]] = DigitsConfig
    config: DigitsConfig

    def partitions(self, partition_mb: float) -> list[Partition]:
        starts = range(0, NUM_DIGITS, DIGITS_PER_PARTITION)
        return [[("digits", start, min(start + DIGITS_PER_PARTITION, NUM_DIGITS))] for start in starts]

    def fingerprint(self) -> str:
        return storage.hash_text(f"scikit-learn digits {NUM_DIGITS}")

    def images(self, partition: Partition, bad: BadRows) -> Iterator[ImageRow]:
        values, labels = _digits()
        for _, start, stop in partition:
            for number in range(start, stop):
                file = io.BytesIO()
                Image.fromarray(values[number]).save(file, "PNG")
                yield f"digit-{number:04d}", file.getvalue(), str(labels[number])


def _digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Pictures (n, 8, 8) and digits; from the file that scikit-learn's `load_digits` reads, whose import takes seconds."""
    found = importlib.util.find_spec("sklearn")
    assert found is not None
    assert found.submodule_search_locations is not None
    with gzip.open(Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    return np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8), table[:, -1].astype(np.uint8)
