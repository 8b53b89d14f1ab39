"""Sizes of the networks, by key or by the name of a known size."""

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from raysl.config import PluginConfig


class ModelConfig(PluginConfig):
    """What all networks share: `preset` names sizes, keys beside it change them."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Name -> keys and their values."""

    preset: str | None = None
    """Known sizes by name; keys that stand beside it win."""

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, data: Any) -> Any:
        name = data.get("preset") if isinstance(data, Mapping) else None
        if not isinstance(name, str):
            return data
        if name not in cls.PRESETS:
            near = difflib.get_close_matches(name, cls.PRESETS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"unknown preset '{name}'.{hint} Choose from {', '.join(cls.PRESETS) or 'none: give sizes'}")
        return {**cls.PRESETS[name], **data}


def _sizes(num_layers: int, width: int, num_heads: int, context_length: int) -> dict[str, int]:
    return {"num_layers": num_layers, "width": width, "num_heads": num_heads, "context_length": context_length}


class TransformerConfig(ModelConfig):
    """What all transformers share (Vaswani et al., 2017)."""

    num_layers: int = Field(2, ge=0)
    """Transformer blocks; 0 leaves token embeddings alone."""
    width: int = Field(128, ge=8)
    """Width of the residual stream."""
    num_heads: int = Field(4, ge=1)
    """Attention heads; must divide width."""
    feedforward_ratio: float = Field(4.0, gt=0)
    """Width of the feed-forward layer over width."""
    context_length: int = Field(128, ge=8)
    """Tokens the model reads at once."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of activations set to zero while training."""

    @property
    def feedforward_width(self) -> int:
        return round(self.width * self.feedforward_ratio)

    def matrix_weights(self, vocab_size: int) -> int:
        """Numbers in its matrices: all but about one in a thousand of its weights."""
        block = 4 * self.width**2 + 2 * self.width * self.feedforward_width
        return self.num_layers * block + (vocab_size + self.context_length) * self.width

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TransformerConfig":
        if self.width % self.num_heads:
            raise ValueError(f"num_heads must divide width, got {self.num_heads} heads for width {self.width}")
        return self


class BertConfig(TransformerConfig):
    """Encoder that sees both sides of a token (Devlin et al., 2019; the small sizes: Turc et al., 2019)."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bert-tiny": _sizes(2, 128, 2, 512),
        "bert-mini": _sizes(4, 256, 4, 512),
        "bert-small": _sizes(4, 512, 8, 512),
        "bert-medium": _sizes(8, 512, 8, 512),
        "bert-base": _sizes(12, 768, 12, 512),
        "bert-large": _sizes(24, 1024, 16, 512),
    }

    type: str = "bert"


class GptConfig(TransformerConfig):
    """Decoder that sees only what came before (Radford et al., 2019)."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "gpt-tiny": _sizes(2, 64, 2, 64),
        "gpt-mini": _sizes(4, 128, 4, 64),
        "gpt-small": _sizes(6, 384, 6, 256),
        "gpt2": _sizes(12, 768, 12, 1024),
        "gpt2-medium": _sizes(24, 1024, 16, 1024),
        "gpt2-large": _sizes(36, 1280, 20, 1024),
        "gpt2-xl": _sizes(48, 1600, 25, 1024),
    }

    type: str = "gpt"
