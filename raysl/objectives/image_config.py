"""Settings of the pretext tasks on images."""

from typing import ClassVar

from pydantic import Field, model_validator

from raysl.config import Config
from raysl.objectives.config import ObjectiveConfig


class AugmentConfig(Config):
    """What makes two views of one image differ (Chen et al., 2020, appendix A); each image draws for itself."""

    min_crop_area: float = Field(0.2, gt=0, le=1)
    """Smallest share of the image that a crop shows; the largest is all of it."""
    flip: bool = True
    """Whether half of the views are mirrored; not for digits and letters."""
    jitter_strength: float = Field(0.5, ge=0, le=1)
    """Brightness, contrast and saturation change by up to 0.8 times this, hue by up to 0.2 times; 0 leaves colours alone."""
    jitter_share: float = Field(0.8, ge=0, le=1)
    """Share of the views whose colours change."""
    grayscale_share: float = Field(0.2, ge=0, le=1)
    """Share of the views that lose their colours."""
    blur_share: float = Field(0.0, ge=0, le=1)
    """Share of the views that are blurred: 0.5 for photographs, 0 at 32 pixels."""
    max_blur: float = Field(2.0, gt=0.1)
    """Largest deviation of the blur in pixels; the smallest is 0.1."""


class SimclrConfig(ObjectiveConfig):
    """Two views of one image find each other (Chen et al., 2020)."""

    modality: ClassVar[str] = "images"
    parts: ClassVar[tuple[str, ...]] = ("contrast",)
    compares_rows: ClassVar[bool] = True

    type: str = "simclr"
    temperature: float = Field(0.2, gt=0)
    """Sharpness of the contrast: lower weighs the nearest negatives more."""
    projection_width: int = Field(128, ge=2)
    """Width of the vectors that are compared; the head that makes them is thrown away."""
    augment: AugmentConfig = AugmentConfig()


class MaeConfig(ObjectiveConfig):
    """Hidden patches (He et al., 2021)."""

    modality: ClassVar[str] = "images"
    models: ClassVar[tuple[str, ...]] = ("vit",)
    parts: ClassVar[tuple[str, ...]] = ("hidden_patches",)

    type: str = "mae"
    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of the patches hidden from the encoder."""
    decoder_layers: int = Field(2, ge=1)
    """Transformer blocks of the decoder, which is thrown away."""
    decoder_width: int = Field(64, ge=8)
    """Width of the decoder."""
    decoder_heads: int = Field(4, ge=1)
    """Attention heads of the decoder; must divide decoder_width."""
    normalize_target: bool = True
    """Whether each patch is predicted up to its own mean and deviation (`norm_pix`)."""
    flip: bool = True
    """Whether half of the images are mirrored; not for digits and letters."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "MaeConfig":
        if self.decoder_width % self.decoder_heads or self.decoder_width % 4:
            heads, width = self.decoder_heads, self.decoder_width
            raise ValueError(f"decoder_heads and 4 must divide decoder_width, got {heads} heads for width {width}")
        return self
