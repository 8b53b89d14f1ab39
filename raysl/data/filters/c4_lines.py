"""Which lines of a page C4 keeps, in plain Python: the readable form, which the compiled one has to equal.

The order of the tests is that of the code C4 was made with (tensorflow_datasets, c4_utils.py), also in datatrove: brackets
and "lorem ipsum" count in the lines that would stay.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysl.data.filters.characters import MARK, TERMINAL, flags_of
from raysl.data.filters.words import cut

ENDS = (".", "?", "!", '"', "'")
TYPOGRAPHIC_ENDS = ("”", "’")
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[(?:[0-9]*|edit|citation needed)\]")
BLANKS = "".join(map(chr, range(33)))
PIECES = re.compile(f"[^{re.escape(BLANKS)}]+")
REASONS = ("c4_long_word", "c4_no_sentence_end", "c4_few_words", "c4_javascript", "c4_policy")
"""Why a line goes, in the order of the tests."""
LONG_WORD, NO_END, FEW_WORDS, JAVASCRIPT, POLICY = range(5)


@dataclass(frozen=True)
class Rules:
    """The settings of the line rules."""

    min_words: int = 3
    max_word_chars: int = 1000
    needs_end: bool = True
    typographic_quotes: bool = True


@dataclass(frozen=True)
class Pages:
    """What is left of each text, and what was found in it."""

    texts: pa.Array
    sentences: NDArray[np.int64]
    has_lorem_ipsum: NDArray[np.bool_]
    has_bracket: NDArray[np.bool_]
    removed: NDArray[np.int64]
    """Lines that went, by their place in REASONS."""


def choose_lines(texts: pa.Array, rules: Rules) -> Pages:
    pages = [_Page(text, rules) for text in texts.to_pylist()]
    return Pages(
        pa.array([page.text for page in pages], pa.string()),
        np.array([page.sentences for page in pages], np.int64),
        np.array([page.has_lorem_ipsum for page in pages], np.bool_),
        np.array([page.has_bracket for page in pages], np.bool_),
        np.sum([np.bincount(page.removed, minlength=len(REASONS)) for page in pages], axis=0, dtype=np.int64)
        if pages else np.zeros(len(REASONS), np.int64),
    )  # fmt: skip


class _Page:
    def __init__(self, text: str, rules: Rules) -> None:
        self.has_lorem_ipsum = self.has_bracket = False
        self.sentences = 0
        self.removed: list[int] = []
        lines = []
        for line in text.split("\n"):
            pieces = PIECES.findall(line)
            if not pieces:
                continue
            bare = (CITATION.sub("", line) if "[" in line else line).strip(BLANKS)
            reason = self._reason(bare, pieces, rules)
            if reason >= 0:
                self.removed.append(reason)
            elif bare:
                self.sentences += count_sentences(bare)
                lines.append(bare)
        self.text = "\n".join(lines)

    def _reason(self, line: str, pieces: Sequence[str], rules: Rules) -> int:
        if any(len(piece) > rules.max_word_chars for piece in pieces):
            return LONG_WORD
        ends = ENDS + TYPOGRAPHIC_ENDS if rules.typographic_quotes else ENDS
        if rules.needs_end and (not line.endswith(ends) or line.endswith("...")):
            return NO_END
        if len(pieces) < rules.min_words:
            return FEW_WORDS
        lower = line.lower()
        self.has_lorem_ipsum |= "lorem ipsum" in lower
        if "javascript" in lower:
            return JAVASCRIPT
        self.has_bracket |= "{" in line
        return POLICY if any(policy in lower for policy in POLICIES) else -1


def count_sentences(line: str) -> int:
    """Sentences of a line, as spaCy's sentencizer has them: one begins with the first word behind a terminal mark."""
    count, ended = 1, False
    for piece in PIECES.findall(line):
        for token in cut(piece):
            if len(token) == 1 and flags_of(token) & TERMINAL:
                ended = True
            elif ended and not all(flags_of(char) & MARK for char in token):
                count, ended = count + 1, False
    return count
