"""The vocabulary and the token lists."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from raysl.data.config import TokenizerConfig
from raysl.data.tokenizer_file import load_tokenizer
from raysl.data.tokens import title_tokens, tokenize, train_tokenizer
from raysl.schema import SPECIAL_TOKENS


def corpus() -> list[str]:
    random = np.random.default_rng(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    return [" ".join("".join(random.choice(syllables, 3)) for _ in range(30)) for _ in range(200)]


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_training_does_not_depend_on_order_or_repetition_of_the_call(kind: str) -> None:
    config = TokenizerConfig(type=kind, vocab_size=400)
    texts = corpus()
    first = train_tokenizer(iter(texts), config)
    assert first.to_str() == train_tokenizer(iter(texts[::-1]), config).to_str()
    assert [first.id_to_token(number) for number in range(5)] == list(SPECIAL_TOKENS)
    assert first.get_vocab_size() == 400


def test_bpe_holds_any_text_and_wordpiece_has_unknowns() -> None:
    bpe, pieces = (
        train_tokenizer(iter(corpus()), TokenizerConfig(type=kind, vocab_size=400)) for kind in ("bpe", "wordpiece")
    )
    assert bpe.decode(bpe.encode("ü 日本 bada").ids).strip() == "ü 日本 bada"
    assert 1 in pieces.encode("日本").ids


def test_case_is_dropped_only_when_asked() -> None:
    for lowercase in (True, False):
        tokenizer = train_tokenizer(iter(corpus()), TokenizerConfig(vocab_size=400, lowercase=lowercase))
        assert (tokenizer.encode("BADA").ids == tokenizer.encode("bada").ids) is lowercase


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_a_special_token_in_a_text_is_text(kind: str, tmp_path: Path) -> None:
    config = TokenizerConfig(type=kind, vocab_size=400)  # type: ignore[arg-type]
    train_tokenizer(iter([*corpus(), "[sep] [mask] [SEP] [MASK]"]), config).save(str(tmp_path / "tokenizer.json"))
    ids = tokenize(["bada [SEP] dele [MASK]"], load_tokenizer(tmp_path / "tokenizer.json")).to_pylist()[0]
    assert ids[-1] == 3
    assert min(ids[:-1]) >= len(SPECIAL_TOKENS)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_tokens_of_the_first_line_are_counted_where_there_is_another(kind: str) -> None:
    tokenizer = train_tokenizer(iter(corpus()), TokenizerConfig(type=kind, vocab_size=400))
    texts = ["bada dele\ndele mabo\nlele", "bada dele", "dele\n\nbada"]
    tokens = tokenize(texts, tokenizer)
    lines = [len(tokenizer.encode(line, add_special_tokens=False).ids) for line in ("bada dele", "dele")]
    assert title_tokens(texts, tokens, tokenizer).to_pylist() == [lines[0], 0, lines[1]]


def test_a_tokenizer_that_joins_lines_gives_no_titles() -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "\n": 1, "b": 2, "\nb": 3, "a\nb": 4}, [("\n", "b"), ("a", "\nb")]))
    assert title_tokens(["a\nb"], tokenize(["a\nb"], tokenizer), tokenizer).to_pylist() == [0]


def test_each_document_ends_with_a_separator() -> None:
    tokenizer = train_tokenizer(iter(corpus()), TokenizerConfig(vocab_size=400))
    rows = tokenize(["bada", "", "dele"], tokenizer)
    assert rows.type.value_type == "int32"
    assert rows.to_pylist() == [[*tokenizer.encode("bada").ids, 3], [3], [*tokenizer.encode("dele").ids, 3]]
    assert len(tokenize([], tokenizer)) == 0
