"""The quality rules of FineWeb (Penedo et al., 2024, section 3.6), found by comparing good and bad crawls.

| rule                                                     | default |
|----------------------------------------------------------|---------|
| lines that end with a terminal punctuation mark          | more than 0.12 |
| lines shorter than 30 characters                         | less than 0.67 |
| characters in lines that stood before                    | less than 0.1 (datatrove's code: 0.01) |
| line ends for each word (datatrove's code, not the paper) | at most 0.3 |

Terminal punctuation is Unicode's Sentence_Terminal, as in datatrove: a quotation mark that closes is none. Words of the last
rule are words and marks, as there.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysl.config import PluginConfig
from raysl.data.filters.base import Bools, Filter
from raysl.data.filters.measures import (
    CHARS,
    LINES,
    MARKS,
    NEWLINES,
    REPEATED_LINE_CHARS,
    TERMINAL_LINES,
    WORDS,
    Measures,
)  # fmt: skip


class FineWebConfig(PluginConfig):
    """Thresholds of the FineWeb quality rules; the defaults are the paper's."""

    type: str = "fineweb"
    min_punctuated_lines: float = Field(0.12, ge=0, le=1)
    """Share of lines that end with a terminal punctuation mark: more than this."""
    short_line_chars: int = Field(30, ge=0)
    """Characters below which a line is short."""
    max_short_lines: float = Field(0.67, ge=0, le=1)
    """Share of short lines: less than this."""
    max_repeated_line_chars: float = Field(0.1, ge=0, le=1)
    """Share of characters in lines that stood before: less than this."""
    max_lines_per_word: float = Field(0.3, ge=0)
    """Line ends for each word at most: more is a list."""


class FineWeb(Filter):
    """Blank lines do not count. Shares its measures with the other filters; costs next to nothing beside them."""

    has_kernels = True
    Config: ClassVar[type[PluginConfig]] = FineWebConfig
    config: FineWebConfig

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        config, found = self.config, Measures.of(batch, self.compiled)
        lines = np.maximum(found[LINES], 1)
        repeated = found[REPEATED_LINE_CHARS] / np.maximum(found[CHARS] - found[NEWLINES], 1)
        return {
            "few_punctuated_lines": found[TERMINAL_LINES] / lines > config.min_punctuated_lines,
            "short_lines": found.short_lines(config.short_line_chars) / lines < config.max_short_lines,
            "fineweb_repeated_lines": repeated < config.max_repeated_line_chars,
            "list": found[NEWLINES] <= config.max_lines_per_word * (found[WORDS] + found[MARKS]),
        }
