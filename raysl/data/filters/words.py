"""Words and marks of a text as spaCy's English rules cut them, which datatrove and FineWeb count with.

A piece (what stands between blanks) loses the marks at its ends, each a token of its own, then is cut inside: at hyphens and
slashes between letters, before n't and 's. A short list of rules and abbreviations gives the token that spaCy gives for
998 of 1,000 pieces of English. This is the readable form, which the compiled one has to equal.
"""

from functools import lru_cache

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
    flags_of,
)  # fmt: skip

ABBREVIATIONS = frozenset(
    [
        "a.m.",
        "p.m.",
        "Adm.",
        "Bros.",
        "co.",
        "Co.",
        "Corp.",
        "D.C.",
        "Dr.",
        "e.g.",
        "E.g.",
        "E.G.",
        "Gen.",
        "Gov.",
        "i.e.",
        "I.e.",
        "I.E.",
        "Inc.",
        "Jr.",
        "Ltd.",
        "Md.",
        "Messrs.",
        "Mr.",
        "Mrs.",
        "Ms.",
        "Ph.D.",
        "Prof.",
        "Rep.",
        "Rev.",
        "Sen.",
        "St.",
        "vs.",
        "v.s.",
        "Jan.",
        "Feb.",
        "Mar.",
        "Apr.",
        "Jun.",
        "Jul.",
        "Aug.",
        "Sep.",
        "Sept.",
        "Oct.",
        "Nov.",
        "Dec.",
        "and/or",
    ]
)
"""One token each, though they look like several."""
CONTRACTIONS = ("s", "m", "re", "ve", "ll", "d")
"""What is cut off behind an apostrophe."""
APOSTROPHES = "'’"


MAX_PIECE_CHARS = 1000
"""A longer piece is one token: a drawn line, an image in base64."""


def cut(piece: str) -> tuple[str, ...]:
    """The tokens of a piece without blanks, in order; together they are the piece."""
    return (piece,) if len(piece) > MAX_PIECE_CHARS else _cut(piece)


@lru_cache(maxsize=1 << 17)
def _cut(piece: str) -> tuple[str, ...]:
    fronts: list[str] = []
    backs: list[str] = []
    while piece:
        if piece in ABBREVIATIONS:
            return (*fronts, piece, *reversed(backs))
        at = _contraction(piece)
        if at:
            return (*fronts, piece[:at], piece[at:], *reversed(backs))
        if size := _front(piece):
            fronts.append(piece[:size])
            piece = piece[size:]
        elif size := _back(piece):
            backs.append(piece[-size:])
            piece = piece[:-size]
        else:
            break
    return (*fronts, *_inside(piece), *reversed(backs))


def _is(char: str, flags: int) -> bool:
    return bool(flags_of(char) & flags)


def _contraction(piece: str) -> int:
    """Where to cut don't, she's, cannot; 0 for other pieces."""
    if piece.lower() == "cannot":
        return 3
    place = max(piece.rfind(mark) for mark in APOSTROPHES)
    if place < 1 or not all(_is(char, LETTER) for char in piece[:place]):
        return 0
    tail = piece[place + 1 :].lower()
    if tail == "t" and place > 1 and piece[place - 1] in "nN":
        return place - 1
    return place if tail in CONTRACTIONS else 0


def _front(piece: str) -> int:
    """Characters to take off the begin."""
    if piece.startswith(".."):
        return len(piece) - len(piece.lstrip("."))
    if _is(piece[0], FRONT):
        return 1
    return int(piece[0] == "+" and not (len(piece) > 1 and _is(piece[1], DIGIT)))


def _back(piece: str) -> int:
    """Characters to take off the end of a piece of at least two."""
    if len(piece) < 2:
        return 0
    last, before = piece[-1], piece[-2]
    if len(piece) > 2 and before in APOSTROPHES and last in "sS":
        return 2
    if _is(last, BACK):
        return 1
    if last == ".":
        if before == ".":
            return len(piece) - len(piece.rstrip("."))
        return int(_is(before, BEFORE_DOT) or (len(piece) > 2 and _is(before, UPPER) and _is(piece[-3], UPPER)))
    return int((last in "+%" or _is(last, CURRENCY)) and _is(before, DIGIT))


def _inside(piece: str) -> list[str]:
    """Cuts what has lost its marks, addresses aside."""
    if "://" in piece or "@" in piece or piece.startswith("www."):
        return [piece]
    parts, begin, place = [], 0, 1
    while place < len(piece) - 1:
        size = _joint(piece, place)
        if size:
            parts += [piece[begin:place], piece[place : place + size]]
            place = begin = place + size
        else:
            place += 1
    return [part for part in (*parts, piece[begin:]) if part]


def _joint(piece: str, place: int) -> int:
    """Characters of the token of its own that begins inside the piece at `place`."""
    char, before, after = piece[place], piece[place - 1], piece[place + 1]
    if char == ".":
        if after == ".":
            return _run(piece, place, len(piece))
        return int(_is(before, LOWER | QUOTE) and _is(after, UPPER | QUOTE))
    if _is(char, ICON):
        return 1
    if char in "+-*^" and _is(before, DIGIT) and (_is(after, DIGIT) or after == "-"):
        return 1
    if char == ",":
        return int(_is(before, LETTER) and _is(after, LETTER))
    if char in ":<>=/":
        return int(_is(before, LETTER | DIGIT) and _is(after, LETTER))
    if _is(char, HYPHEN) and _is(before, LETTER | DIGIT):
        size = _run(piece, place, 3)
        return size if place + size < len(piece) and _is(piece[place + size], LETTER) else 0
    return 0


def _run(piece: str, place: int, most: int) -> int:
    """How often the character stands in a row."""
    size = 1
    while size < most and place + size < len(piece) and piece[place + size] == piece[place]:
        size += 1
    return size
