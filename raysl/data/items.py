"""The vocabulary of behaviour: an item is a token. What it holds comes from the train period alone."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysl import storage
from raysl.data.config import BehaviourConfig
from raysl.data.events import EVENTS
from raysl.data.ordering import trained_on
from raysl.data.prints import mapped
from raysl.data.times import iso_of
from raysl.errors import DataError
from raysl.schema import CATALOGUE, ITEM, SPECIAL_TOKENS, TEXT, UNKNOWN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ITEMS = "items.parquet"
BLANK = "\u2423"
"""Stands for a blank inside an item's code where sequences are written as text, because blanks divide the items there."""


@dataclass(frozen=True)
class CatalogueWriter:
    """Everything the vocabulary task needs besides the buckets; it is pickled to a worker. Memory grows with the items."""

    folder: Path
    settings: BehaviourConfig
    train_until: int
    """First cut, microseconds."""

    def __call__(self, ordered: Sequence[Path]) -> dict[str, Any]:
        """Writes items.parquet and tokenizer.json; DataError where no item comes often enough."""
        items = catalogue((mapped(unit / EVENTS) for unit in ordered), self.train_until, self.settings)
        known = items.filter(pc.not_equal(items["token"], UNKNOWN))
        if not len(known):
            raise DataError(
                f"No item has {self.settings.min_item_events} events before {iso_of(self.train_until)}. Lower "
                f"prepare.behaviour.min_item_events, or move the cuts in prepare.behaviour.split."
            )
        with storage.atomic_path(self.folder / ITEMS) as temporary:
            pq.write_table(items, temporary)
        storage.write_text(self.folder / "tokenizer.json", tokenizer_of(known[ITEM].to_pylist()).to_str(pretty=True))
        return {"vocab_size": len(known) + len(SPECIAL_TOKENS), "items": len(items)}


def catalogue(buckets: Iterable[pa.Table], train_until: int, settings: BehaviourConfig) -> pa.Table:
    """All items, schema.CATALOGUE: first those with a token, the most frequent first, then the others by their codes.

    An item's text is the one it has most often in what is trained on; for an item that is not there, most often elsewhere.
    """
    train: Counter[str] = Counter()
    texts: Counter[tuple[bool, str, str | None]] = Counter()
    for events in buckets:
        trained = pa.array(trained_on(events, train_until, settings.min_user_events))
        keyed = pa.table({"train": trained, ITEM: events[ITEM], TEXT: events[TEXT]})
        for row in keyed.group_by(["train", ITEM, TEXT]).aggregate([([], "count_all")]).to_pylist():
            texts[row["train"], row[ITEM], row[TEXT]] += row["count_all"]
            train[row[ITEM]] += row["count_all"] * row["train"]
    chosen: dict[str, str | None] = {}
    for (_, item, text), _ in sorted(texts.items(), key=_preference):
        chosen.setdefault(item, text)
    names = sorted(chosen, key=lambda item: (train[item] < settings.min_item_events, -train[item], item))
    num_known = sum(train[item] >= settings.min_item_events for item in names)
    first = len(SPECIAL_TOKENS)
    tokens = [*range(first, first + num_known), *[UNKNOWN] * (len(names) - num_known)]
    columns = [names, tokens, [chosen[item] for item in names], [train[item] for item in names]]
    return pa.table([pa.array(v, f.type) for v, f in zip(columns, CATALOGUE, strict=True)], schema=CATALOGUE)


def _preference(entry: tuple[tuple[bool, str, str | None], int]) -> tuple[bool, bool, int, str]:
    (in_train, _, text), count = entry
    return text is None, not in_train, -count, text or ""


def word_of(item: str) -> str:
    """An item as one word of a text."""
    return re.sub(r"\s", BLANK, item)


def tokenizer_of(items: Sequence[str]) -> "Tokenizer":
    """One token an item; a text is items with blanks between them. What it does not know is [UNK]."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate([*SPECIAL_TOKENS, *map(word_of, items)])}
    if len(vocabulary) < len(items) + len(SPECIAL_TOKENS):
        raise DataError(f"Two items differ only in their blanks and {BLANK}. Give them other codes.")
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer
