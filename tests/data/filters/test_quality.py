"""One text for each Gopher quality rule, a hair on either side of the paper's threshold."""

import pyarrow as pa
import pytest

from raysl.data.filters.quality import BULLETS, ELLIPSES, Quality, stop_words, symbols, words_with_letter
from raysl.data.filters.statistics import TextStatistics

GOOD = "the cat and dog have seen that tree with birds " * 6


def failed(text: str, **config: float) -> list[str]:
    keep = Quality(Quality.Config(**config)).keep(pa.table({"text": [text]}))
    return [reason for reason, kept in keep.items() if not kept[0]]


def test_plain_prose_passes() -> None:
    assert failed(GOOD) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("the cat and " * 16 + "one", "word_count"),
        ("the of a I " * 20, "word_length"),
        ("the and " + "extraordinarily " * 60, "word_length"),
        (GOOD + "# " * 7, "symbols"),
        (GOOD + "... " * 7 + "end", "symbols"),
        ("\n".join(f"- {GOOD[:47]}" for _ in range(10)), "bullet_lines"),
        ("\n".join([f"{GOOD[:47]} " * 3 + "…"] * 4 + [GOOD] * 9), "ellipsis_lines"),
        (GOOD + "12345 " * 16, "words_without_letters"),
        ("green cats seldom chase brown dogs through forests " * 8 + "the", "stop_words"),
    ],
)
def test_each_rule_names_its_reason(text: str, reason: str) -> None:
    assert failed(text) == [reason]


def test_thresholds_come_from_the_config() -> None:
    assert failed("a b c", min_words=3, min_mean_word_chars=1, min_stop_words=0) == []


def test_statistics_of_a_hand_counted_text() -> None:
    texts = pa.array(["# The end...\n\n- 42 of it\nÜber x2 …", "", "... #### ..... …", "1 2_ ²"])
    found = TextStatistics(texts)
    assert found.num_words.tolist() == [10, 0, 4, 3]
    assert found.per_text(found.words, found.words.chars).tolist() == [24, 0, 13, 4]
    assert symbols(found).tolist() == [2, 0, 4, 0]
    assert found.per_text(found.lines).tolist() == [3, 0, 1, 1]
    assert found.per_text(found.lines, found.begin_with(found.lines, BULLETS)).tolist() == [1, 0, 0, 0]
    assert found.per_text(found.lines, found.end_with(found.lines, ELLIPSES)).tolist() == [2, 0, 1, 0]
    assert words_with_letter(found).tolist() == [6, 0, 0, 1]
    assert stop_words(texts).tolist() == [2, 0, 0, 0]


def test_a_stop_word_stands_alone() -> None:
    texts = pa.array(["the-and", "éthe them", "The\nTHE", "_of_ of2"])
    assert stop_words(texts).tolist() == [2, 0, 1, 0]
