"""A subword vocabulary trained on the train split, and token shards of all splits."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysl import storage
from raysl.data.clean import PRINTS, ROWS, read_texts
from raysl.data.config import TokenizerConfig
from raysl.data.dedup import ROW
from raysl.data.prints import mapped, write_prints
from raysl.data.tokenizer_file import load_tokenizer
from raysl.errors import DataError
from raysl.schema import (
    CLUSTER,
    DOCUMENT,
    HAS_TITLE,
    ID,
    LABEL,
    SEPARATOR,
    SPECIAL_TOKENS,
    SPLIT,
    SPLITS,
    TEXT,
    TITLE_TOKENS,
    TITLED,
    TOKENIZED,
    TOKENS,
    TRAIN,
    UNKNOWN,
)  # fmt: skip

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MARK = "\u2581"
"""Begins every word while the pieces of a WordPiece vocabulary are found."""
MAX_ALPHABET = 1000
"""Characters of a WordPiece vocabulary at most, the most frequent ones; others are unknown."""
MOST_TOKENS = 2**31 - 1
"""Of one shard: Arrow counts them in 32 bits."""
LONG, PIECE = 1_000_000, 100_000
"""Characters above which a document is drawn piece by piece to train on, and those of a piece."""


def train_tokenizer(texts: Iterator[str], config: TokenizerConfig) -> "Tokenizer":
    """The vocabulary depends on the texts alone, neither on their order nor on the number of threads."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    steps: list[Any] = [normalizers.NFC(), *([normalizers.Lowercase()] if config.lowercase else [])]
    normalizer = normalizers.Sequence(steps)
    if config.type == "bpe":
        pieces = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer = _trained_bpe(texts, config.vocab_size, normalizer, pieces, pre_tokenizers.ByteLevel.alphabet())
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer
    tokenizer = Tokenizer(
        models.WordPiece(_wordpiece_vocabulary(list(texts), config.vocab_size, normalizer), unk_token="[UNK]")
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def _trained_bpe(texts: Iterable[str], size: int, normalizer: Any, pieces: Any, alphabet: Sequence[str]) -> "Tokenizer":
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pieces
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL_TOKENS), show_progress=False,
        initial_alphabet=list(alphabet), limit_alphabet=len(alphabet),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _wordpiece_vocabulary(texts: Sequence[str], size: int, normalizer: Any) -> dict[str, int]:
    """Pieces that begin a word stand bare, the others behind ##.

    The trainer for WordPiece numbers ## pieces in the order of a randomly seeded hash table: another vocabulary at each
    call. So the pieces come from a BPE in which every word begins with a mark.
    """
    from tokenizers import pre_tokenizers

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    common = sorted((char for char in counts if not char.isspace()), key=lambda char: (-counts[char], char))
    alphabet = sorted(common[:MAX_ALPHABET])
    marked = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Metaspace(MARK, prepend_scheme="always", split=False)]
    )
    trained = _trained_bpe(texts, size, normalizer, marked, [MARK, *alphabet])
    pieces = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)[len(SPECIAL_TOKENS) :]
    bare = [piece.removeprefix(MARK) if piece.startswith(MARK) else f"##{piece}" for piece in pieces if piece != MARK]
    vocabulary = dict.fromkeys([*SPECIAL_TOKENS, *alphabet, *(f"##{char}" for char in alphabet), *bare])
    return {piece: number for number, piece in enumerate(list(vocabulary)[:size])}


@dataclass(frozen=True)
class TokenizerTrainer:
    """Everything the training task needs besides the units; it is pickled to a worker."""

    config: TokenizerConfig
    seed: int
    train_bytes: int
    given: str | None = None
    """Text of the tokenizer.json to be used instead."""

    def __call__(self, units: Sequence[Path], plan: Path, path: Path) -> dict[str, Any]:
        """Writes tokenizer.json: the given one, or one from (a seeded share of) the train split."""
        text = self.given or train_tokenizer(self._drawn(units, plan), self.config).to_str(pretty=True)
        storage.write_text(path, text)
        return {"vocab_size": len(json.loads(text)["model"]["vocab"])}

    def _drawn(self, units: Sequence[Path], plan: Path) -> Iterator[str]:
        """Raises DataError where there is nothing: the vocabulary would hold bytes alone."""
        texts = self._texts(units, plan)
        first = next(texts, None)
        if first is not None:
            return chain([first], texts)
        if not self.train_bytes:
            raise DataError("No document is in the train split. Lower prepare.split.validation and test, or give more data.")
        raise DataError(
            f"None of {self.train_bytes / 1e6:,.3g} MB of text was drawn to train the vocabulary on: "
            f"prepare.tokenizer.max_training_mb={self.config.max_training_mb} is too little. Raise it."
        )

    def _texts(self, units: Sequence[Path], plan: Path) -> Iterator[str]:
        share = self.config.max_training_mb * 1e6 / max(self.train_bytes, 1)
        for number, unit in enumerate(units):
            documents = planned_documents(unit, plan, number)
            train = documents.filter(pc.equal(documents[SPLIT], TRAIN))
            for name, text in zip(train[ID].to_pylist(), train[TEXT].to_pylist(), strict=True):
                if share >= 1:
                    yield text
                else:
                    yield from (piece for named, piece in _pieces(name, text) if _draw(named, self.seed) < share)


def _pieces(name: str, text: str) -> list[tuple[str, str]]:
    """What is drawn or not: whole documents, but a long one could be all of the text, or more than is wanted of it."""
    if len(text) <= LONG:
        return [(name, text)]
    return [(f"{name}:{start}", text[start : start + PIECE]) for start in range(0, len(text), PIECE)]


