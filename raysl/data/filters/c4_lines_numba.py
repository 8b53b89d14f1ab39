"""The compiled form of c4_lines.py: one pass over the bytes, one more over the lines that stay."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysl.data.filters.c4_lines import FEW_WORDS, JAVASCRIPT, LONG_WORD, NO_END, POLICIES, POLICY, REASONS, Pages, Rules
from raysl.data.filters.characters import BEYOND, MARK, TABLE_SIZE, TERMINAL, character_flags
from raysl.data.filters.words_numba import cut, decode
from raysl.kernels import compiled

NEWLINE, BLANK, OPEN, CLOSE, BRACKET = 10, 32, 91, 93, 123
I64 = NDArray[np.int64]


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


JAVASCRIPT_BYTES, LOREM_BYTES = _bytes("javascript"), _bytes("lorem ipsum")
CITATIONS = (_bytes("[edit]"), _bytes("[citation needed]"))
EDIT, NEEDED = CITATIONS
PHRASES = np.zeros((len(POLICIES), 16), np.uint8)
PHRASE_SIZES = np.array([len(policy) for policy in POLICIES], np.int64)
PHRASE_BLANKS = np.array([policy.rindex(" ") for policy in POLICIES], np.int64)
"""Each phrase is looked for where its last blank stands."""
for _row, _policy in enumerate(POLICIES):
    PHRASES[_row, : len(_policy)] = _bytes(_policy)
KIND = np.zeros(256, np.uint8)
KIND[:33], KIND[OPEN], KIND[BRACKET], KIND[ord("j")], KIND[ord("J")] = 1, 2, 3, 4, 4


def choose_lines(texts: pa.Array, rules: Rules) -> Pages:
    _, offsets, buffer = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    data = np.frombuffer(buffer, np.uint8)[bounds[0] : bounds[-1]] if buffer else np.zeros(0, np.uint8)
    out, ends, sentences, lorem, bracket, removed = _choose(
        data,
        bounds - bounds[0],
        character_flags(),
        rules.min_words,
        rules.max_word_chars,
        rules.needs_end,
        rules.typographic_quotes,
    )
    left = pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(out))
    return Pages(left, sentences, lorem, bracket, removed)


@compiled
def _same(data: Any, begin: int, lo: int, hi: int, phrase: Any, size: int) -> bool:
    """Whether a phrase in lower case begins at a byte inside [lo, hi)."""
    if begin < lo or begin + size > hi:
        return False
    for k in range(size):
        byte = data[begin + k]
        if byte != phrase[k] and not (65 <= byte <= 90 and byte + 32 == phrase[k]):
            return False
    return True


@compiled
def _citation(data: Any, i: int, hi: int) -> int:
    """Bytes of the citation mark that begins at a bracket; 0 if none does."""
    k = i + 1
    while k < hi and 48 <= data[k] <= 57:
        k += 1
    if k < hi and data[k] == CLOSE:
        return k + 1 - i
    for phrase in CITATIONS:
        if i + len(phrase) <= hi:
            same = True
            for k in range(len(phrase)):
                same &= data[i + k] == phrase[k]
            if same:
                return len(phrase)
    return 0


@compiled
def _ends_well(data: Any, lo: int, hi: int, typographic_quotes: bool) -> bool:
    if hi == lo:
        return False
    last = data[hi - 1]
    if last == 46:
        return not (hi - lo > 2 and data[hi - 2] == 46 and data[hi - 3] == 46)
    if last == 63 or last == 33 or last == 34 or last == 39:
        return True
    typographic = last == 0x9D or last == 0x99  # ” and ’ are E2 80 9D and E2 80 99
    return typographic_quotes and typographic and hi - lo > 2 and data[hi - 2] == 0x80 and data[hi - 3] == 0xE2


@compiled
def _choose(
    data: Any, bounds: I64, table: Any, min_words: int, max_word_chars: int, needs_end: bool, typographic_quotes: bool
) -> tuple[Any, Any, I64, Any, Any, I64]:
    n = len(bounds) - 1
    out, ends = np.empty(len(data), np.uint8), np.zeros(n + 1, np.int32)
    sentences, removed = np.zeros(n, np.int64), np.zeros(len(REASONS), np.int64)
    lorem, bracket = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    longest = 1
    for d in range(n):
        longest = max(longest, bounds[d + 1] - bounds[d])
    points, flags = np.empty(longest, np.int32), np.empty(longest, np.uint16)
    token_ends, backs = np.empty(longest, np.int32), np.empty(longest, np.int32)
    size = 0
    for d in range(n):
        begin, i, stop = size, bounds[d], bounds[d + 1]
        while i < stop:
            while i < stop and data[i] <= BLANK:
                i += 1
            if i >= stop:
                break
            lo, hi, word, words = i, i, i, 0
            has_open, has_bracket, has_script, has_lorem, doubtful, long_word = False, False, False, False, False, False
            while True:  # to the end of the line
                kind = KIND[data[i]] if i < stop else np.uint8(1)
                if kind == 0:
                    i += 1
                    continue
                if kind == 1:
                    if i > word:
                        words += 1
                        hi = i
                        if i - word > max_word_chars:
                            long_word |= _characters(data, word, i) > max_word_chars
                    if i >= stop or data[i] == NEWLINE:
                        break
                    if i - lo >= 3 and data[i] == BLANK and i + 1 < stop:
                        has_lorem |= (data[i - 1] | 32) == 109 and _same(data, i - 5, lo, stop, LOREM_BYTES, 11)
                        following = data[i + 1] | 32
                        if following == 99 or following == 112 or following == 117:  # cookies, policy, use
                            for p in range(len(PHRASE_SIZES)):
                                doubtful |= _same(data, i - PHRASE_BLANKS[p], lo, stop, PHRASES[p], PHRASE_SIZES[p])
                    word = i + 1
                elif kind == 2:
                    has_open = True
                elif kind == 3:
                    has_bracket = True
                else:
                    has_script |= _same(data, i, lo, stop, JAVASCRIPT_BYTES, 10)
                i += 1
            if long_word:
                removed[LONG_WORD] += 1
                continue
            if size > begin:
                out[size] = NEWLINE
                size += 1
            line = size
            if has_open:
                size = _without_citations(data, lo, hi, out, size)
                clean = out
                first, last = line, size
                while first < last and clean[first] <= BLANK:
                    first += 1
                while last > first and clean[last - 1] <= BLANK:
                    last -= 1
                for k in range(last - first):
                    out[line + k] = out[first + k]
                size = line + last - first
                has_script, has_lorem, doubtful = _phrases(out, line, size)
            else:
                for k in range(hi - lo):
                    out[line + k] = data[lo + k]
                size = line + hi - lo
            reason = -1
            if needs_end and not _ends_well(out, line, size, typographic_quotes):
                reason = NO_END
            elif words < min_words:
                reason = FEW_WORDS
            else:
                lorem[d] |= has_lorem
                if has_script:
                    reason = JAVASCRIPT
                else:
                    bracket[d] |= has_bracket
                    if doubtful:
                        reason = POLICY
            if reason >= 0:
                removed[reason] += 1
            if reason >= 0 or size == line:
                size = line - 1 if line > begin else line
                continue
            sentences[d] += _sentences(out, line, size, table, points, flags, token_ends, backs)
        ends[d + 1] = size
    return out[:size], ends, sentences, lorem, bracket, removed


@compiled
def _characters(data: Any, lo: int, hi: int) -> int:
    count = 0
    for k in range(lo, hi):
        count += (data[k] & 0xC0) != 0x80
    return count


@compiled
def _without_citations(data: Any, lo: int, hi: int, out: Any, size: int) -> int:
    i = lo
    while i < hi:
        skipped = _citation(data, i, hi) if data[i] == OPEN else 0
        if skipped:
            i += skipped
            continue
        out[size] = data[i]
        size += 1
        i += 1
    return size


@compiled
def _phrases(data: Any, lo: int, hi: int) -> tuple[bool, bool, bool]:
    """Whether a line has javascript, lorem ipsum, a policy; for the few from which something was cut out."""
    script, lorem, policy = False, False, False
    for i in range(lo, hi):
        script |= _same(data, i, lo, hi, JAVASCRIPT_BYTES, 10)
        lorem |= _same(data, i, lo, hi, LOREM_BYTES, 11)
        for p in range(len(PHRASE_SIZES)):
            policy |= _same(data, i, lo, hi, PHRASES[p], PHRASE_SIZES[p])
    return script, lorem, policy


@compiled
def _sentences(data: Any, lo: int, hi: int, table: Any, points: Any, flags: Any, ends: Any, backs: Any) -> int:
    count, ended, i = 1, False, lo
    while i < hi:
        while i < hi and data[i] <= BLANK:
            i += 1
        begin, special = i, False
        while i < hi and data[i] > BLANK:
            special |= data[i] == 46 or data[i] == 33 or data[i] == 63 or data[i] >= 128
            i += 1
        if not special and not ended:
            continue
        k, size = begin, 0
        while k < i:
            point, k = decode(data, k)
            points[size] = point
            flags[size] = table[point] if point < TABLE_SIZE else BEYOND
            size += 1
        num = cut(points, flags, size, ends, backs)
        first = 0
        for t in range(num):
            if ends[t] - first == 1 and flags[first] & TERMINAL:
                ended = True
            elif ended:
                is_mark = True
                for k in range(first, ends[t]):
                    is_mark &= (flags[k] & MARK) != 0
                if not is_mark:
                    count += 1
                    ended = False
            first = ends[t]
    return count
