"""Sizes of the networks."""

from pydantic import Field, model_validator

from raysl.config import PluginConfig


class TransformerConfig(PluginConfig):
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

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TransformerConfig":
        if self.width % self.num_heads:
            raise ValueError(f"num_heads must divide width, got {self.num_heads} heads for width {self.width}")
        return self


class BertConfig(TransformerConfig):
    """Encoder that sees both sides of a token (Devlin et al., 2019)."""

    type: str = "bert"


class GptConfig(TransformerConfig):
    """Decoder that sees only what came before (Radford et al., 2019)."""

    type: str = "gpt"