def _draw(name: str, seed: int) -> float:
    return int.from_bytes(hashlib.blake2b(f"tokenizer {seed}:{name}".encode(), digest_size=8).digest()) / 2**64


def planned_documents(unit: Path, plan: Path, number: int) -> pa.Table:
    """The documents of one unit that stay, schema.DOCUMENT."""
    part = pq.read_table(plan / f"part-{number:05d}.parquet")
    texts = read_texts(unit, part[ROW].to_numpy())
    return pa.table(
        {ID: part[ID], TEXT: texts, LABEL: part[LABEL], CLUSTER: part[CLUSTER], SPLIT: part[SPLIT]}, schema=DOCUMENT
    )


def planned_titles(unit: Path, plan: Path, number: int) -> pa.Array:
    """Which of `planned_documents` have a title."""
    rows = pq.read_table(plan / f"part-{number:05d}.parquet", columns=[ROW])[ROW]
    if HAS_TITLE not in pq.read_schema(unit / ROWS).names:  # a unit that an earlier raysl has cleaned says nothing
        return pa.repeat(True, len(rows))
    return pa.array(pq.read_table(unit / ROWS, columns=[HAS_TITLE])[HAS_TITLE].to_numpy()[rows.to_numpy()], pa.bool_())


@dataclass(frozen=True)
class TokenWriter:
    """Writes what stays of one unit: documents, token shards of each split, index of prints. Pickled to the workers."""

    folder: Path
    titled: bool = False
    """Whether the source has titles: the first line of a document that has one."""

    def __call__(self, unit: Path, plan: Path, number: int, done: Path) -> dict[str, Any]:
        """Every file is whole or absent; `done` is written last and holds the counts."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core a task
        tokenizer = load_tokenizer(self.folder / "tokenizer.json")
        documents = planned_documents(unit, plan, number)
        with storage.atomic_path(self.folder / "documents" / f"part-{number:05d}.parquet") as temporary:
            pq.write_table(documents, temporary)
        if self.titled:
            documents = documents.append_column(HAS_TITLE, planned_titles(unit, plan, number))
        stats = {split: self._write_split(documents, split, tokenizer, number) for split in SPLITS}
        self._write_index(unit, plan, number)
        storage.write_json(done, stats)
        return stats

    def _write_split(self, documents: pa.Table, split: str, tokenizer: "Tokenizer", number: int) -> dict[str, int]:
        own = documents.filter(pc.equal(documents[SPLIT], split))
        tokens = tokenize(own[TEXT].to_pylist(), tokenizer)
        values = tokens.values.to_numpy()
        if len(own):
            table = pa.table({ID: own[ID], LABEL: own[LABEL], TOKENS: tokens}, schema=TOKENIZED)
            if self.titled:
                counts = title_tokens(own[TEXT].to_pylist(), own[HAS_TITLE].to_pylist(), tokens, tokenizer)
                table = table.append_column(TITLED.field(TITLE_TOKENS), [counts])
            write_prints(table, self.folder / "tokens" / split / f"shard-{number:05d}.arrow")
        num_bytes = pc.sum(pc.binary_length(own[TEXT])).as_py() or 0
        return {"documents": len(own), "tokens": len(values), "bytes": num_bytes, "unknown": int((values == UNKNOWN).sum())}

    def _write_index(self, unit: Path, plan: Path, number: int) -> None:
        part = pq.read_table(plan / f"part-{number:05d}.parquet")
        prints = mapped(unit / PRINTS).take(part[ROW])
        for name in (ID, LABEL):
            prints = prints.set_column(prints.schema.get_field_index(name), name, part[name])
        write_prints(prints, self.folder / "dedup_index" / f"part-{number:05d}.arrow")


def title_tokens(texts: Sequence[str], titled: Sequence[bool], tokens: pa.ListArray, tokenizer: "Tokenizer") -> pa.Array:
    """How many of each document's tokens its first line has; 0 where that is no title or it has no other line.

    A tokenizer that joins the end of a line with the next one leaves no place to part them: 0 too.
    """
    parts = zip(titled, (text.partition("\n") for text in texts), strict=True)
    titles = [first if own and rest else "" for own, (first, _, rest) in parts]
    encoded = tokenizer.encode_batch_fast(titles, add_special_tokens=False)
    values, offsets = tokens.values.to_numpy(), tokens.offsets.to_numpy()
    starts = (values[start : start + len(one.ids)] for start, one in zip(offsets, encoded, strict=False))
    counts = [len(one.ids) * (found.tolist() == one.ids) for found, one in zip(starts, encoded, strict=True)]
    return pa.array(counts, pa.int32())


def tokenize(texts: Sequence[str], tokenizer: "Tokenizer") -> pa.ListArray:
    """Token ids of each text with [SEP] behind them, as one Arrow list column. DataError for more than it can hold.

    The fast call leaves out where in the text each token stands, which nobody asks for here: same ids, in about 0.6 of the
    time that `encode_batch` takes.
    """
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    rows = [np.array([*one.ids, SEPARATOR], np.int32) for one in encoded]
    offsets = np.cumsum([0, *(len(row) for row in rows)])
    if offsets[-1] > MOST_TOKENS:
        raise DataError(
            f"{offsets[-1]:,} tokens come from one file or row group, and a shard holds {MOST_TOKENS:,} at most. Store that "
            "file as several smaller ones; only plain .jsonl and row groups of .parquet are divided."
        )
    values = np.concatenate(rows) if rows else np.zeros(0, np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
