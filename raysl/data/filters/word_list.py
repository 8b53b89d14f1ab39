"""Documents with words of a list, such as the one that C4 leaves pages out by (Raffel et al., 2020, section 2.2)."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from raysl import storage
from raysl.config import AnyPath, PluginConfig
from raysl.data.filters.base import Bools, Filter
from raysl.schema import TEXT

WORD = re.compile(r"\w+")


class WordListConfig(PluginConfig):
    """Words that a document may not have."""

    type: str = "word_list"
    words: tuple[str, ...] = ()
    """Words and phrases; case does not matter."""
    path: AnyPath | None = None
    """A UTF-8 file with one word or phrase in a line; lines that begin with # are notes."""
    max_count: int = Field(0, ge=0)
    """Listed words a document may have."""

    @model_validator(mode="after")
    def _something_to_look_for(self) -> "WordListConfig":
        if self.path is not None and not Path(self.path).is_file():
            raise ValueError(f"path '{self.path}' is no file. Give a text file with one word in a line")
        if not any(phrases(self)):
            raise ValueError("give words, or a path to a file that holds some")
        return self

    def fingerprint(self) -> str:
        """Names the list: a file that changed is another config."""
        return storage.hash_json(sorted(set(phrases(self))))


class WordList(Filter):
    """Words are runs of letters, digits and _; a phrase is found whatever stands between its words."""

    Config: ClassVar[type[PluginConfig]] = WordListConfig
    config: WordListConfig

    def __init__(self, config: WordListConfig) -> None:
        super().__init__(config)
        self._phrases: dict[str, list[tuple[str, ...]]] = {}
        for phrase in sorted(set(phrases(config))):
            self._phrases.setdefault(phrase[0], []).append(phrase)

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        counts = [self.count_listed(text) for text in batch[TEXT].to_pylist()]
        return {"listed_word": np.array(counts, np.int64) <= self.config.max_count}

    def count_listed(self, text: str) -> int:
        words = WORD.findall(text.lower())
        if self._phrases.keys().isdisjoint(words):
            return 0
        places = (place for place, word in enumerate(words) if word in self._phrases)
        return sum(tuple(words[place : place + len(phrase)]) == phrase for place in places
                   for phrase in self._phrases[words[place]])  # fmt: skip


def phrases(config: WordListConfig) -> Iterable[tuple[str, ...]]:
    """The list as words in lower case."""
    listed = list(config.words)
    if config.path is not None:
        lines = Path(config.path).read_text(encoding="utf-8-sig").splitlines()
        listed += [line for line in lines if not line.startswith("#")]
    composed = (unicodedata.normalize("NFC", entry) for entry in listed)  # as texts are by then
    return [tuple(found) for entry in composed if (found := WORD.findall(entry.lower()))]
