"""Repetition statistics against a plain reading of the paper."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysl.data.filters.repetition import Repetition, Words, repeated_chars, repeated_parts, top_ngram_chars

TEXTS = st.lists(st.lists(st.sampled_from(["a", "bb", "ccc", "dé"]), max_size=14).map(" ".join), min_size=1, max_size=5)


def top_by_hand(text: str, n: int) -> int:
    words = text.split()
    counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    most = max(counts.values(), default=1)
    return max((len(" ".join(g)) * c for g, c in counts.items() if c == most and c > 1), default=0)


def repeated_by_hand(text: str, n: int) -> int:
    words, seen, covered = text.split(), set[tuple[str, ...]](), set[int]()
    for i in range(len(words) - n + 1):
        gram = tuple(words[i : i + n])
        if gram in seen:
            covered |= set(range(i, i + n))
        seen.add(gram)
    return sum(len(words[i]) for i in covered)


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS, n=st.integers(1, 5))
def test_ngram_statistics_equal_counting_by_hand(texts: list[str], n: int) -> None:
    words = Words.of(pa.array(texts, pa.string()))
    np.testing.assert_array_equal(top_ngram_chars(words, n), [top_by_hand(text, n) for text in texts])
    np.testing.assert_array_equal(repeated_chars(words, n), [repeated_by_hand(text, n) for text in texts])


def test_repeated_lines_by_hand() -> None:
    assert repeated_parts(["ab", "cd", " ab ", "", "ab", "e"]) == (pytest.approx(2 / 5), pytest.approx(4 / 9))
    assert repeated_parts(["", "  "]) == (0, 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("one two\n" * 4 + " ".join(f"w{n}" for n in range(80)), "repeated_lines"),
        ("x" * 30 + "\n" + "\n".join(f"w{n}" for n in range(9)) + "\n" + "x" * 30, "repeated_line_chars"),
        ("buy now " * 5 + " ".join(f"word{n}" for n in range(20)), "top_2_gram"),
        (
            " ".join([*(f"a{n}" for n in range(10)), *(f"b{n}" for n in range(20)), *(f"a{n}" for n in range(10))]),
            "repeated_5_grams",
        ),
    ],
)
def test_each_rule_names_its_reason(text: str, reason: str) -> None:
    keep = Repetition(Repetition.Config()).keep(pa.table({"text": pa.chunked_array([[text]])}))
    assert reason in [name for name, kept in keep.items() if not kept[0]]


def test_prose_without_repetition_passes() -> None:
    text = "\n\n".join(" ".join(f"w{p}x{n}" for n in range(30)) for p in range(3))
    keep = Repetition(Repetition.Config()).keep(pa.table({"text": pa.chunked_array([[text]])}))
    assert all(kept[0] for kept in keep.values())
