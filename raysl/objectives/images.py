"""What pretext tasks on images share: their rows are pixels, laid out as the shards say."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from raysl.data.pixels import PixelFormat, Pixels, to_images
from raysl.data.rows import Row
from raysl.models.vision import VisionEncoder
from raysl.objectives.base import Batch, Objective, RowKind


class ImageObjective(Objective):
    """Base of `simclr` and `mae`."""

    unit: ClassVar[str] = "images"
    row_kind: RowKind = "pixels"
    encoder_class: ClassVar[type[VisionEncoder]] = VisionEncoder
    encoder: VisionEncoder

    def __init__(self, config: Any, encoder: VisionEncoder) -> None:
        super().__init__(config, encoder)
        image = encoder.image
        self.pixel_format = PixelFormat(image.size, image.channels, image.patch_size)

    @staticmethod
    def stack(rows: Sequence[Row]) -> Pixels:
        """Rows side by side (rows, row bytes)."""
        return np.stack(rows)

    def units(self, batch: Batch) -> int:
        return len(next(iter(batch.values())))

    def inputs(self, rows: Sequence[Row]) -> Tensor:
        return torch.from_numpy(to_images(self.stack(rows), self.pixel_format))
