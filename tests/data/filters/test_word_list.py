"""Words and phrases of a list, as whole words, in any case."""

from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from raysl.data.filters.word_list import WordList

TEXTS = ["Nothing to see.", "A BAD word", "badly badger", "very\n ugly-word here", "ugly, very word", "ÜBEL bad bad"]


def kept(**config: object) -> list[bool]:
    return WordList(WordList.Config(**config)).keep(pa.table({"text": TEXTS}))["listed_word"].tolist()


def test_whole_words_and_phrases_count_in_any_case() -> None:
    assert kept(words=["bad", "Very ugly Word", "übel"]) == [True, False, True, False, True, False]


def test_a_letter_and_its_accent_may_stand_apart_in_the_list() -> None:
    """As some editors write them; they are one in every text that was normalized."""
    assert kept(words=["u\u0308bel"]) == [True] * 5 + [False]


def test_some_may_be_allowed() -> None:
    assert kept(words=["bad", "übel"], max_count=1) == [True, True, True, True, True, False]
    assert kept(words=["bad", "übel"], max_count=3) == [True] * 6


def test_a_file_holds_one_entry_a_line(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("# nothing\nbad\n\nvery ugly\n", encoding="utf-8")
    assert kept(path=str(tmp_path / "words.txt")) == [True, False, True, False, True, False]
    before = WordList.Config(path=str(tmp_path / "words.txt")).fingerprint()
    (tmp_path / "words.txt").write_text("good", encoding="utf-8")
    assert WordList.Config(path=str(tmp_path / "words.txt")).fingerprint() != before


def test_a_list_without_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="give words, or a path"):
        WordList.Config(words=["--"])
    with pytest.raises(ValidationError, match=r"nowhere.txt' is no file"):
        WordList.Config(path=str(tmp_path / "nowhere.txt"))
