"""Settings of the pretext tasks."""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

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
    views: Literal["spans", "title"] = "spans"
    """What the views are: two spans, or the title and a span of the body (prepare.source.title_column), as a search asks; of
    a document without a title, two spans."""
    span_length: int = Field(64, ge=4)
    """Tokens of one span at most."""
    temperature: float = Field(0.1, gt=0)
    """Sharpness of the contrast: lower weighs the nearest negatives more."""
    hidden_words_weight: float = Field(0.0, ge=0)
    """Weight of the hidden-words loss (Devlin et al., 2019) added to the contrast; 0 leaves it out."""
    hidden_words_rows: float = Field(0.125, gt=0, le=1)
    """Share of the rows on which words are hidden; the vocabulary head is the dear part."""

    @model_serializer(mode="wrap")
    def _leave_out_the_usual(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Two spans leave no mark, so that runs made before there was a choice are still known."""
        return {key: value for key, value in handler(self).items() if (key, value) != ("views", "spans")}
