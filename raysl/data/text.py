"""Normalization: the same text in one form, whatever wrote it. Text that is in that form already is only looked at."""

import re
import unicodedata

import pyarrow as pa

NEEDS_WORK = re.compile(r"[^\n\x20-\x7e]|  \n|\s\n|\n\n\n|^\s|\s$")
"""Cheap test: anything outside printable ASCII, blanks before a line's end, more than one blank line, blanks outside."""
MOJIBAKE = re.compile("[\x80-\x9f�]|[ÂÃÅâ][\x80-\xbf€‚„†‡ˆ‰Š‹Œ‘’“”•–—˜™š›œžŸƒ]")
"""Marks of UTF-8 that was read as Latin-1 or Windows-1252: only such text is worth ftfy's time (4 MB/s)."""
LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
NEXT_LINE = re.compile("(?<![\x80-\xff])\x85(?![\x80-\xbf])")
"""A lone U+0085 is a line end; beside others of its kind it may be a part of a letter that was read wrongly."""
SPACES = re.compile("[\t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
TRAILING = re.compile(r"[ ]+$", re.MULTILINE)
BLANK_LINES = re.compile(r"\n{3,}")


def normalize(text: str) -> str:
    """Repairs encoding where it is broken, then NFC, no control characters, plain spaces, at most one blank line.

    Spaces inside a line stay (code is indented); tabs become four. Idempotent. Costs about 10 ns a character where
    there is nothing to do.
    """
    if not NEEDS_WORK.search(text):
        return text
    text = _once(text)
    while MOJIBAKE.search(text) and (again := _once(text)) != text:  # what was taken out may have stood in broken marks
        text = again
    return text


def _once(text: str) -> str:
    text = LINE_ENDS.sub("\n", _repaired(NEXT_LINE.sub("\n", text)))
    text = SPACES.sub(_space, CONTROL.sub("", text))
    text = unicodedata.normalize("NFC", text)
    return BLANK_LINES.sub("\n\n", TRAILING.sub("", text)).strip("\n ")


def _space(match: re.Match[str]) -> str:
    return "    " if match[0] == "\t" else " "


def _repaired(text: str) -> str:
    if not MOJIBAKE.search(text):
        return text
    import ftfy

    repaired: str = ftfy.fix_encoding(text)
    return repaired


def normalize_column(texts: pa.ChunkedArray) -> pa.Array:
    return pa.array([normalize(text) for text in texts.to_pylist()], pa.string())
