"""What filters measure of a batch: words, lines, paragraphs, characters, marks, runs of words that repeat. Each thing once.

Everything is counted on the UTF-8 bytes of the Arrow column, in whole numbers, by a compiled kernel or by numpy: same
counts. Blanks are bytes up to 32: normalized text has no others. A line is what stands between line ends, a paragraph what
stands between two of them, both without blanks at their ends; empty ones do not count.
"""

import importlib
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysl.data.filters.characters import character_flags
from raysl.kernels import has_numba
from raysl.schema import TEXT

I64 = NDArray[np.int64]

(
    CHARS, NEWLINES, WORDS, MARKS, WORD_CHARS, LETTER_WORDS, STOP_WORDS, HASHES, ELLIPSES,
    LINES, BULLET_LINES, ELLIPSIS_LINES, TERMINAL_LINES, REPEATED_LINES, REPEATED_LINE_CHARS,
    PARAGRAPHS, REPEATED_PARAGRAPHS, REPEATED_PARAGRAPH_CHARS,
) = range(18)  # fmt: skip
"""Columns of the counts. Words are tokens that are not punctuation alone, marks are the others."""
NUM_COLUMNS = 18
STOPS = ("the", "be", "to", "of", "and", "that", "have", "with")
TOP_NGRAMS = (2, 3, 4)
LONGEST_TOP = 4
REPEATED_NGRAMS = (5, 6, 7, 8, 9, 10)


@dataclass(frozen=True)
class Scan:
    """What one pass over the bytes finds."""

    counts: I64
    """(texts, NUM_COLUMNS)"""
    tokens: NDArray[np.uint64]
    """Equal for tokens of equal characters."""
    token_chars: NDArray[np.int32]
    token_starts: I64
    """Where the tokens of each text begin; one more than there are texts."""
    line_chars: NDArray[np.int32]
    line_starts: I64


class Measures:
    """Counts of each text of a batch, found when first asked for and kept as long as the batch is the latest one."""

    _latest: ClassVar[tuple[pa.Table, "Measures"] | None] = None

    def __init__(self, texts: pa.StringArray, compiled: bool) -> None:
        _, offsets, buffer = texts.buffers()
        bounds = np.frombuffer(offsets, np.int32) if offsets else np.zeros(1, np.int32)
        bounds = bounds[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
        self.data = np.frombuffer(buffer, np.uint8)[bounds[0] : bounds[-1]] if buffer else np.zeros(0, np.uint8)
        self.bounds = bounds - bounds[0]
        self.compiled = compiled

    @classmethod
    def of(cls, batch: pa.Table, compiled: bool) -> "Measures":
        """The measures of a batch; filters that look at the same table share them."""
        if cls._latest is None or cls._latest[0] is not batch or cls._latest[1].compiled != compiled:
            cls._latest = (batch, cls(text_array(batch), compiled))
        return cls._latest[1]

    def __getitem__(self, column: int) -> I64:
        """One count of each text."""
        values: I64 = self.scan.counts[:, column]
        return values

    @cached_property
    def scan(self) -> Scan:
        found = _kernels("measures", self.compiled).measure(self.data, self.bounds, character_flags())
        return found if isinstance(found, Scan) else Scan(*found)

    @cached_property
    def ngram_chars(self) -> tuple[I64, I64]:
        """Characters in the most frequent 2- to 4-gram (texts, 3), in 5- to 10-grams that stood before (texts, 6)."""
        scan = self.scan
        found: tuple[I64, I64]
        found = _kernels("ngrams", self.compiled).ngram_chars(scan.tokens, scan.token_chars, scan.token_starts)
        return found

    def short_lines(self, chars: int) -> I64:
        """Lines of fewer characters in each text."""
        sums = np.r_[0, np.cumsum(self.scan.line_chars < chars)]
        counts: I64 = np.diff(sums[self.scan.line_starts])
        return counts


def text_array(batch: pa.Table) -> pa.StringArray:
    """The texts of a batch in one piece."""
    texts = batch[TEXT].combine_chunks()
    return texts if isinstance(texts, pa.StringArray) else pa.concat_arrays(texts.chunks)


def _kernels(name: str, compiled: bool) -> ModuleType:
    """The compiled kernels where they are wanted and numba is installed, the numpy ones otherwise."""
    return importlib.import_module(f"raysl.data.filters.{name}_{'numba' if compiled and has_numba() else 'numpy'}")
