"""Two views of one image find each other among all views of the batch (SimCLR, Chen et al., 2020).

Negatives come from all workers with gradient, and BatchNorm's statistics are those of the whole batch, so several workers
train as one process would.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysl.data.pixels import to_images
from raysl.data.rows import Row
from raysl.models.encoder import at_least_float
from raysl.models.vision import VisionEncoder
from raysl.objectives.augment import NUM_UNIFORM, views
from raysl.objectives.base import Batch, StepOutput, Uniform, as_tensors
from raysl.objectives.contrast import nt_xent_sum, send_views
from raysl.objectives.image_config import SimclrConfig
from raysl.objectives.images import ImageObjective


class Simclr(ImageObjective):
    """The projector (its head) is trained with the encoder and thrown away."""

    Config = SimclrConfig

    def __init__(self, config: SimclrConfig, encoder: VisionEncoder) -> None:
        super().__init__(config, encoder)
        width = encoder.width
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.projection_width))

    def collate(self, rows: Sequence[Row], uniform: Uniform) -> Batch:
        images = to_images(self.stack(rows), self.pixel_format)
        return as_tensors(images=images, uniform=uniform(2 * NUM_UNIFORM)) | uniform.together()

    def targets(self, batch: Batch) -> Tensor:
        return torch.full((1,), 2.0 * len(batch["images"]), device=batch["images"].device)

    def forward(self, batch: Batch, totals: Tensor) -> StepOutput:
        device = batch["images"].device.type
        with torch.autocast(device, enabled=False):
            both = self._views(batch)
        projected = self.projector(self.encoder.features(both))
        first, second = F.normalize(at_least_float(projected), dim=-1).chunk(2)
        sent = send_views(first, second, len(batch["together"]))
        contrast = nt_xent_sum(first, second, sent, self.config.temperature) / totals[0]
        return StepOutput(contrast, {"contrast": contrast.detach()})

    def _views(self, batch: Batch) -> Tensor:
        """First views of all images, then the second ones (2 x batch, channel, height, width)."""
        images, numbers = batch["images"], batch["uniform"].to(self.encoder.mean.dtype)
        return views(images.repeat(2, 1, 1, 1), torch.cat(numbers.chunk(2, dim=1)), self.config.augment)
