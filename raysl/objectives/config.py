"""Settings of the pretext tasks."""

from pydantic import Field

from raysl.config import PluginConfig


class BertConfig(PluginConfig):
    """Hidden words (Devlin et al., 2019)."""

    type: str = "bert"
    mask_share: float = Field(0.15, gt=0, lt=1)
    """Share of tokens to predict; of these 80 % are hidden, 10 % swapped, 10 % left."""
    whole_words: bool = False
    """Whether all pieces of a word are predicted or none: harder than guessing a piece from the rest of its word."""


class GptConfig(PluginConfig):
    """Next word (Radford et al., 2019)."""

    type: str = "gpt"


class ContrastiveTextConfig(PluginConfig):
    """Two spans of one document are the two views (Giorgi et al., 2021; NT-Xent of Chen et al., 2020)."""

    type: str = "contrastive_text"
    span_length: int = Field(64, ge=4)
    """Tokens of one span at most."""
    temperature: float = Field(0.1, gt=0)
    """Sharpness of the contrast: lower weighs the nearest negatives more."""
    hidden_words_weight: float = Field(0.0, ge=0)
    """Weight of the hidden-words loss (Devlin et al., 2019) added to the contrast; 0 leaves it out."""
    hidden_words_rows: float = Field(0.125, gt=0, le=1)
    """Share of the rows on which words are hidden; the vocabulary head is the dear part."""
