"""Settings of the pretext tasks."""

from typing import ClassVar, Literal

from pydantic import Field

from raysl.config import PluginConfig


class ObjectiveConfig(PluginConfig):
    """What is known of a pretext task without importing torch, so that a YAML that does not fit it is refused at once."""

    models: ClassVar[tuple[str, ...]] = ()
    """Models of the catalog that it trains; empty: all of its modality."""
    parts: ClassVar[tuple[str, ...]] = ()
    """Parts of the loss that may be logged, of which less is better; empty: they are not known before the first step."""
    compares_rows: ClassVar[bool] = False
    """Whether its loss compares the rows of a batch with each other: it needs two, and a part has another loss."""

    @property
    def logged_parts(self) -> tuple[str, ...]:
        """Those of `parts` that are logged with these settings."""
        return self.parts

    def check_model(self, model: str) -> None:
        """Raises ValueError where the task does not train that model of the catalog."""
        if self.models and ":" not in model and model not in self.models:
            allowed = " or ".join(self.models)
            raise ValueError(f"objective '{self.type}' does not train model '{model}'. Choose model {allowed}")


class BertConfig(ObjectiveConfig):
    """Hidden words (Devlin et al., 2019)."""

    models: ClassVar[tuple[str, ...]] = ("bert",)
    parts: ClassVar[tuple[str, ...]] = ("hidden_words",)

    type: str = "bert"
    mask_share: float = Field(0.15, gt=0, lt=1)
    """Share of tokens to predict; of these 80 % are hidden, 10 % swapped, 10 % left."""
    whole_words: bool = False
    """Whether all pieces of a word are predicted or none: harder than guessing a piece from the rest of its word."""


class GptConfig(ObjectiveConfig):
    """Next word (Radford et al., 2019)."""

    models: ClassVar[tuple[str, ...]] = ("gpt",)
    parts: ClassVar[tuple[str, ...]] = ("next_word",)

    type: str = "gpt"


class ContrastiveTextConfig(ObjectiveConfig):
    """Two spans of one document are the two views (Giorgi et al., 2021; NT-Xent of Chen et al., 2020)."""

    later: ClassVar[frozenset[str]] = frozenset({"views"})
    parts: ClassVar[tuple[str, ...]] = ("contrast", "hidden_words")
    compares_rows: ClassVar[bool] = True

    type: str = "contrastive_text"
    views: Literal["spans", "title"] = "spans"
    """What the views are: two spans, or the title and a span of the body (prepare.source.title_column), as a search asks; of
    a document without a title, two spans."""
    span_length: int = Field(64, ge=4)
    """Tokens of one span at most."""
    temperature: float = Field(0.1, gt=0)
    """Sharpness of the contrast: lower weighs the nearest negatives more."""
    hidden_words_weight: float = Field(0.0, ge=0)
    """Weight of the hidden-words loss (Devlin et al., 2019) added to the contrast, for model bert only; 0 leaves it out."""
    hidden_words_rows: float = Field(0.125, gt=0, le=1)
    """Share of the rows on which words are hidden; the vocabulary head is the dear part."""

    @property
    def logged_parts(self) -> tuple[str, ...]:
        return self.parts if self.hidden_words_weight else ("contrast",)

    def check_model(self, model: str) -> None:
        if self.hidden_words_weight and ":" not in model and model != "bert":
            raise ValueError(
                f"objective.hidden_words_weight={self.hidden_words_weight} needs a model that sees both sides of a word, "
                f"got model '{model}'. Choose model bert, or hidden_words_weight=0"
            )
