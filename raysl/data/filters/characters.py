"""What each character is to the filters, in one table for the compiled and the numpy measures.

Which marks are cut off words, and where words are cut inside, is what spaCy's English tokenizer does (Honnibal & Montani,
spacy.io, MIT): datatrove and FineWeb count with it.
"""

import re
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

TABLE_SIZE = 0x20000
"""Code points in the table; all assigned ones above it that are words are Chinese characters."""
LETTER, DIGIT, LOWER, UPPER = 1, 2, 4, 8
FRONT, BACK, QUOTE, CURRENCY = 16, 32, 64, 128
"""Cut off at the begin of a word; cut off at its end."""
BEFORE_DOT = 256
"""A full stop behind it ends a sentence and is no part of an abbreviation."""
ICON = 512
"""Stands alone wherever it stands."""
HYPHEN = 1024
MARK = 2048
"""Punctuation: tokens of nothing else are no words."""
TERMINAL = 4096
"""Ends a sentence: Unicode's property Sentence_Terminal, and the wide full stop."""

PUNCTUATION = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉⟦⟧"
CURRENCIES = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₸₺₼₾₿"
MARKS = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
"""datatrove's punctuation; control characters belong to it as well."""
TERMINALS = (
    (0x21, 0x21), (0x2E, 0x2E), (0x3F, 0x3F), (0x589, 0x589), (0x61D, 0x61F), (0x6D4, 0x6D4),
    (0x700, 0x702), (0x7F9, 0x7F9), (0x837, 0x837), (0x839, 0x839), (0x83D, 0x83E), (0x964, 0x965),
    (0x104A, 0x104B), (0x1362, 0x1362), (0x1367, 0x1368), (0x166E, 0x166E), (0x1735, 0x1736), (0x17D4, 0x17D6),
    (0x17D9, 0x17DA), (0x1803, 0x1803), (0x1809, 0x1809), (0x1944, 0x1945), (0x1AA8, 0x1AAB), (0x1B5A, 0x1B5B),
    (0x1B5E, 0x1B5F), (0x1B7D, 0x1B7E), (0x1C3B, 0x1C3C), (0x1C7E, 0x1C7F), (0x203C, 0x203D), (0x2047, 0x2049),
    (0x2E2E, 0x2E2E), (0x2E3C, 0x2E3C), (0x2E53, 0x2E54), (0x3002, 0x3002), (0xA4FF, 0xA4FF), (0xA60E, 0xA60F),
    (0xA6F3, 0xA6F3), (0xA6F7, 0xA6F7), (0xA876, 0xA877), (0xA8CE, 0xA8CF), (0xA92F, 0xA92F), (0xA9C8, 0xA9C9),
    (0xAA5D, 0xAA5F), (0xAAF0, 0xAAF1), (0xABEB, 0xABEB), (0xFE52, 0xFE52), (0xFE56, 0xFE57), (0xFF01, 0xFF01),
    (0xFF0E, 0xFF0E), (0xFF1F, 0xFF1F), (0xFF61, 0xFF61), (0x10A56, 0x10A57), (0x10F55, 0x10F59), (0x10F86, 0x10F89),
    (0x11047, 0x11048), (0x110BE, 0x110C1), (0x11141, 0x11143), (0x111C5, 0x111C6), (0x111CD, 0x111CD), (0x111DE, 0x111DF),
    (0x11238, 0x11239), (0x1123B, 0x1123C), (0x112A9, 0x112A9), (0x1144B, 0x1144C), (0x115C2, 0x115C3), (0x115C9, 0x115D7),
    (0x11641, 0x11642), (0x1173C, 0x1173E), (0x11944, 0x11944), (0x11946, 0x11946), (0x11A42, 0x11A43), (0x11A9B, 0x11A9C),
    (0x11C41, 0x11C42), (0x11EF7, 0x11EF8), (0x11F43, 0x11F44), (0x16A6E, 0x16A6F), (0x16AF5, 0x16AF5), (0x16B37, 0x16B38),
    (0x16B44, 0x16B44), (0x16E98, 0x16E98), (0x1BC9F, 0x1BC9F), (0x1DA88, 0x1DA88),
)  # fmt: skip
LETTERS = re.compile(r"[^\W\d_]+")
BEYOND = LETTER
"""Flags of code points beyond the table."""


@cache
def character_flags() -> NDArray[np.uint16]:
    """The flags of each code point, (TABLE_SIZE,). Costs about 60 ms once per process."""
    table = np.zeros(TABLE_SIZE, np.uint16)
    text = "".join(chr(c) if not 0xD800 <= c < 0xE000 else " " for c in range(TABLE_SIZE))
    for run in LETTERS.finditer(text):
        table[run.start() : run.end()] |= LETTER
    categories = np.array([unicodedata.category(char) for char in text])
    for category, flags in (("Ll", LOWER | BEFORE_DOT), ("Lu", UPPER), ("So", FRONT | BACK | ICON | BEFORE_DOT)):
        table[categories == category] |= flags
    for chars, flags in (
        (PUNCTUATION, FRONT | BACK | BEFORE_DOT), (QUOTES, FRONT | BACK | QUOTE | BEFORE_DOT),
        (CURRENCIES, FRONT | CURRENCY),
        ("§%=—–", FRONT), ("—–", BACK), ("%²-+|", BEFORE_DOT), ("…", ICON), ("-–—~", HYPHEN), (MARKS, MARK),
        ("0123456789", DIGIT | BEFORE_DOT),
    ):  # fmt: skip
        table[[ord(char) for char in chars]] |= flags
    table[0:32] |= MARK
    table[127:160] |= MARK
    for first, last in TERMINALS:
        table[first : last + 1] |= TERMINAL | MARK
    return table


def flags_of(char: str) -> int:
    return int(character_flags()[ord(char)]) if ord(char) < TABLE_SIZE else BEYOND
