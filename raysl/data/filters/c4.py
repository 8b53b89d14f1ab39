"""The rules of C4 (Raffel et al., 2020, section 2.2): lines that are no sentences go, then pages with little left.

| rule                                                               | default |
|--------------------------------------------------------------------|---------|
| a line stays if it ends with . ! ? or a quotation mark, not with "..." | on |
| a line stays if it has this many words, none longer than             | 3, 1000 characters |
| lines with "javascript", and with notes on cookies or terms of use, go | on  |
| marks like [3], [edit], [citation needed] are cut out                | on      |
| a page with "lorem ipsum" or a curly bracket in such lines goes      | on      |
| a page needs this many sentences                                     | 5       |
"""

from collections.abc import Mapping
from typing import ClassVar

import pyarrow as pa
from pydantic import Field

from raysl.config import PluginConfig
from raysl.data.filters import c4_lines
from raysl.data.filters.base import Bools, Filter
from raysl.data.filters.c4_lines import Pages, Rules
from raysl.data.filters.measures import text_array
from raysl.kernels import has_numba
from raysl.schema import TEXT


class C4Config(PluginConfig):
    """Rules of C4; the defaults are the paper's."""

    type: str = "c4"
    min_words_per_line: int = Field(3, ge=0)
    """Words a line needs to stay."""
    max_word_chars: int = Field(1000, ge=1)
    """Characters of the longest word a line may have."""
    min_sentences: int = Field(5, ge=0)
    """Sentences a page needs after its lines were chosen."""
    terminal_punctuation: bool = True
    """Whether a line has to end a sentence."""
    typographic_quotes: bool = True
    """Whether ” and ’ end a line as " and ' do; the paper names the end quotation mark, its code knows the plain ones."""
    drop_code: bool = True
    """Whether pages with a curly bracket go; false for text about programming."""


class C4(Filter):
    """Changes texts: what stays of a page is its good lines. Costs about 0.01 CPU seconds for a MB compiled, 0.1 without."""

    has_kernels = True
    Config: ClassVar[type[PluginConfig]] = C4Config
    config: C4Config

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        config = self.config
        rules = Rules(
            config.min_words_per_line, config.max_word_chars, config.terminal_punctuation, config.typographic_quotes
        )
        self._pages = choose_lines(text_array(batch), rules, self.compiled)
        for reason, count in zip(c4_lines.REASONS, self._pages.removed.tolist(), strict=True):
            if count:
                self.edits[reason] += count
        return {
            "lorem_ipsum": ~self._pages.has_lorem_ipsum,
            "curly_bracket": ~(self._pages.has_bracket & config.drop_code),
            "few_sentences": self._pages.sentences >= config.min_sentences,
        }

    def edit(self, batch: pa.Table) -> pa.Table:
        return batch.set_column(batch.schema.get_field_index(TEXT), TEXT, self._pages.texts)


def choose_lines(texts: pa.StringArray, rules: Rules, compiled: bool) -> Pages:
    """The lines that are sentences, without citation marks."""
    if not compiled or not has_numba():
        return c4_lines.choose_lines(texts, rules)
    from raysl.data.filters import c4_lines_numba

    return c4_lines_numba.choose_lines(texts, rules)
