"""The quality rules of Gopher (Rae et al., 2021, table A1).

| rule                                          | default |
|-----------------------------------------------|---------|
| words                                         | 50 to 100,000 |
| mean word length, characters                  | 3 to 10 |
| `#` or ellipses for each word                 | at most 0.1 |
| lines that begin with a bullet                | at most 0.9 |
| lines that end with an ellipsis               | at most 0.3 |
| words with a letter                           | at least 0.8 |
| different ones of 8 English stop words        | at least 2 |
"""

import re
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysl.config import PluginConfig
from raysl.data.filters.base import Bools, Filter
from raysl.schema import TEXT

BULLETS = ("•", "-", "*")
ELLIPSES = ("...", "…")
WITH_LETTER = re.compile(r"[^\W\d_]\S*")
"""From a word's first letter to its end, so that each match is one word with a letter."""
STOP_WORD = re.compile(r"\b(?:the|be|to|of|and|that|have|with)\b")


class QualityConfig(PluginConfig):
    """Thresholds of the Gopher quality rules; the defaults are the paper's."""

    type: str = "quality"
    min_words: int = Field(50, ge=0)
    """Words a document needs."""
    max_words: int = Field(100_000, ge=1)
    """Words a document may have."""
    min_mean_word_chars: float = Field(3.0, ge=0)
    """Mean length of a word at least, in characters."""
    max_mean_word_chars: float = Field(10.0, gt=0)
    """Mean length of a word at most, in characters."""
    max_symbols_per_word: float = Field(0.1, ge=0)
    """Hash signs, and likewise ellipses, for each word at most."""
    max_bullet_lines: float = Field(0.9, ge=0, le=1)
    """Share of lines that begin with a bullet at most."""
    max_ellipsis_lines: float = Field(0.3, ge=0, le=1)
    """Share of lines that end with an ellipsis at most."""
    min_words_with_letter: float = Field(0.8, ge=0, le=1)
    """Share of words with a letter at least."""
    min_stop_words: int = Field(2, ge=0, le=8)
    """How many of: the, be, to, of, and, that, have, with. 0 for text that is not English."""


class Quality(Filter):
    """Words are what stands between blanks. Costs about 0.1 CPU seconds for a MB."""

    Config: ClassVar[type[PluginConfig]] = QualityConfig
    config: QualityConfig

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        config = self.config
        rows = [statistics(text) for text in batch[TEXT].to_pylist()]
        words, chars, symbols, bullets, ellipses, letters, stops = np.array(rows, np.float64).reshape(-1, 7).T
        mean = chars / np.maximum(words, 1)
        return {
            "word_count": (words >= config.min_words) & (words <= config.max_words),
            "word_length": (mean >= config.min_mean_word_chars) & (mean <= config.max_mean_word_chars),
            "symbols": symbols <= config.max_symbols_per_word * words,
            "bullet_lines": bullets <= config.max_bullet_lines,
            "ellipsis_lines": ellipses <= config.max_ellipsis_lines,
            "words_without_letters": letters >= config.min_words_with_letter * words,
            "stop_words": stops >= config.min_stop_words,
        }


def statistics(text: str) -> tuple[float, ...]:
    """Words, their characters, symbols, shares of bullet and ellipsis lines, words with a letter, stop words."""
    words = text.split()
    lines = [line.strip() for line in text.split("\n") if line and not line.isspace()]
    num_lines = max(len(lines), 1)
    return (
        len(words),
        sum(map(len, words)),
        max(text.count("#"), sum(map(text.count, ELLIPSES))),
        sum(line.startswith(BULLETS) for line in lines) / num_lines,
        sum(line.endswith(ELLIPSES) for line in lines) / num_lines,
        len(WITH_LETTER.findall(text)),
        len(set(STOP_WORD.findall(text.lower()))),
    )
