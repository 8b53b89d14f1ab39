"""The compiled form of words.py: tokens of a piece, on code points and their flags."""

from typing import Any

import numpy as np

from raysl.data.filters.characters import (
    BACK,
    BEFORE_DOT,
    CURRENCY,
    DIGIT,
    FRONT,
    HYPHEN,
    ICON,
    LETTER,
    LOWER,
    QUOTE,
    UPPER,
)  # fmt: skip
from raysl.data.filters.measures import STOPS
from raysl.data.filters.words import ABBREVIATIONS, MAX_PIECE_CHARS
from raysl.kernels import compiled

DOT, PLUS, STAR, AT, SLASH, COLON, COMMA, CURLY_QUOTE, QUOTE_MARK, DASH = 46, 43, 42, 64, 47, 58, 44, 0x2019, 39, 45


def packed(word: str) -> int:
    """Up to seven characters as one number."""
    return int.from_bytes(word.encode(), "big")


STOP_FACTOR = 0x9E3779B97F4A7C15


def stop_slot(code: int) -> int:
    return (code * STOP_FACTOR & (1 << 64) - 1) >> 59


STOP_CODES, STOP_BITS = np.zeros(32, np.uint64), np.zeros(32, np.int64)
"""Codes of the stop words, each in a slot of its own, and a bit for each."""
for _place, _word in enumerate(STOPS):
    STOP_CODES[stop_slot(packed(_word))], STOP_BITS[stop_slot(packed(_word))] = packed(_word), 1 << _place
ABBREVIATION_CODES = np.array(sorted(packed(word) for word in ABBREVIATIONS), np.int64)
CANNOT, LL, RE, VE, WWW = packed("cannot"), packed("ll"), packed("re"), packed("ve"), packed("www.")


@compiled
def decode(data: Any, i: int) -> tuple[Any, int]:
    """The code point that begins at a byte, and where the next one does."""
    byte = np.int64(data[i])
    if byte < 0x80:
        return byte, i + 1
    if byte < 0xE0:
        return ((byte & 0x1F) << 6) | (np.int64(data[i + 1]) & 0x3F), i + 2
    if byte < 0xF0:
        return ((byte & 0x0F) << 12) | ((np.int64(data[i + 1]) & 0x3F) << 6) | (np.int64(data[i + 2]) & 0x3F), i + 3
    high = ((byte & 0x07) << 18) | ((np.int64(data[i + 1]) & 0x3F) << 12)
    return high | ((np.int64(data[i + 2]) & 0x3F) << 6) | (np.int64(data[i + 3]) & 0x3F), i + 4


@compiled
def _code(points: Any, lo: int, hi: int, lower: bool) -> Any:
    """`packed` of ASCII characters, in lower case where wanted; -1 where there are too many or others."""
    if hi - lo > 7:
        return -1
    code: Any = 0
    for k in range(hi - lo):
        point = np.int64(points[lo + k])
        if point >= 128:
            return -1
        if lower and 65 <= point <= 90:
            point += 32
        code = (code << 8) | point
    return code


@compiled
def is_abbreviation(points: Any, lo: int, hi: int) -> bool:
    if points[hi - 1] != DOT and hi - lo != 6:
        return False
    code = _code(points, lo, hi, False)
    if code < 0:
        return False
    place = np.searchsorted(ABBREVIATION_CODES, code)
    return bool(place < len(ABBREVIATION_CODES) and ABBREVIATION_CODES[place] == code)


@compiled
def _contraction(points: Any, flags: Any, lo: int, hi: int) -> int:
    if hi - lo == 6 and _code(points, lo, hi, True) == CANNOT:
        return lo + 3
    place = -1
    for k in range(hi - 1, max(hi - 4, lo - 1), -1):
        if points[k] in (QUOTE_MARK, CURLY_QUOTE):
            place = k
            break
    if place < lo + 1 or place == hi - 1:
        return 0
    for k in range(lo, place):
        if not flags[k] & LETTER:
            return 0
    tail = _code(points, place + 1, hi, True)
    if tail == 116:  # t
        return place - 1 if place > lo + 1 and (points[place - 1] | 32) == 110 else 0
    if tail in (115, 109, 100, RE, VE, LL):
        return place
    return 0


@compiled
def _front(points: Any, flags: Any, lo: int, hi: int) -> int:
    if points[lo] == DOT and hi - lo > 1 and points[lo + 1] == DOT:
        k = lo
        while k < hi and points[k] == DOT:
            k += 1
        return k - lo
    if flags[lo] & FRONT:
        return 1
    return 1 if points[lo] == PLUS and not (hi - lo > 1 and flags[lo + 1] & DIGIT) else 0


