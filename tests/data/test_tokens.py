"""The vocabulary and the token lists."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models

from raysl.data import tokens
from raysl.data.clean import ROWS
from raysl.data.config import TokenizerConfig
from raysl.data.dedup import PLAN
from raysl.data.tokenizer_file import load_tokenizer
from raysl.data.tokens import TokenizerTrainer, title_tokens, tokenize, train_tokenizer
from raysl.errors import DataError
from raysl.schema import RAW_DOCUMENT, SPECIAL_TOKENS


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


def trained(folder: Path, texts: list[str], max_training_mb: float, split: str = "train", seed: int = 0) -> str:
    """tokenizer.json of one unit of these documents, all of them in one split."""
    names, nothing = [f"d{number}" for number in range(len(texts))], [None] * len(texts)
    rows = pa.table([names, texts, nothing], schema=RAW_DOCUMENT)
    places = range(len(texts))
    plan = pa.table([places, names, nothing, places, [split] * len(texts)], schema=PLAN)
    pq.write_table(rows, folder / ROWS)
    pq.write_table(plan, folder / "part-00000.parquet")
    train_bytes = sum(map(len, texts)) if split == "train" else 0
    config = TokenizerConfig(vocab_size=400, max_training_mb=max_training_mb)
    TokenizerTrainer(config, seed, train_bytes)([folder], folder, folder / "tokenizer.json")
    return (folder / "tokenizer.json").read_text()


def test_a_vocabulary_is_trained_on_a_share_of_the_documents(tmp_path: Path) -> None:
    texts = corpus()
    config = TokenizerConfig(vocab_size=400)
    size = sum(map(len, texts)) / 1e6
    assert trained(tmp_path, texts, size) == train_tokenizer(iter(texts), config).to_str(pretty=True)
    drawn = [texts[number] for number in (54, 83, 105, 107, 143, 157, 163)]
    assert trained(tmp_path, texts, size / 20) == train_tokenizer(iter(drawn), config).to_str(pretty=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_few_huge_documents_give_a_vocabulary_too(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents drawn as a whole would be none of it in most runs, or all."""
    sizes = []

    def train(texts: Iterator[str], config: TokenizerConfig) -> Tokenizer:
        drawn = list(texts)
        sizes.append(sum(map(len, drawn)))
        return train_tokenizer(iter(drawn[:1]), config)

    monkeypatch.setattr(tokens, "train_tokenizer", train)
    huge = "\n".join(corpus() * 40)
    assert len(huge) > tokens.LONG
    trained(tmp_path, [huge] * 3, 1.0, seed=seed)
    assert 0.3e6 < sizes[0] < 2e6


def test_nothing_to_train_a_vocabulary_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"max_training_mb=1e-06 is too little\. Raise it"):
        trained(tmp_path, corpus(), 1e-6)
    with pytest.raises(DataError, match=r"No document is in the train split\. Lower prepare\.split"):
        trained(tmp_path, corpus(), 1, split="test")


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
    texts = ["bada dele\ndele mabo\nlele", "bada dele", "dele\n\nbada", "bada\ndele"]
    rows = tokenize(texts, tokenizer)
    lines = [len(tokenizer.encode(line, add_special_tokens=False).ids) for line in ("bada dele", "dele")]
    assert title_tokens(texts, [True, True, True, False], rows, tokenizer).to_pylist() == [lines[0], 0, lines[1], 0]


def test_a_tokenizer_that_joins_lines_gives_no_titles() -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "\n": 1, "b": 2, "\nb": 3, "a\nb": 4}, [("\n", "b"), ("a", "\nb")]))
    assert title_tokens(["a\nb"], [True], tokenize(["a\nb"], tokenizer), tokenizer).to_pylist() == [0]


def test_each_document_ends_with_a_separator() -> None:
    tokenizer = train_tokenizer(iter(corpus()), TokenizerConfig(vocab_size=400))
    rows = tokenize(["bada", "", "dele"], tokenizer)
    assert rows.type.value_type == "int32"
    assert rows.to_pylist() == [[*tokenizer.encode("bada").ids, 3], [3], [*tokenizer.encode("dele").ids, 3]]
    assert len(tokenize([], tokenizer)) == 0


def test_more_tokens_than_a_shard_can_count_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = train_tokenizer(iter(corpus()), TokenizerConfig(vocab_size=400))
    monkeypatch.setattr(tokens, "MOST_TOKENS", 3)
    assert len(tokenize(["", "", ""], tokenizer)) == 3
    with pytest.raises(
        DataError, match=r"4 tokens come from one file or row group, and a shard holds 3 at most\. Store that"
    ):
        tokenize([""] * 4, tokenizer)
