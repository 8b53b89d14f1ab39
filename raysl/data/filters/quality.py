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

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from raysl.config import PluginConfig
from raysl.data.filters.base import Bools, Filter
from raysl.data.filters.characters import letters
from raysl.data.filters.statistics import TextStatistics
from raysl.schema import TEXT

BULLETS = ("•", "-", "*")
ELLIPSES = ("...", "…")
STOP_WORDS = [
    rf"(?i)(?:^|[^\pL\pN_]){word}(?:$|[^\pL\pN_])" for word in ("the", "be", "to", "of", "and", "that", "have", "with")
]
"""As RE2 has it, whose own \\b knows ASCII only."""


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
    """Words are what stands between blanks. Costs about 0.04 CPU seconds for a MB."""

    Config: ClassVar[type[PluginConfig]] = QualityConfig
    config: QualityConfig

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        config, found = self.config, TextStatistics.of(batch)
        words, lines = found.num_words, np.maximum(found.per_text(found.lines), 1)
        mean = found.per_text(found.words, found.words.chars) / np.maximum(words, 1)
        bullets = found.per_text(found.lines, found.begin_with(found.lines, BULLETS)) / lines
        ellipses = found.per_text(found.lines, found.end_with(found.lines, ELLIPSES)) / lines
        return {
            "word_count": (words >= config.min_words) & (words <= config.max_words),
            "word_length": (mean >= config.min_mean_word_chars) & (mean <= config.max_mean_word_chars),
            "symbols": symbols(found) <= config.max_symbols_per_word * words,
            "bullet_lines": bullets <= config.max_bullet_lines,
            "ellipsis_lines": ellipses <= config.max_ellipsis_lines,
            "words_without_letters": words_with_letter(found) >= config.min_words_with_letter * words,
            "stop_words": stop_words(batch[TEXT]) >= config.min_stop_words,
        }


def symbols(found: TextStatistics) -> NDArray[np.int64]:
    """Hash signs or ellipses of each text, whichever are more."""
    hashes = found.count(found.data == ord("#"))
    more: NDArray[np.int64] = np.maximum(hashes, _dots(found) + found.count_places(found.places("…")))
    return more


def _dots(found: TextStatistics) -> NDArray[np.int64]:
    """Three dots in a row, each dot counted once."""
    is_dot = found.data == ord(".")
    is_dot = np.r_[False, is_dot, False]
    begin, end = np.flatnonzero(is_dot[1:] & ~is_dot[:-1]), np.flatnonzero(is_dot[:-1] & ~is_dot[1:])
    long = end - begin >= 3
    triples = (end[long] - begin[long]) // 3
    return np.bincount(found.text_of(begin[long]), triples, found.num_texts).astype(np.int64)


def words_with_letter(found: TextStatistics) -> NDArray[np.float64]:
    words = found.words
    if not len(words.begin):
        return found.per_text(words)
    marks = letters(found.data, found.is_ascii)  # what follows a word up to the next one are blanks
    return found.per_text(words, np.logical_or.reduceat(marks, words.begin))


def stop_words(texts: pa.ChunkedArray) -> NDArray[np.int64]:
    """How many different stop words each text has."""
    found = [np.asarray(pc.match_substring_regex(texts, pattern)) for pattern in STOP_WORDS]
    count: NDArray[np.int64] = np.sum(found, axis=0, dtype=np.int64)
    return count
