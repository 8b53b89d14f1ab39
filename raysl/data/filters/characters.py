"""Which characters are letters, found on bytes."""

import re
from functools import cache

import numpy as np
from numpy.typing import NDArray

TABLE_SIZE = 0x20000
"""Code points in the table; all assigned ones above it that are words are Chinese characters."""
LETTER = re.compile(r"[^\W\d_]+")


@cache
def letter_table() -> NDArray[np.bool_]:
    """Whether each code point is a letter, as `re` has it (word characters but digits and _). 10 ms once per process."""
    table = np.zeros(TABLE_SIZE, np.bool_)
    text = "".join(chr(c) if not 0xD800 <= c < 0xE000 else " " for c in range(TABLE_SIZE))
    for run in LETTER.finditer(text):
        table[run.start() : run.end()] = True
    return table


def letters(data: NDArray[np.uint8], is_ascii: bool) -> NDArray[np.bool_]:
    """Marks the first byte of every letter of UTF-8 text."""
    table = letter_table()
    if is_ascii:
        return table[:256][data]
    points = np.frombuffer(data.tobytes().decode("utf-8").encode("utf-32-le"), np.uint32)
    marks = np.zeros(len(data), np.bool_)
    marks[(data & 0xC0) != 0x80] = table[np.minimum(points, TABLE_SIZE - 1)] | (points >= TABLE_SIZE)
    return marks
