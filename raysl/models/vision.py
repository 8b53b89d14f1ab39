"""Image encoders: pixels are normalised inside the network, so that mean and deviation travel with it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from raysl.models.encoder import Encoder, at_least_float


@dataclass(frozen=True)
class ImageFormat:
    """What the prepared images say of themselves."""

    size: int
    """Pixels along each side."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    patch_size: int
    """Pixels along each side of a patch as the rows lie on disk."""
    mean: tuple[float, ...]
    """Mean of each channel, on the scale 0 to 1."""
    std: tuple[float, ...]
    """Standard deviation of each channel, on the scale 0 to 1."""

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "ImageFormat":
        """From plain values, as model.json holds them."""
        sizes = {name: int(said[name]) for name in ("size", "channels", "patch_size")}
        return cls(**sizes, mean=tuple(said["mean"]), std=tuple(said["std"]))


class VisionEncoder(Encoder):
    """Shared by ResNet and ViT: normalisation of pixels, and the way from features to an embedding."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: Any, image: ImageFormat) -> None:
        super().__init__()
        self.config, self.image = config, image
        self.register_buffer("mean", torch.tensor(image.mean)[:, None, None], persistent=False)  # (channel, 1, 1)
        self.register_buffer("std", torch.tensor(image.std)[:, None, None], persistent=False)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"image": asdict(self.image)}

    def normalize(self, images: Tensor) -> Tensor:
        """Bytes, or numbers between 0 and 1 -> numbers around 0; (batch, channel, height, width)."""
        scaled = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images
        return (scaled - self.mean) / self.std

    def features(self, images: Tensor) -> Tensor:
        """What the projection head or a probe sits on (batch, width); `images` are bytes or numbers between 0 and 1."""
        raise NotImplementedError

    def embed(self, inputs: Tensor) -> Tensor:
        return F.normalize(at_least_float(self.features(inputs)), dim=-1)
