"""Tokenizers of others: the same pieces of text, special tokens at our ids, everything else behind them."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from raysl.data.config import TokenizerConfig
from raysl.data.given_tokenizer import read_given_tokenizer, renumbered
from raysl.errors import ConfigError

TEXT = "The unhappy parser reads 2 files, twice."


def bert_like() -> dict[str, Any]:
    """Ids as in bert-base-uncased: [PAD] first, then unused ones, the others from 5 on."""
    names = ["[PAD]", "[unused0]", "the", "un", "##happy", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "read", "##s", "files", ","]
    tokenizer = Tokenizer(models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 6), ("[SEP]", 7)])
    return json.loads(tokenizer.to_str())


def gpt2_like() -> dict[str, Any]:
    """Bytes, two merges, and one special token at the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: number for number, name in enumerate([*alphabet, "he", "Ġr", "<|endoftext|>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("h", "e"), ("Ġ", "r")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return json.loads(tokenizer.to_str())


def loaded(given: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(given))


@pytest.mark.parametrize("given", [bert_like(), gpt2_like()], ids=["bert", "gpt2"])
def test_text_is_cut_into_the_same_pieces(given: dict[str, Any]) -> None:
    ours = loaded(renumbered(given))
    assert ours.encode(TEXT).tokens == loaded(given).encode(TEXT).tokens
    assert sorted(ours.get_vocab().values()) == list(range(ours.get_vocab_size()))


def test_special_tokens_of_bert_move_to_our_ids() -> None:
    ours = loaded(renumbered(bert_like()))
    assert [ours.id_to_token(number) for number in range(7)] == [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[unused0]",
        "the",
    ]
    assert ours.encode("files").ids == [2, ours.token_to_id("files"), 3]


def test_gpt2_ends_a_document_with_its_own_token_and_gets_the_others() -> None:
    given = gpt2_like()
    ours = loaded(renumbered(given))
    assert [ours.id_to_token(number) for number in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "<|endoftext|>", "[MASK]"]
    assert ours.get_vocab_size() == len(given["model"]["vocab"]) + 4


def test_a_tokenizer_of_ours_stays_as_it_is() -> None:
    once = renumbered(bert_like())
    assert renumbered(once) == once


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ConfigError, match=r"is no tokenizer.json"):
        read_given_tokenizer(path)
    path.write_text(json.dumps({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}))
    with pytest.raises(ConfigError, match=r"holds a Unigram model. Supported: BPE, WordPiece"):
        read_given_tokenizer(path)


def test_keys_that_would_have_no_effect_are_refused() -> None:
    assert TokenizerConfig.model_validate(TokenizerConfig(path="x").model_dump()).path == "x"
    assert "path" not in TokenizerConfig().model_dump()
    with pytest.raises(ValidationError, match="vocab_size would have no effect"):
        TokenizerConfig(path="x", vocab_size=8000)
