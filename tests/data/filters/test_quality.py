"""One text for each Gopher quality rule, a hair on either side of the paper's threshold."""

import pyarrow as pa
import pytest

from raysl.data.filters.quality import Quality

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


def test_marks_count_as_words_where_datatrove_is_to_be_repeated() -> None:
    text = "the cat and dog, with birds; have seen that - (all) - of it! " * 6
    assert failed(text) == []
    assert failed(text, count_marks=True) == ["words_without_letters"]
