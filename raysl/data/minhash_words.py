"""Which characters make words, and their lower case: one table for the compiled and the numpy tokenizer.

A word is a maximal run of \\w characters, lower-cased one by one (but for letters like the Kelvin sign, whose small form
is a letter of another length). In scripts that put no spaces between words (Chinese,
Japanese, Thai, Khmer, Lao, Burmese) every character is a word of its own, so their shingles are character n-grams.
"""

import re
from functools import cache

import numpy as np
from numpy.typing import NDArray

TABLE_SIZE = 0x20000
"""Code points in the table; all assigned ones above it that are words are Chinese characters."""
BREAK = 0
ALONE = 1 << 31
"""Flag of a character that is a word of its own."""
SCRIPTS_WITHOUT_SPACES = (
    (0x0E00, 0x0E3A), (0x0E40, 0x0E4E), (0x0E80, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17D3),  # Thai, Lao, Burmese, Khmer
    (0x3005, 0x3007), (0x3041, 0x3096), (0x309D, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF),  # kana
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9D),  # Chinese characters, half-width kana
)  # fmt: skip
FINAL_SIGMA, SIGMA = 0x3C2, 0x3C3


@cache
def character_table() -> NDArray[np.uint32]:
    """uint32 per code point: 0 breaks a word, else the lower-cased code point, with ALONE where it stands alone.

    Costs about 20 ms once per process.
    """
    table = np.zeros(TABLE_SIZE, np.uint32)
    text = "".join(chr(c) if not 0xD800 <= c < 0xE000 else " " for c in range(TABLE_SIZE))
    for run in re.finditer(r"\w+", text):
        table[run.start() : run.end()] = [ord(_lower(char)) for char in run[0]]
    table[FINAL_SIGMA] = SIGMA
    for first, last in SCRIPTS_WITHOUT_SPACES:
        points = np.arange(first, last + 1, dtype=np.uint32)
        words = (table[points] != BREAK) | ((first >= 0x0E00) & (last < 0x1800))  # vowel signs count there
        table[points] = np.where(words, points | np.uint32(ALONE), BREAK)
    return table


def _lower(char: str) -> str:
    """Of as many UTF-8 bytes as `char`, so that it can be written in its place; about 40 rare letters keep their case."""
    lower = char.lower()[0]
    return lower if len(lower.encode()) == len(char.encode()) else char


def words(text: str) -> list[str]:
    """The words of a text as the kernels see them; the reference for tests, slow."""
    table = character_table()
    found, current = [], ""
    for char in text:
        code = int(table[ord(char)]) if ord(char) < TABLE_SIZE else (ord(char) | ALONE)
        if code & ALONE or code == BREAK:
            found += [current, chr(code & ~ALONE)] if code else [current]
            current = ""
        else:
            current += chr(code)
    return [word for word in [*found, current] if word]
