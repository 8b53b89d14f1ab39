"""Repetition statistics against a plain reading of the paper."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysl.data.filters.ngrams import NGrams
from raysl.data.filters.repetition import Repetition, repeated_shares
from raysl.data.filters.statistics import TextStatistics

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
    ngrams = NGrams(TextStatistics(pa.array(texts, pa.string())))
    np.testing.assert_array_equal(ngrams.top_chars(n), [top_by_hand(text, n) for text in texts])
    np.testing.assert_array_equal(ngrams.repeated_chars(n), [repeated_by_hand(text, n) for text in texts])


def test_repeated_lines_and_paragraphs_by_hand() -> None:
    found = TextStatistics(pa.array(["ab\ncd\n ab \n\nab\ne", "\n  \n", "", "a\nb\n\nc\n\n\na\nb"], pa.string()))
    lines, line_chars = repeated_shares(found, found.lines)
    assert lines.tolist() == pytest.approx([2 / 5, 0, 0, 2 / 5])
    assert line_chars.tolist() == pytest.approx([4 / 9, 0, 0, 2 / 5])
    paragraphs, paragraph_chars = repeated_shares(found, found.paragraphs)
    assert paragraphs.tolist() == pytest.approx([0, 0, 0, 1 / 3])
    assert paragraph_chars.tolist() == pytest.approx([0, 0, 0, 3 / 7])


def test_filters_that_see_one_batch_share_its_statistics() -> None:
    batch = pa.table({"text": ["a b", "ü c"]})
    found = TextStatistics.of(batch)
    assert TextStatistics.of(batch) is found
    assert found.num_chars.tolist() == [3, 3]
    assert TextStatistics.of(batch.slice(1)).num_chars.tolist() == [3]


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
