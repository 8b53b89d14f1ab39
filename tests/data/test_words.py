"""Which tokens begin a word."""

from pathlib import Path

import pytest

from raysl.data.config import TokenizerConfig
from raysl.data.tokens import train_tokenizer
from raysl.data.words import word_starts

TEXTS = ["The parser reads unreadable files.", "Unread files are parsed\nby parsers."] * 20


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_words_of_a_text_are_found_in_its_tokens(kind: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(iter(TEXTS), TokenizerConfig(type=kind, vocab_size=300))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    starts = word_starts(tmp_path / "tokenizer.json")
    assert len(starts) == tokenizer.get_vocab_size()
    ids = tokenizer.encode("unparsed reader", add_special_tokens=False).ids
    assert len(ids) > 2
    assert int(starts[ids].sum()) == 2
    assert starts[ids[0]]
