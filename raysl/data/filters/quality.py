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

The paper does not say what a word is; here it is what `words.py` cuts, without marks of punctuation.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysl.config import PluginConfig
from raysl.data.filters.base import Bools, Filter
from raysl.data.filters.measures import (
    BULLET_LINES,
    ELLIPSES,
    ELLIPSIS_LINES,
    HASHES,
    LETTER_WORDS,
    LINES,
    MARKS,
    STOP_WORDS,
    WORD_CHARS,
    WORDS,
    Measures,
)  # fmt: skip


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
    count_marks: bool = False
    """Whether marks of punctuation count as words in the shares of symbols and of words with a letter, as in datatrove."""


class Quality(Filter):
    """Shares its measures with the other filters. Costs about 0.013 CPU seconds for a MB compiled, 0.4 without."""

    has_kernels = True
    Config: ClassVar[type[PluginConfig]] = QualityConfig
    config: QualityConfig

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        config, found = self.config, Measures.of(batch, self.compiled)
        words, lines = found[WORDS], found[LINES]
        mean = found[WORD_CHARS] / np.maximum(words, 1)
        counted = words + found[MARKS] if config.count_marks else words
        symbols = np.maximum(found[HASHES], found[ELLIPSES])
        return {
            "word_count": (words >= config.min_words) & (words <= config.max_words),
            "word_length": (mean >= config.min_mean_word_chars) & (mean <= config.max_mean_word_chars),
            "symbols": symbols <= config.max_symbols_per_word * counted,
            "bullet_lines": found[BULLET_LINES] <= config.max_bullet_lines * lines,
            "ellipsis_lines": found[ELLIPSIS_LINES] <= config.max_ellipsis_lines * lines,
            "words_without_letters": found[LETTER_WORDS] >= config.min_words_with_letter * counted,
            "stop_words": found[STOP_WORDS] >= config.min_stop_words,
        }
