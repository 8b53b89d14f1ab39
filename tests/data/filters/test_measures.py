"""Counts of hand-worked texts, and the compiled kernel against the numpy one on any text."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysl.data.filters.measures import (
    BULLET_LINES,
    CHARS,
    ELLIPSES,
    ELLIPSIS_LINES,
    HASHES,
    LETTER_WORDS,
    LINES,
    MARKS,
    NEWLINES,
    PARAGRAPHS,
    REPEATED_LINE_CHARS,
    REPEATED_LINES,
    REPEATED_PARAGRAPH_CHARS,
    REPEATED_PARAGRAPHS,
    STOP_WORDS,
    TERMINAL_LINES,
    WORD_CHARS,
    WORDS,
    Measures,
)  # fmt: skip

WORDS_AND_MARKS = """
the THE to don't I'm x's cannot Cannot behave e.g. J. USA. well-known a,b 3,000 1-2 a/b ... .. … …x # #tag# • * “Stop!” end.
a.B www.x-y.de http://a-b a@b-c é 日本 。 ☺ $5 5% 5+ +5 and/or abcdefghi " ' ( ) _ ab# ab_ ab"
"""
BLANKS_AND_RARE = [
    "\n",
    "\n\n",
    " ",
    "  ",
    "- ",
    "\t",
    "\x00",
    "\x85",
    "\u2029",
    "\U0001f600x",
    "\U00020000",
    "!é" * 500,
    "!é" * 501,
]
PIECES = st.sampled_from([*WORDS_AND_MARKS.split(), *BLANKS_AND_RARE])
TEXTS = st.lists(st.lists(PIECES | st.text(max_size=5), max_size=14).map("".join), min_size=1, max_size=5)
WORD_TEXTS = st.lists(st.lists(st.sampled_from(["a", "bb", "ccc", "dé"]), max_size=24).map(" ".join), min_size=1, max_size=5)


def measures(*texts: str, compiled: bool = False) -> Measures:
    return Measures.of(pa.table({"text": pa.array(["", *texts], pa.string())}).slice(1), compiled)


@pytest.mark.parametrize(
    ("column", "counts"),
    [
        (CHARS, [35, 0, 15, 6]),
        (NEWLINES, [3, 0, 0, 0]),
        (WORDS, [7, 0, 0, 3]),
        (MARKS, [5, 0, 6, 1]),
        (WORD_CHARS, [18, 0, 0, 3]),
        (LETTER_WORDS, [6, 0, 0, 1]),
        (STOP_WORDS, [2, 0, 0, 0]),
        (HASHES, [1, 0, 3, 0]),
        (ELLIPSES, [2, 0, 3, 0]),
        (LINES, [3, 0, 1, 1]),
        (BULLET_LINES, [1, 0, 0, 0]),
        (ELLIPSIS_LINES, [2, 0, 1, 0]),
        (TERMINAL_LINES, [1, 0, 0, 0]),
        (PARAGRAPHS, [2, 0, 1, 1]),
    ],
)
def test_counts_of_hand_worked_texts(column: int, counts: list[int]) -> None:
    found = measures("# The end...\n\n- 42 of it\nÜber x2? …", "", "... ### ..... …", "1 2_ ²")
    assert found[column].tolist() == counts


def test_repeated_lines_and_paragraphs_by_hand() -> None:
    found = measures("ab\ncd\n ab \n\nab\ne", "\n  \n", "", "a\nb\n\nc\n\n\na\nb")
    assert found[LINES].tolist() == [5, 0, 0, 5]
    assert found[REPEATED_LINES].tolist() == [2, 0, 0, 2]
    assert found[REPEATED_LINE_CHARS].tolist() == [4, 0, 0, 2]
    assert found[PARAGRAPHS].tolist() == [2, 0, 0, 3]
    assert found[REPEATED_PARAGRAPHS].tolist() == [0, 0, 0, 1]
    assert found[REPEATED_PARAGRAPH_CHARS].tolist() == [0, 0, 0, 3]
    assert found.short_lines(2).tolist() == [1, 0, 0, 5]


def top_by_hand(text: str, n: int) -> int:
    words = text.split()
    counts = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    gram, most = next(iter(counts.most_common(1)), ("", 0))
    return len(gram) * most if most > 1 else 0


def repeated_by_hand(text: str, n: int) -> int:
    words, seen, total, i = text.split(), set[tuple[str, ...]](), 0, 0
    while i < len(words) - n + 1:
        gram = tuple(words[i : i + n])
        again = gram in seen
        seen.add(gram)
        total += len("".join(gram)) if again else 0
        i += n if again else 1
    return total


@settings(max_examples=150)
@given(texts=WORD_TEXTS)
def test_ngrams_equal_counting_by_hand(texts: list[str]) -> None:
    top, repeated = measures(*texts).ngram_chars
    assert top.tolist() == [[top_by_hand(text, n) for n in (2, 3, 4)] for text in texts]
    assert repeated.tolist() == [[repeated_by_hand(text, n) for n in range(5, 11)] for text in texts]


@pytest.mark.slow  # numba compiles for some seconds once
@settings(max_examples=150)
@given(texts=TEXTS)
def test_the_compiled_kernel_counts_the_same(texts: list[str]) -> None:
    pytest.importorskip("numba")
    plain, fast = measures(*texts), measures(*texts, compiled=True)
    np.testing.assert_array_equal(fast.scan.counts, plain.scan.counts)
    for name in ("token_chars", "token_starts", "line_chars", "line_starts"):
        np.testing.assert_array_equal(getattr(fast.scan, name), getattr(plain.scan, name), err_msg=name)
    for one, other in zip(fast.ngram_chars, plain.ngram_chars, strict=True):
        np.testing.assert_array_equal(one, other)


def test_filters_that_see_one_batch_share_its_measures() -> None:
    batch = pa.table({"text": ["a b", "ü c"]})
    found = Measures.of(batch, compiled=False)
    assert Measures.of(batch, compiled=False) is found
    assert Measures.of(batch.slice(1), compiled=False)[CHARS].tolist() == [3]
