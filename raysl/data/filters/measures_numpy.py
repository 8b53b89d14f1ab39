"""The measures without a compiler: same counts as measures_numba.py, for machines without numba.

Lines and paragraphs are found on the bytes of the whole batch at once. Words are cut by words.cut, once for each different
piece of the batch.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from raysl.data.filters.characters import LETTER, MARK, TERMINAL, character_flags, flags_of
from raysl.data.filters.measures import (
    BULLET_LINES,
    CHARS,
    ELLIPSES,
    ELLIPSIS_LINES,
    HASHES,
    I64,
    LETTER_WORDS,
    LINES,
    MARKS,
    NEWLINES,
    NUM_COLUMNS,
    PARAGRAPHS,
    REPEATED_LINE_CHARS,
    REPEATED_LINES,
    REPEATED_PARAGRAPH_CHARS,
    REPEATED_PARAGRAPHS,
    STOP_WORDS,
    STOPS,
    TERMINAL_LINES,
    WORD_CHARS,
    WORDS,
    Scan,
)  # fmt: skip
from raysl.data.filters.words import cut
from raysl.data.minhash_numpy import BASE, hashes_between, mix64, running_sums

Bools = NDArray[np.bool_]
NEWLINE = 10
BULLETS, ELLIPSIS_ENDS = ("•", "-", "*"), ("...", "…")
STOP_BITS = {word: 1 << place for place, word in enumerate(STOPS)}


def measure(data: NDArray[np.uint8], bounds: I64, table: NDArray[np.uint16]) -> Scan:
    return _Batch(data, bounds).scan()


@dataclass(frozen=True)
class Spans:
    """Pieces of a batch in their order: first and last byte, the text they stand in, their characters."""

    begin: I64
    end: I64
    text: I64
    chars: I64


@dataclass(frozen=True)
class Tokens:
    """Tokens of a batch in their order: a number for each different one, characters, the text they stand in."""

    number: I64
    chars: I64
    text: I64
    has_letter: Bools
    is_mark: Bools
    stop_bit: I64


class _Batch:
    def __init__(self, data: NDArray[np.uint8], bounds: I64) -> None:
        self.data, self.bounds, self.num_texts = data, bounds, len(bounds) - 1

    def scan(self) -> Scan:
        counts = np.zeros((self.num_texts, NUM_COLUMNS), np.int64)
        tokens, lines = self.tokens, self.lines
        counts[:, CHARS] = np.diff(self.char_sums[self.bounds])
        counts[:, NEWLINES] = self._count(self.data == NEWLINE)
        counts[:, WORDS] = self._per_text(tokens.text[~tokens.is_mark])
        counts[:, MARKS] = self._per_text(tokens.text[tokens.is_mark])
        counts[:, WORD_CHARS] = self._per_text(tokens.text, np.where(tokens.is_mark, 0, tokens.chars))
        counts[:, LETTER_WORDS] = self._per_text(tokens.text, tokens.has_letter)
        counts[:, STOP_WORDS] = self._stop_words()
        counts[:, HASHES] = self._count(self.data == ord("#"))
        counts[:, ELLIPSES] = self._dots() + self._per_text(self._text_of(self._places("…")))
        counts[:, LINES] = self._per_text(lines.text)
        counts[:, BULLET_LINES] = self._per_text(lines.text, self._match(lines, BULLETS, at_end=False))
        counts[:, ELLIPSIS_LINES] = self._per_text(lines.text, self._match(lines, ELLIPSIS_ENDS, at_end=True))
        counts[:, TERMINAL_LINES] = self._per_text(lines.text, self._ends_sentence(lines))
        counts[:, REPEATED_LINES], counts[:, REPEATED_LINE_CHARS] = self._repeated(lines)
        counts[:, PARAGRAPHS] = self._per_text(self.paragraphs.text)
        counts[:, REPEATED_PARAGRAPHS], counts[:, REPEATED_PARAGRAPH_CHARS] = self._repeated(self.paragraphs)
        numbers = mix64(tokens.number.astype(np.uint64))
        texts = np.arange(self.num_texts + 1)
        return Scan(counts, numbers, tokens.chars.astype(np.int32), np.searchsorted(tokens.text, texts),
                    lines.chars.astype(np.int32), np.searchsorted(lines.text, texts))  # fmt: skip

    @cached_property
    def char_sums(self) -> I64:
        """Characters before each byte."""
        sums = np.zeros(len(self.data) + 1, np.int64)
        np.cumsum((self.data & 0xC0) != 0x80, dtype=np.int64, out=sums[1:])
        return sums

    @cached_property
    def pieces(self) -> Spans:
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
    def lines(self) -> Spans:
        """Lines that are not blank, without blanks at their ends."""
        pieces = self.pieces
        line = np.searchsorted(np.flatnonzero(self.data == NEWLINE), pieces.begin)
        return self._joined((line[1:] != line[:-1]) | (pieces.text[1:] != pieces.text[:-1]), pieces)

    @cached_property
    def paragraphs(self) -> Spans:
        """What stands between two or more line ends, without blanks at its ends."""
        lines = self.lines
        double = np.flatnonzero((self.data[1:] == NEWLINE) & (self.data[:-1] == NEWLINE))
        paragraph = np.searchsorted(double, lines.begin)
        return self._joined((paragraph[1:] != paragraph[:-1]) | (lines.text[1:] != lines.text[:-1]), lines)

    @cached_property
    def tokens(self) -> Tokens:
        pieces = self.pieces
        _, first, which = np.unique(self._hashes(pieces), return_index=True, return_inverse=True)
        data = self.data.tobytes()
        begins, ends = pieces.begin[first].tolist(), (pieces.end[first] + 1).tolist()
        cuts = [cut(data[begin:end].decode()) for begin, end in zip(begins, ends, strict=True)]
        known: dict[str, int] = {}
        numbers = np.array([known.setdefault(token, len(known)) for tokens in cuts for token in tokens], np.int64)
        sizes = np.array([len(tokens) for tokens in cuts], np.int64)
        starts = np.cumsum(sizes) - sizes
        each = sizes[which]
        offsets = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
        number = numbers[np.repeat(starts[which], each) + offsets] if len(numbers) else numbers
        of_token = [_facts(token) for token in known]
        chars, letter, mark, stop = np.array(of_token, np.int64).reshape(-1, 4).T
        return Tokens(
            number, chars[number], np.repeat(pieces.text, each), letter[number] > 0, mark[number] > 0, stop[number]
        )

    def _stop_words(self) -> I64:
        bits = np.zeros(self.num_texts, np.int64)
        np.bitwise_or.at(bits, self.tokens.text, self.tokens.stop_bit)
        counts: I64 = np.bitwise_count(bits).astype(np.int64)
        return counts

    def _dots(self) -> I64:
        """Three dots in a row, each dot counted once."""
        is_dot = np.r_[False, self.data == ord("."), False]
        same_text = np.ones(len(self.data) + 1, np.bool_)
        same_text[self.bounds] = False
        before, after = is_dot[:-1] & same_text, is_dot[1:] & same_text
        begin, end = np.flatnonzero(is_dot[1:] & ~before), np.flatnonzero(is_dot[:-1] & ~after)
        return self._per_text(self._text_of(begin), (end - begin) // 3)

    def _ends_sentence(self, spans: Spans) -> Bools:
        """Whether the last character is terminal punctuation."""
        begin = spans.end.copy()
        for _ in range(3):
            begin -= (self.data[begin] & 0xC0) == 0x80
        size, points = spans.end - begin + 1, self.data[begin].astype(np.int64)
        points = np.where(size == 1, points, points & (0x7F >> size))
        for place in range(1, 4):
            more = self.data[np.minimum(begin + place, len(self.data) - 1)] & 0x3F
            points = np.where(place < size, (points << 6) | more, points)
        table = character_flags()
        ends: Bools = (points < len(table)) & ((table[np.minimum(points, len(table) - 1)] & TERMINAL) > 0)
        return ends

    def _repeated(self, parts: Spans) -> tuple[I64, I64]:
        """Parts that stood before in their text, and their characters."""
        keys = mix64(parts.text.astype(np.uint64) * np.uint64(BASE) + self._hashes(parts))
        _, first = np.unique(keys, return_index=True)
        again = np.ones(len(keys), np.bool_)
        again[first] = False
        return self._per_text(parts.text, again), self._per_text(parts.text, np.where(again, parts.chars, 0))

    @cached_property
    def _hash_sums(self) -> NDArray[np.uint64]:
        return running_sums(self.data)

    def _hashes(self, spans: Spans) -> NDArray[np.uint64]:
        """Equal for pieces of equal bytes."""
        return hashes_between(self._hash_sums, spans.begin, spans.end)

    def _per_text(self, texts: I64, values: NDArray[np.generic] | None = None) -> I64:
        """Number of the entries of each text, or the sum of their values."""
        return np.bincount(texts, values, self.num_texts).astype(np.int64)

    def _text_of(self, places: I64) -> I64:
        return np.searchsorted(self.bounds, places, side="right") - 1

    def _count(self, marks: Bools) -> I64:
        return self._per_text(self._text_of(np.flatnonzero(marks)))

    def _places(self, mark: str) -> I64:
        """Where the bytes of a mark begin."""
        code = mark.encode()
        found = np.flatnonzero(self.data == code[0])
        for place, byte in enumerate(code[1:], start=1):
            found = found[found + place < len(self.data)]
            found = found[self.data[found + place] == byte]
        return found

    def _match(self, spans: Spans, marks: tuple[str, ...], at_end: bool) -> Bools:
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
        return Spans(begin, end, self._text_of(begin), self.char_sums[end + 1] - self.char_sums[begin])


def _facts(token: str) -> tuple[int, bool, bool, int]:
    """Characters, whether one is a letter, whether all are marks, bit of the stop word."""
    flags = [flags_of(char) for char in token]
    stop = STOP_BITS.get(token.lower(), 0) if token.isascii() else 0
    return len(token), any(one & LETTER for one in flags), all(one & MARK for one in flags), stop
