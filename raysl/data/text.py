"""Normalization: the same text in one form, whatever wrote it. Text that is in that form already is only looked at."""

import re
import unicodedata

import pyarrow as pa

ODD_ASCII = re.compile(r"[^\n\x20-\x7e]")
ODD = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\xa0\u1680\u2000-\u200b\u200e\u200f\u2028-\u202f\u205f\u2060\u2066-\u2069\u3000\ufeff�ÂÃÅâ]"
)
"""Whatever a step below could change, and every first mark of broken encoding: text without one is only tidied."""
MOJIBAKE = re.compile("[\x80-\x9f�]|[ÂÃÅâ][\x80-\xbf€‚„†‡ˆ‰Š‹Œ‘’“”•–—˜™š›œžŸƒ]")
"""Marks of UTF-8 that was read as Latin-1 or Windows-1252: only such text is worth ftfy's time (4 MB/s)."""
LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
NEXT_LINE = re.compile("(?<![\x80-\xff])\x85(?![\x80-\xbf])")
"""A lone U+0085 is a line end; beside others of its kind it may be a part of a letter that was read wrongly."""
SPACES = re.compile("[\t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
TRAILING = re.compile(r"(?<! ) +$", re.MULTILINE)
"""Tried once for each run of blanks: a try at every blank would take hours for a MB of them."""
BLANK_LINES = re.compile(r"\n{3,}")


def normalize(text: str) -> str:
    """Repairs encoding where it is broken, then NFC, no control characters, plain spaces, at most one blank line.

    Spaces inside a line stay (code is indented); tabs become four. Idempotent. Costs about 5 ns a character where
    there is nothing to do.
    """
    odd = ODD_ASCII if text.isascii() else ODD
    if not odd.search(text) and unicodedata.is_normalized("NFC", text):
        return _tidy(text)
    text = _once(text)
    while MOJIBAKE.search(text) and (again := _once(text)) != text:  # what was taken out may have stood in broken marks
        text = again
    return text


def _once(text: str) -> str:
    text = LINE_ENDS.sub("\n", _repaired(NEXT_LINE.sub("\n", text)))
    text = SPACES.sub(_space, CONTROL.sub("", text))
    return _tidy(unicodedata.normalize("NFC", text))


def _tidy(text: str) -> str:
    """No blanks before a line's end, at most one blank line, no blanks around the text."""
    if " \n" in text:
        text = TRAILING.sub("", text)
    if "\n\n\n" in text:
        text = BLANK_LINES.sub("\n\n", text)
    return text.strip("\n ")


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
