"""The rules of C4 (Raffel et al., 2020, section 2.2): lines that are no sentences go, then pages with little left.

| rule                                                               | default |
|--------------------------------------------------------------------|---------|
| a line stays if it ends with . ! ? or a closing quote, not with "..." | on |
| a line stays if it has this many words, none longer than             | 3, 1000 characters |
| lines with "javascript", and with notes on cookies or terms of use, go | on  |
| marks like [3], [edit], [citation needed] are cut out                | on      |
| a page with "lorem ipsum" or a curly bracket goes                    | on      |
| a page needs this many sentences                                     | 5       |
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from raysl.config import PluginConfig
from raysl.data.filters.base import Bools, Filter
from raysl.schema import TEXT

ENDS = (".", "?", "!", '"', "'", "”", "’")
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)")
ABBREVIATION = re.compile(r"\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|Inc|Ltd|Jr|Sr|Fig|e\.g|i\.e|cf|al)\.$")


class C4Config(PluginConfig):
    """Rules of C4; the defaults are the paper's."""

    type: str = "c4"
    min_words_per_line: int = Field(3, ge=0)
    """Words a line needs to stay."""
    max_word_chars: int = Field(1000, ge=1)
    """Characters of the longest word a line may have."""
    min_sentences: int = Field(5, ge=0)
    """Sentences a page needs after its lines were chosen."""
    terminal_punctuation: bool = True
    """Whether a line has to end a sentence."""
    drop_code: bool = True
    """Whether pages with a curly bracket go; false for text about programming."""


@dataclass(frozen=True)
class Page:
    """What C4 leaves of one text, and whether the page as a whole may stay."""

    text: str
    num_sentences: int
    has_lorem_ipsum: bool
    has_bracket: bool


class C4(Filter):
    """Changes texts: what stays of a page is its good lines. Costs about 0.04 CPU seconds for a MB."""

    Config: ClassVar[type[PluginConfig]] = C4Config
    config: C4Config

    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        self._pages = [choose_lines(text, self.config, self.edits) for text in batch[TEXT].to_pylist()]
        sentences = np.array([page.num_sentences for page in self._pages], np.int64)
        return {
            "lorem_ipsum": np.array([not page.has_lorem_ipsum for page in self._pages], np.bool_),
            "curly_bracket": np.array([not page.has_bracket for page in self._pages], np.bool_),
            "few_sentences": sentences >= self.config.min_sentences,
        }

    def edit(self, batch: pa.Table) -> pa.Table:
        texts = pa.array([page.text for page in self._pages], pa.string())
        return batch.set_column(batch.schema.get_field_index(TEXT), TEXT, texts)


def choose_lines(text: str, config: C4Config, edits: Counter[str]) -> Page:
    """The lines that are sentences, without citation marks; counts the lines that go by reason."""
    lower = text.lower()
    doubtful = "javascript" in lower or any(policy in lower for policy in POLICIES)
    lines, num_sentences = [], 0
    for line in text.split("\n"):
        line = line.strip()
        if not line:
            continue
        reason = _line_reason(line, config, doubtful)
        if reason:
            edits[reason] += 1
            continue
        line = CITATION.sub("", line) if "[" in line else line
        num_sentences += count_sentences(line)
        lines.append(line)
    has_bracket = config.drop_code and "{" in text
    return Page("\n".join(lines).strip(), num_sentences, "lorem ipsum" in lower, has_bracket)


def _line_reason(line: str, config: C4Config, doubtful: bool) -> str:
    bare = CITATION.sub("", line).rstrip() if line.endswith("]") else line
    if config.terminal_punctuation and (not bare.endswith(ENDS) or bare.endswith("...")):
        return "c4_no_sentence_end"
    words = line.split()
    if len(words) < config.min_words_per_line:
        return "c4_few_words"
    if len(line) > config.max_word_chars and max(map(len, words)) > config.max_word_chars:
        return "c4_long_word"
    if doubtful:
        lower = line.lower()
        if "javascript" in lower:
            return "c4_javascript"
        if any(policy in lower for policy in POLICIES):
            return "c4_policy"
    return ""


def count_sentences(line: str) -> int:
    """Sentences of a line, at least one: ends that are no abbreviation."""
    ends = (match for match in SENTENCE_END.finditer(line))
    inner = sum(not ABBREVIATION.search(line, max(match.start() - 5, 0), match.start() + 1) for match in ends)
    return max(inner, 1)
