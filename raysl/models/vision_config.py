"""Sizes of the image encoders."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from raysl.models.config import ModelConfig


class ResNetConfig(ModelConfig):
    """Residual network (He et al., 2015), laid out as torchvision's."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "resnet-tiny": {"depth": 18, "width": 8, "stem": "small"},
        "resnet-small": {"depth": 18, "width": 16, "stem": "small"},
        "resnet18": {"depth": 18, "width": 64, "stem": "large"},
        "resnet34": {"depth": 34, "width": 64, "stem": "large"},
        "resnet50": {"depth": 50, "width": 64, "stem": "large"},
    }
    modality: ClassVar[str] = "images"

    type: str = "resnet"
    depth: Literal[18, 34, 50] = 18
    """Layers with weights; 50 has bottlenecks."""
    width: int = Field(64, ge=8, multiple_of=8)  # with 4, oneDNN (torch 2.13, AVX2) writes past a shortcut's gradient
    """Channels of the first stage; each of the three that follow has twice as many."""
    stem: Literal["small", "large"] = "small"
    """`small`: one 3x3 convolution, for images up to about 64 pixels; `large`: 7x7, stride 2, pooling (ImageNet)."""


class VitConfig(ModelConfig):
    """Vision transformer (Dosovitskiy et al., 2020)."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "vit-tiny": {"num_layers": 12, "width": 192, "num_heads": 3, "patch_size": 16},
        "vit-small": {"num_layers": 12, "width": 384, "num_heads": 6, "patch_size": 16},
        "vit-base": {"num_layers": 12, "width": 768, "num_heads": 12, "patch_size": 16},
        "vit-large": {"num_layers": 24, "width": 1024, "num_heads": 16, "patch_size": 16},
    }
    modality: ClassVar[str] = "images"

    type: str = "vit"
    num_layers: int = Field(6, ge=1)
    """Transformer blocks."""
    width: int = Field(128, ge=8)
    """Width of the residual stream."""
    num_heads: int = Field(4, ge=1)
    """Attention heads; must divide width."""
    feedforward_ratio: float = Field(4.0, gt=0)
    """Width of the feed-forward layer over width."""
    patch_size: int = Field(4, ge=1)
    """Pixels along each side of a patch; must divide the image."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of activations set to zero while training."""

    @property
    def feedforward_width(self) -> int:
        return round(self.width * self.feedforward_ratio)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "VitConfig":
        if self.width % self.num_heads or self.width % 4:
            raise ValueError(f"num_heads and 4 must divide width, got {self.num_heads} heads for width {self.width}")
        return self
