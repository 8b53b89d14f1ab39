"""The repetition rules of Gopher (Rae et al., 2021, table A1): shares of a document that repeat inside it.

| measured in            | lines | paragraphs | most frequent 2-, 3-, 4-gram | all repeated 5- to 10-grams |
|------------------------|-------|------------|------------------------------|-----------------------------|
| number of them         | .30   | .30        |                              |                             |
| characters             | .20   | .20        | .20, .18, .16                | .15, .14, .13, .12, .11, .10 |
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from raysl.config import PluginConfig
from raysl.data.filters.base import Bools, Filter
from raysl.data.minhash_numpy import BASE, mix64, run_hashes
from raysl.schema import TEXT

PARAGRAPH = re.compile(r"\n{2,}")
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
    """N-grams of a whole batch are hashed and sorted at once. Costs about 0.1 CPU seconds for a MB."""

    Config: ClassVar[type[PluginConfig]] = RepetitionConfig
    config: RepetitionConfig

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        texts = batch[TEXT].combine_chunks()
        num_chars = np.maximum(np.asarray(pc.utf8_length(texts)), 1)
        kept = self._keep_parts(texts.to_pylist())
        words = Words.of(texts)
        for n, limit in zip(TOP_NGRAMS, self.config.top_ngrams, strict=True):
            kept[f"top_{n}_gram"] = top_ngram_chars(words, n) <= limit * num_chars
        for n, limit in zip(REPEATED_NGRAMS, self.config.repeated_ngrams, strict=True):
            kept[f"repeated_{n}_grams"] = repeated_chars(words, n) <= limit * num_chars
        return kept

    def _keep_parts(self, texts: Sequence[str]) -> dict[str, Bools]:
        config = self.config
        shares = [(*repeated_parts(text.split("\n")), *repeated_parts(PARAGRAPH.split(text))) for text in texts]
        lines, line_chars, paragraphs, paragraph_chars = np.array(shares, np.float64).reshape(-1, 4).T
        return {
            "repeated_lines": lines <= config.lines,
            "repeated_line_chars": line_chars <= config.line_chars,
            "repeated_paragraphs": paragraphs <= config.paragraphs,
            "repeated_paragraph_chars": paragraph_chars <= config.paragraph_chars,
        }


def repeated_parts(parts: Sequence[str]) -> tuple[float, float]:
    """Shares of the parts, and of their characters, that stood before; blank parts do not count."""
    parts = [part.strip() for part in parts if part and not part.isspace()]
    if not parts:
        return 0.0, 0.0
    different = set(parts)
    chars = sum(map(len, parts))
    return 1 - len(different) / len(parts), 1 - sum(map(len, different)) / chars


@dataclass(frozen=True)
class Words:
    """All words (between blanks) of a batch: hash, text they stand in, characters."""

    hashes: NDArray[np.uint64]
    text: NDArray[np.int64]
    chars: NDArray[np.int64]
    num_texts: int

    @classmethod
    def of(cls, texts: pa.StringArray) -> "Words":
        _, offsets, buffer = texts.buffers()
        bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
        data = np.frombuffer(buffer, np.uint8)[bounds[0] : bounds[-1]] if buffer else np.zeros(0, np.uint8)
        bounds = bounds - bounds[0]
        inside = data > 32  # normalized text has no other blanks
        first, last = inside.copy(), inside.copy()
        first[1:] &= ~inside[:-1]
        last[:-1] &= ~inside[1:]
        borders = bounds[1:-1][(bounds[1:-1] > 0) & (bounds[1:-1] < len(data))]
        first[borders], last[borders - 1] = inside[borders], inside[borders - 1]
        begin, end = np.flatnonzero(first), np.flatnonzero(last)
        chars = np.cumsum((data & 0xC0) != 0x80)
        length = chars[end] - chars[begin] + 1
        return cls(run_hashes(data, begin, end), np.searchsorted(bounds, begin, side="right") - 1, length, len(texts))


def _ngrams(words: Words, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """First words of all n-grams, sorted so that equal ones of a text stand together; run begins; run lengths."""
    count = len(words.hashes) - n + 1
    if count <= 0:
        return (np.zeros(0, np.int64),) * 3
    keys = words.text[:count].astype(np.uint64)
    for w in range(n):
        keys *= np.uint64(BASE)
        keys += words.hashes[w : w + count]
    places = np.flatnonzero(words.text[:count] == words.text[n - 1 :])
    keys = mix64(keys[places])
    order = np.argsort(keys)
    runs = np.flatnonzero(np.r_[True, keys[order[1:]] != keys[order[:-1]]]) if len(order) else order
    return places[order], runs, np.diff(np.r_[runs, len(order)])


def top_ngram_chars(words: Words, n: int) -> NDArray[np.int64]:
    """Characters in the most frequent n-gram of each text, blanks between its words included; 0 where none repeats."""
    places, runs, counts = _ngrams(words, n)
    top, found = np.ones(words.num_texts, np.int64), np.zeros(words.num_texts, np.int64)
    first = places[runs]
    text, sums = words.text[first], np.r_[0, np.cumsum(words.chars)]
    np.maximum.at(top, text, counts)
    best = (counts > 1) & (counts == top[text])
    chars = counts * (sums[first + n] - sums[first] + n - 1) if len(first) else counts
    np.maximum.at(found, text[best], chars[best])
    return found


def repeated_chars(words: Words, n: int) -> NDArray[Any]:
    """Characters of each text in n-grams that stood before in it; a word counts once."""
    places, runs, _ = _ngrams(words, n)
    if not len(places):
        return np.zeros(words.num_texts, np.int64)
    repeated = np.zeros(len(words.hashes) + 1, np.int64)
    repeated[places] = 1
    repeated[np.minimum.reduceat(places, runs)] = 0
    covered = np.cumsum(repeated - np.r_[np.zeros(n, np.int64), repeated[:-n]])[:-1] > 0
    return np.bincount(words.text[covered], words.chars[covered], words.num_texts)
