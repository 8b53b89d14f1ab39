"""Documents in other languages (langid, Lui & Baldwin, 2012; the model of py3langid, 140 languages, inside its wheel)."""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysl.config import PluginConfig
from raysl.data.extras import require
from raysl.data.filters.base import Bools, Filter
from raysl.errors import ConfigError
from raysl.schema import TEXT


class LanguageConfig(PluginConfig):
    """Languages that stay."""

    type: str = "language"
    languages: tuple[str, ...] = ("en",)
    """ISO 639 codes, such as en, de, zh."""
    min_confidence: float = Field(0.0, ge=0, le=1)
    """Confidence of the identification at least; short texts, lists and code have little."""
    max_chars: int = Field(1000, ge=20)
    """Characters of a document that are looked at, from its begin."""


class Language(Filter):
    """Works offline. Costs about 0.15 CPU milliseconds for a document, and 0.8 seconds once per process."""

    Config: ClassVar[type[PluginConfig]] = LanguageConfig
    config: LanguageConfig

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__(config)
        require("py3langid", "language", "The filter 'language'")
        unknown = sorted(set(config.languages) - set(_identifier().nb_classes))
        if unknown or not config.languages:
            raise ConfigError(f"Unknown languages {', '.join(unknown) or '(none)'}. Give ISO 639 codes, such as en or de.")

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        found = [identify(text[: self.config.max_chars]) for text in batch[TEXT].to_pylist()]
        wanted = set(self.config.languages)
        return {
            "language": np.array([language in wanted for language, _ in found], np.bool_),
            "language_unsure": np.array([sure >= self.config.min_confidence for _, sure in found], np.bool_),
        }


def identify(text: str) -> tuple[str, float]:
    """ISO 639 code of the likeliest language and its probability; zxx where there is no language."""
    language, confidence = _identifier().classify(text)
    return str(language), float(confidence)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
