"""Runs of n words that stand more than once in a text.

Where n words repeat, their first n - 1 repeat too: only the pairs of a batch are sorted as a whole, every longer run is
looked for among those that repeated so far. Exact, and most of the work ends at three words.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from raysl.data.filters.statistics import I64, TextStatistics
from raysl.data.minhash_numpy import BASE, mix64


@dataclass(frozen=True)
class Repeated:
    """N-grams that stand at least twice in a text, equal ones of a text together."""

    places: I64
    """Their first words, in the order of the batch within equal ones."""
    keys: NDArray[np.uint64]
    runs: I64
    """Where the places of the next different n-gram begin."""
    counts: I64
    """How often each different one stands."""


class NGrams:
    """The repeated n-grams of a batch, each length found from the one before."""

    def __init__(self, statistics: TextStatistics) -> None:
        self.statistics, self.words = statistics, statistics.words
        self.repeated = cache(self._repeated)

    def _repeated(self, n: int) -> Repeated:
        hashes, text = self.statistics.word_hashes, self.words.text
        if n == 1:
            places = np.arange(len(hashes))
            return _grouped(places, text.astype(np.uint64) * np.uint64(BASE) + hashes)
        if n == 2:  # most words repeat: sorting them first would gain nothing
            places = np.arange(max(len(hashes) - 1, 0))
            keys = (text[:-1].astype(np.uint64) * np.uint64(BASE) + hashes[:-1]) if len(places) else hashes[:0]
        else:
            shorter = self.repeated(n - 1)
            places, keys = shorter.places, shorter.keys
        inside = places + n - 1 < len(hashes)
        places, keys = places[inside], keys[inside]
        inside = text[places] == text[places + n - 1]
        places, keys = places[inside], keys[inside]
        return _grouped(places, keys * np.uint64(BASE) + hashes[places + n - 1])

    def top_chars(self, n: int) -> I64:
        """Characters in the most frequent n-gram of each text, blanks between its words included; 0 if none repeats."""
        found, words = self.repeated(n), self.words
        top, chars_of = np.ones(self.statistics.num_texts, np.int64), np.zeros(self.statistics.num_texts, np.int64)
        first = found.places[found.runs]
        text, sums = words.text[first], np.r_[0, np.cumsum(words.chars)]
        np.maximum.at(top, text, found.counts)
        best = found.counts == top[text]
        chars = found.counts * (sums[first + n] - sums[first] + n - 1)
        np.maximum.at(chars_of, text[best], chars[best])
        return chars_of

    def repeated_chars(self, n: int) -> I64:
        """Characters of each text in n-grams that stood before in it; a word counts once."""
        found, words = self.repeated(n), self.words
        if not len(found.places):
            return np.zeros(self.statistics.num_texts, np.int64)
        edges = np.zeros(len(words.begin) + n + 1, np.int32)
        edges[found.places] = 1
        first = np.minimum.reduceat(found.places, found.runs)
        edges[first] = 0
        edges[n:] -= edges[:-n].copy()
        covered = np.flatnonzero(np.cumsum(edges, dtype=np.int32)[: len(words.begin)] > 0)
        return np.bincount(words.text[covered], words.chars[covered], self.statistics.num_texts).astype(np.int64)


def _grouped(places: I64, keys: NDArray[np.uint64]) -> Repeated:
    """Keeps what stands at least twice."""
    mixed = mix64(keys)
    order = np.argsort(mixed)
    mixed = mixed[order]
    new = np.r_[True, mixed[1:] != mixed[:-1]] if len(mixed) else np.zeros(0, np.bool_)
    alone = new & np.r_[new[1:], True] if len(mixed) else new
    order, new = order[~alone], new[~alone]
    runs = np.flatnonzero(new)
    return Repeated(places[order], keys[order], runs, np.diff(np.r_[runs, len(order)]))