@compiled
def _back(points: Any, flags: Any, lo: int, hi: int) -> int:
    if hi - lo < 2:
        return 0
    last, before = points[hi - 1], points[hi - 2]
    if hi - lo > 2 and before in (QUOTE_MARK, CURLY_QUOTE) and last in (115, 83):
        return 2
    if flags[hi - 1] & BACK:
        return 1
    if last == DOT:
        if before == DOT:
            k = hi
            while k > lo and points[k - 1] == DOT:
                k -= 1
            return hi - k
        if flags[hi - 2] & BEFORE_DOT:
            return 1
        return 1 if hi - lo > 2 and flags[hi - 2] & UPPER and flags[hi - 3] & UPPER else 0
    return 1 if (last == PLUS or last == 37 or flags[hi - 1] & CURRENCY) and flags[hi - 2] & DIGIT else 0


@compiled
def _is_address(points: Any, lo: int, hi: int) -> bool:
    if hi - lo > 3 and _code(points, lo, lo + 4, False) == WWW:
        return True
    for k in range(lo, hi):
        if points[k] == AT or (points[k] == COLON and k + 2 < hi and points[k + 1] == SLASH and points[k + 2] == SLASH):
            return True
    return False


@compiled
def _run(points: Any, k: int, hi: int, most: int) -> int:
    size = 1
    while size < most and k + size < hi and points[k + size] == points[k]:
        size += 1
    return size


@compiled
def _joint(points: Any, flags: Any, k: int, hi: int) -> int:
    point, before, after = points[k], flags[k - 1], flags[k + 1]
    if point == DOT:
        if points[k + 1] == DOT:
            return _run(points, k, hi, hi)
        return 1 if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else 0
    if flags[k] & ICON:
        return 1
    if point in (PLUS, DASH, STAR, 94) and before & DIGIT and (after & DIGIT or points[k + 1] == DASH):
        return 1
    if point == COMMA:
        return 1 if before & LETTER and after & LETTER else 0
    if point in (COLON, SLASH, 60, 61, 62):
        return 1 if before & (LETTER | DIGIT) and after & LETTER else 0
    if flags[k] & HYPHEN and before & (LETTER | DIGIT):
        size = _run(points, k, hi, 3)
        return size if k + size < hi and flags[k + size] & LETTER else 0
    return 0


@compiled
def cut(points: Any, flags: Any, hi: int, ends: Any, backs: Any) -> int:
    """words.cut on code points: writes the end of each token to `ends`; returns how many."""
    if hi > MAX_PIECE_CHARS:
        ends[0] = hi
        return 1
    lo, count, num_backs, done = 0, 0, 0, False
    while lo < hi:
        if is_abbreviation(points, lo, hi):
            done = True
            break
        at = _contraction(points, flags, lo, hi)
        if at:
            ends[count] = at
            count += 1
            done = True
            break
        size = _front(points, flags, lo, hi)
        if size:
            lo += size
            ends[count] = lo
            count += 1
            continue
        size = _back(points, flags, lo, hi)
        if not size:
            break
        backs[num_backs] = hi
        num_backs += 1
        hi -= size
    if lo < hi:
        if not done and not _is_address(points, lo, hi):
            count = _inside(points, flags, lo, hi, ends, count)
        if count == 0 or ends[count - 1] != hi:
            ends[count] = hi
            count += 1
    for k in range(num_backs - 1, -1, -1):
        ends[count] = backs[k]
        count += 1
    return count


@compiled
def _inside(points: Any, flags: Any, lo: int, hi: int, ends: Any, count: int) -> int:
    begin, k = lo, lo + 1
    while k < hi - 1:
        size = _joint(points, flags, k, hi)
        if not size:
            k += 1
            continue
        if k > begin:
            ends[count] = k
            count += 1
        k += size
        begin = k
        ends[count] = k
        count += 1
    return count


@compiled
def stop_word(points: Any, lo: int, hi: int) -> int:
    """The bit of a stop word, 0 for other words."""
    if hi - lo < 2 or hi - lo > 4:
        return 0
    code = _code(points, lo, hi, True)
    return stop_bit(np.uint64(code)) if code >= 0 else 0


@compiled
def stop_bit(code: Any) -> int:
    slot = np.int64((code * np.uint64(STOP_FACTOR)) >> np.uint64(59))
    return STOP_BITS[slot] if STOP_CODES[slot] == code else 0
