"""Blocks for runs on images that train in moments: a linear encoder that rebuilds its pixels from few numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysl.config import PluginConfig
from raysl.data.pixels import PixelFormat, to_images
from raysl.data.sources import Source
from raysl.models.encoder import Encoder
from raysl.objectives.base import Batch, Objective, RowKind, StepOutput, Uniform


class LinearConfig(PluginConfig):
    """One matrix."""

    modality: ClassVar[str] = "images"


class Linear(Encoder):
    Config = LinearConfig
    width = 4

    def __init__(self, config: LinearConfig, image: Any) -> None:
        super().__init__()
        self.config, self.image = config, image
        self.down = nn.Linear(image.channels * image.size**2, self.width)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"image": vars(self.image)}

    def embed(self, inputs: Tensor) -> Tensor:
        return F.normalize(self.down(inputs.flatten(1)), dim=-1)


class RebuildConfig(PluginConfig):
    """Pixels out of the embedding."""

    modality: ClassVar[str] = "images"


class Rebuild(Objective):
    Config = RebuildConfig
    row_kind: ClassVar[RowKind] = "pixels"

    def __init__(self, config: RebuildConfig, encoder: Linear) -> None:
        super().__init__(config, encoder)
        self.up = nn.Linear(encoder.width, encoder.down.in_features)

    def collate(self, rows: Sequence[Any], uniform: Uniform) -> Batch:
        image = self.encoder.image
        form = PixelFormat(image.size, image.channels, image.patch_size)
        pixels = to_images(np.stack(rows), form).astype(np.float32) / 255
        return {"images": torch.from_numpy(pixels + 0.01 * uniform(1)[:, :, None, None].astype(np.float32))}

    def targets(self, batch: Batch) -> Tensor:
        return torch.tensor([float(len(batch["images"]))])

    def forward(self, batch: Batch, totals: Tensor) -> StepOutput:
        images = batch["images"].flatten(1)
        return StepOutput(((self.up(self.encoder.embed(images)) - images) ** 2).mean(1).sum() / totals[0])


class PicturesConfig(PluginConfig):
    """Written by tests/picture_shards.py."""

    modality: ClassVar[str] = "images"


class Pictures(Source):
    Config = PicturesConfig
