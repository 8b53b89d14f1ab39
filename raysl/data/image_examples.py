"""Pictures that a report shows of each reason: those of lowest seeded rank, as small JPEGs inside the page."""

import base64
import heapq
import io
from collections.abc import Callable, Mapping, Sequence

from PIL import Image

from raysl import storage
from raysl.data.filters.base import NUM_EXAMPLES

THUMBNAIL = 64
Example = tuple[str, str, str, str]
"""Seeded rank, id, what is said of it, picture as a data URI (empty for bytes that are no picture)."""


class ImageExamples:
    """The same pictures however they are divided into units."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.found: dict[str, list[Example]] = {}

    def add(self, reason: str, name: str, text: str, image: Callable[[], Image.Image] | None) -> None:
        """`image` is asked only where the picture is shown."""
        rank = storage.hash_text(f"{self.seed}:{name}")[:16]
        known = self.found.get(reason, [])
        if len(known) < NUM_EXAMPLES or rank < known[-1][0]:
            self.merge({reason: [(rank, name, text, "" if image is None else data_uri(image()))]})

    def merge(self, other: Mapping[str, Sequence[Sequence[str]]]) -> None:
        for reason, examples in other.items():
            both = {*self.found.get(reason, []), *((rank, name, text, image) for rank, name, text, image in examples)}
            self.found[reason] = heapq.nsmallest(NUM_EXAMPLES, both)


def data_uri(image: Image.Image) -> str:
    small, file = image.copy(), io.BytesIO()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(file, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
