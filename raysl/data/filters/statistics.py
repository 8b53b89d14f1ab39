"""What filters measure of a batch, each thing once: words, lines, paragraphs, characters, marks.

Everything is found on the bytes of the whole batch at once; no text becomes a Python string. Blanks are bytes up to 32:
normalized text has no others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysl.data.minhash_numpy import hashes_between, running_sums
from raysl.schema import TEXT

I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]
NEWLINE = 10


@dataclass(frozen=True)
class Spans:
    """Pieces of a batch in their order: first and last byte, the text they stand in, their characters."""

    begin: I64
    end: I64
    text: I64
    chars: I64


class TextStatistics:
    """Statistics of a batch, computed when first asked for and kept as long as the batch is the latest one."""

    _latest: ClassVar[tuple[pa.Table, "TextStatistics"] | None] = None

    def __init__(self, texts: pa.StringArray) -> None:
        self.num_texts = len(texts)
        _, offsets, buffer = texts.buffers()
        bounds = np.frombuffer(offsets, np.int32) if offsets else np.zeros(1, np.int32)
        bounds = bounds[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
        self.data = np.frombuffer(buffer, np.uint8)[bounds[0] : bounds[-1]] if buffer else np.zeros(0, np.uint8)
        self.bounds = bounds - bounds[0]

    @classmethod
    def of(cls, batch: pa.Table) -> "TextStatistics":
        """The statistics of a batch; filters that look at the same table share them."""
        if cls._latest is None or cls._latest[0] is not batch:
            texts = batch[TEXT].combine_chunks()
            cls._latest = (batch, cls(texts if isinstance(texts, pa.StringArray) else pa.concat_arrays(texts.chunks)))
        return cls._latest[1]

    @cached_property
    def is_ascii(self) -> bool:
        return not len(self.data) or int(self.data.max()) < 128

    @cached_property
    def char_sums(self) -> I64:
        """Characters before each byte."""
        if self.is_ascii:
            return np.arange(len(self.data) + 1)
        sums = np.zeros(len(self.data) + 1, np.int64)
        np.cumsum((self.data & 0xC0) != 0x80, dtype=np.int64, out=sums[1:])
        return sums

    @cached_property
    def num_chars(self) -> I64:
        counts: I64 = np.diff(self.char_sums[self.bounds])
        return counts

    @cached_property
    def words(self) -> Spans:
        """What stands between blanks."""
        inside = self.data > 32
        first, last = inside.copy(), inside.copy()
        first[1:] &= ~inside[:-1]
        last[:-1] &= ~inside[1:]
        inner = self.bounds[1:-1]
        borders = inner[(inner > 0) & (inner < len(self.data))]
        first[borders], last[borders - 1] = inside[borders], inside[borders - 1]
        return self._spans(np.flatnonzero(first), np.flatnonzero(last))

    @cached_property
    def num_words(self) -> I64:
        return np.bincount(self.words.text, minlength=self.num_texts)

    @cached_property
    def lines(self) -> Spans:
        """Lines that are not blank, without blanks at their ends."""
        words = self.words
        line = np.searchsorted(np.flatnonzero(self.data == NEWLINE), words.begin)
        return self._joined((line[1:] != line[:-1]) | (words.text[1:] != words.text[:-1]), words)

    @cached_property
    def paragraphs(self) -> Spans:
        """What stands between two or more line ends, without blanks at its ends."""
        lines = self.lines
        double = np.flatnonzero((self.data[1:] == NEWLINE) & (self.data[:-1] == NEWLINE))
        paragraph = np.searchsorted(double, lines.begin)
        return self._joined((paragraph[1:] != paragraph[:-1]) | (lines.text[1:] != lines.text[:-1]), lines)

    @cached_property
    def word_hashes(self) -> NDArray[np.uint64]:
        return self.hashes(self.words)

    @cached_property
    def _hash_sums(self) -> NDArray[np.uint64]:
        return running_sums(self.data)

    def hashes(self, spans: Spans) -> NDArray[np.uint64]:
        """Equal for pieces of equal bytes."""
        return hashes_between(self._hash_sums, spans.begin, spans.end)

    def per_text(self, spans: Spans, values: NDArray[np.generic] | None = None) -> NDArray[np.float64]:
        """Number of the spans in each text, or the sum of their values."""
        return np.bincount(spans.text, values, self.num_texts).astype(np.float64)

    def text_of(self, places: I64) -> I64:
        return np.searchsorted(self.bounds, places, side="right") - 1

    def count(self, marks: Bools) -> I64:
        """Marked bytes in each text."""
        return self.count_places(np.flatnonzero(marks))

    def count_places(self, places: I64) -> I64:
        return np.bincount(self.text_of(places), minlength=self.num_texts)

    def places(self, mark: str) -> I64:
        """Where the bytes of a mark begin, overlapping ones too."""
        code = mark.encode()
        found = np.flatnonzero(self.data == code[0])
        for place, byte in enumerate(code[1:], start=1):
            found = found[found + place < len(self.data)]
            found = found[self.data[found + place] == byte]
        return found

    def begin_with(self, spans: Spans, marks: Sequence[str]) -> Bools:
        return self._match(spans, marks, at_end=False)

    def end_with(self, spans: Spans, marks: Sequence[str]) -> Bools:
        return self._match(spans, marks, at_end=True)

    def _match(self, spans: Spans, marks: Sequence[str], at_end: bool) -> Bools:
        found = np.zeros(len(spans.begin), np.bool_)
        for code in (mark.encode() for mark in marks):
            first = spans.end - len(code) + 1 if at_end else spans.begin
            same = (spans.end - spans.begin + 1) >= len(code)
            for place, byte in enumerate(code):
                same &= self.data[np.clip(first + place, 0, len(self.data) - 1)] == byte
            found |= same
        return found

    def _joined(self, breaks: Bools, parts: Spans) -> Spans:
        """Spans from the first of some parts to the last one before a break."""
        if not len(parts.begin):
            return parts
        return self._spans(parts.begin[np.r_[True, breaks]], parts.end[np.r_[breaks, True]])

    def _spans(self, begin: I64, end: I64) -> Spans:
        return Spans(begin, end, self.text_of(begin), self.char_sums[end + 1] - self.char_sums[begin])
