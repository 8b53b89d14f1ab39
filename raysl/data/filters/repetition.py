"""The repetition rules of Gopher (Rae et al., 2021, table A1): shares of a document that repeat inside it.

| measured in            | lines | paragraphs | most frequent 2-, 3-, 4-gram | all repeated 5- to 10-grams |
|------------------------|-------|------------|------------------------------|-----------------------------|
| number of them         | .30   | .30        |                              |                             |
| characters             | .20   | .20        | .20, .18, .16                | .15, .14, .13, .12, .11, .10 |

N-grams are of words and marks (`words.py`), shares of all characters. Where the paper leaves a choice, datatrove's is taken:
the first of equally frequent n-grams is the top one, and the walk goes on behind an n-gram that repeats.
"""

from collections.abc import Mapping
from typing import ClassVar

import pyarrow as pa
from pydantic import Field

from raysl.config import PluginConfig
from raysl.data.filters.base import Bools, Filter
from raysl.data.filters.measures import (
    CHARS,
    LINES,
    PARAGRAPHS,
    REPEATED_LINE_CHARS,
    REPEATED_LINES,
    REPEATED_NGRAMS,
    REPEATED_PARAGRAPH_CHARS,
    REPEATED_PARAGRAPHS,
    TOP_NGRAMS,
    Measures,
)  # fmt: skip


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
    """Share of characters in 5- to 10-grams of words that stood before; what overlaps one that counts, does not count."""


class Repetition(Filter):
    """Shares its measures with the other filters. N-grams cost 0.005 CPU seconds for a MB compiled, 0.07 without."""

    has_kernels = True
    Config: ClassVar[type[PluginConfig]] = RepetitionConfig
    config: RepetitionConfig

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        found, config = Measures.of(batch, self.compiled), self.config
        chars, (top, repeated) = found[CHARS], found.ngram_chars
        kept = {
            "repeated_lines": found[REPEATED_LINES] <= config.lines * found[LINES],
            "repeated_line_chars": found[REPEATED_LINE_CHARS] <= config.line_chars * chars,
            "repeated_paragraphs": found[REPEATED_PARAGRAPHS] <= config.paragraphs * found[PARAGRAPHS],
            "repeated_paragraph_chars": found[REPEATED_PARAGRAPH_CHARS] <= config.paragraph_chars * chars,
        }
        for n, column, limit in zip(TOP_NGRAMS, top.T, config.top_ngrams, strict=True):
            kept[f"top_{n}_gram"] = column <= limit * chars
        for n, column, limit in zip(REPEATED_NGRAMS, repeated.T, config.repeated_ngrams, strict=True):
            kept[f"repeated_{n}_grams"] = column <= limit * chars
        return kept
