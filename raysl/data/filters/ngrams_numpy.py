"""Runs of n tokens that stand more than once in a text, by numpy: same counts as ngrams_numba.py.

Where n tokens repeat, their first n - 1 repeat too: only the pairs of a batch are sorted as a whole, every longer run is
looked for among those that repeated so far. Exact, and most of the work ends at three tokens.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysl.data.filters.measures import I64, LONGEST_TOP, REPEATED_NGRAMS, TOP_NGRAMS
from raysl.data.minhash_numpy import BASE, mix64


@dataclass(frozen=True)
class Repeated:
    """N-grams that stand at least twice in a text, equal ones of a text together."""

    places: I64
    """Their first tokens, in the order of the batch within equal ones."""
    keys: NDArray[np.uint64]
    runs: I64
    """Where the places of the next different n-gram begin."""
    counts: I64
    """How often each different one stands."""


def ngram_chars(hashes: NDArray[np.uint64], chars: NDArray[Any], starts: I64) -> tuple[I64, I64]:
    num_texts = len(starts) - 1
    top, repeated = np.zeros((num_texts, len(TOP_NGRAMS)), np.int64), np.zeros((num_texts, len(REPEATED_NGRAMS)), np.int64)
    text = np.repeat(np.arange(num_texts), np.diff(starts))
    sums = np.r_[0, np.cumsum(chars, dtype=np.int64)]
    places = np.arange(max(len(hashes) - 1, 0))
    keys = hashes[: len(places)] + text[: len(places)].astype(np.uint64) * np.uint64(BASE)
    for n in range(2, REPEATED_NGRAMS[-1] + 1):
        inside = places + n - 1 < len(hashes)
        places, keys = places[inside], keys[inside]
        inside = text[places] == text[places + n - 1]
        places, keys = places[inside], keys[inside]
        found = _grouped(places, keys * np.uint64(BASE) + hashes[places + n - 1])
        places, keys = found.places, found.keys
        if not len(places):
            break
        if n <= LONGEST_TOP:
            top[:, n - 2] = _top(found, n, text, sums, num_texts)
        if n >= REPEATED_NGRAMS[0]:
            covered = _covered(found, n)
            size = sums[covered + n] - sums[covered]
            repeated[:, n - REPEATED_NGRAMS[0]] = np.bincount(text[covered], size, num_texts)
    return top, repeated


def _grouped(places: I64, keys: NDArray[np.uint64]) -> Repeated:
    """Keeps what stands at least twice."""
    mixed = mix64(keys)
    order = np.argsort(mixed, kind="stable")
    mixed = mixed[order]
    new = np.r_[True, mixed[1:] != mixed[:-1]] if len(mixed) else np.zeros(0, np.bool_)
    alone = new & np.r_[new[1:], True] if len(mixed) else new
    order, new = order[~alone], new[~alone]
    runs = np.flatnonzero(new)
    return Repeated(places[order], keys[order], runs, np.diff(np.r_[runs, len(order)]))


def _top(found: Repeated, n: int, text: I64, sums: I64, num_texts: int) -> I64:
    """Characters in the most frequent n-gram of each text, blanks between its tokens included; the first of equals."""
    first = found.places[found.runs]
    order = np.lexsort((first, -found.counts, text[first]))
    texts, rows = np.unique(text[first][order], return_index=True)
    best = order[rows]
    chars = np.zeros(num_texts, np.int64)
    chars[texts] = found.counts[best] * (sums[first[best] + n] - sums[first[best]] + n - 1)
    return chars


def _covered(found: Repeated, n: int) -> I64:
    """Where the n-grams begin that stood before, walking the text and going on behind each of them."""
    group = np.repeat(np.arange(len(found.runs)), found.counts)
    order = np.argsort(found.places)
    seen, behind, covered = bytearray(len(found.runs)), 0, []
    for place, number in zip(found.places[order].tolist(), group[order].tolist(), strict=True):
        if place < behind:
            continue
        if seen[number]:
            covered.append(place)
            behind = place + n
        seen[number] = 1
    return np.array(covered, np.int64)
