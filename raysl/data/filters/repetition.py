"""The repetition rules of Gopher (Rae et al., 2021, table A1): shares of a document that repeat inside it.

| measured in            | lines | paragraphs | most frequent 2-, 3-, 4-gram | all repeated 5- to 10-grams |
|------------------------|-------|------------|------------------------------|-----------------------------|
| number of them         | .30   | .30        |                              |                             |
| characters             | .20   | .20        | .20, .18, .16                | .15, .14, .13, .12, .11, .10 |
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from raysl.config import PluginConfig
from raysl.data.filters.base import Bools, Filter
from raysl.data.filters.ngrams import NGrams
from raysl.data.filters.statistics import Spans, TextStatistics
from raysl.data.minhash_numpy import BASE, mix64

TOP_NGRAMS = (2, 3, 4)
REPEATED_NGRAMS = (5, 6, 7, 8, 9, 10)


class RepetitionConfig(PluginConfig):
    """Largest shares allowed; the defaults are the paper's."""

    type: str = "repetition"
    lines: float = Field(0.30, ge=0, le=1)
    """Share of lines that stood before."""
    paragraphs: float = Field(0.30, ge=0, le=1)
    """Share of paragraphs that stood before."""
    line_chars: float = Field(0.20, ge=0, le=1)
    """Share of characters in such lines."""
    paragraph_chars: float = Field(0.20, ge=0, le=1)
    """Share of characters in such paragraphs."""
    top_ngrams: tuple[float, float, float] = (0.20, 0.18, 0.16)
    """Share of characters in the most frequent 2-, 3- and 4-gram of words, where it stands at least twice."""
    repeated_ngrams: tuple[float, float, float, float, float, float] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)
    """Share of characters in 5- to 10-grams of words that stood before; what overlaps counts once."""


class Repetition(Filter):
    """Everything is counted on the bytes of the whole batch. Costs about 0.05 CPU seconds for a MB."""

    Config: ClassVar[type[PluginConfig]] = RepetitionConfig
    config: RepetitionConfig

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        found, config = TextStatistics.of(batch), self.config
        lines, line_chars = repeated_shares(found, found.lines)
        paragraphs, paragraph_chars = repeated_shares(found, found.paragraphs)
        kept = {
            "repeated_lines": lines <= config.lines,
            "repeated_line_chars": line_chars <= config.line_chars,
            "repeated_paragraphs": paragraphs <= config.paragraphs,
            "repeated_paragraph_chars": paragraph_chars <= config.paragraph_chars,
        }
        num_chars, ngrams = np.maximum(found.num_chars, 1), NGrams(found)
        for n, limit in zip(TOP_NGRAMS, config.top_ngrams, strict=True):
            kept[f"top_{n}_gram"] = ngrams.top_chars(n) <= limit * num_chars
        for n, limit in zip(REPEATED_NGRAMS, config.repeated_ngrams, strict=True):
            kept[f"repeated_{n}_grams"] = ngrams.repeated_chars(n) <= limit * num_chars
        return kept


def repeated_shares(found: TextStatistics, parts: Spans) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the parts of each text, and of their characters, that stood before; 0 where there are none."""
    keys = mix64(parts.text.astype(np.uint64) * np.uint64(BASE) + found.hashes(parts))
    _, first = np.unique(keys, return_index=True)
    number, chars = found.per_text(parts), found.per_text(parts, parts.chars)
    different = np.bincount(parts.text[first], minlength=found.num_texts)
    different_chars = np.bincount(parts.text[first], parts.chars[first], found.num_texts)
    some = number > 0
    return (np.where(some, 1 - different / np.maximum(number, 1), 0.0),
            np.where(some, 1 - different_chars / np.maximum(chars, 1), 0.0))  # fmt: skip
