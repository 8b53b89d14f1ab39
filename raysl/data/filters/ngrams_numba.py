"""Repeated runs of tokens, compiled: same results as ngrams.py."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysl.data.filters.measures import LONGEST_TOP, REPEATED_NGRAMS, TOP_NGRAMS
from raysl.data.filters.measures_numba import BASE, mix64
from raysl.kernels import compiled

I64 = NDArray[np.int64]
NUM_TOP, FIRST_REPEATED, LAST_REPEATED = len(TOP_NGRAMS), REPEATED_NGRAMS[0], REPEATED_NGRAMS[-1]


@compiled
def ngram_chars(hashes: Any, chars: Any, starts: I64) -> tuple[I64, I64]:
    """Characters in the top n-grams (texts, 3) and in repeated ones (texts, 6) of each text."""
    n = len(starts) - 1
    top, repeated = np.zeros((n, NUM_TOP), np.int64), np.zeros((n, LAST_REPEATED - FIRST_REPEATED + 1), np.int64)
    longest = 1
    for d in range(n):
        longest = max(longest, starts[d + 1] - starts[d])
    room = 16
    while room < 2 * longest:
        room *= 2
    keys, marks, slots = np.empty(room, np.uint64), np.full(room, -1, np.int64), np.empty(room, np.int32)
    places, group = np.empty(longest, np.int32), np.empty(longest, np.int32)
    counts, firsts, seen = np.empty(longest, np.int32), np.empty(longest, np.int32), np.zeros(longest, np.int64)
    mark = 0
    for d in range(n):
        start, size = starts[d], starts[d + 1] - starts[d]
        num = max(size - 1, 0)
        for i in range(num):
            places[i] = i
        for length in range(2, LAST_REPEATED + 1):
            mark += 1
            mask = 15
            while mask + 1 < 2 * num:
                mask = 2 * mask + 1
            num_groups = 0
            for p in range(num):
                i = places[p]
                if length == 2:
                    key = mix64(hashes[start + i] * BASE + hashes[start + i + 1])
                else:
                    key = mix64((np.uint64(group[i]) << np.uint64(32)) | np.uint64(group[i + 1]))
                slot = np.int64(key & np.uint64(mask))
                while marks[slot] == mark and keys[slot] != key:
                    slot = (slot + 1) & mask
                if marks[slot] != mark:
                    marks[slot], keys[slot], slots[slot] = mark, key, num_groups
                    counts[num_groups], firsts[num_groups] = 0, i
                    num_groups += 1
                counts[slots[slot]] += 1
                group[i] = slots[slot]
            if length <= LONGEST_TOP:
                top[d, length - 2] = _top(chars, start, length, counts, firsts, num_groups)
            num = _repeated(places, group, counts, num)
            if length >= FIRST_REPEATED:
                repeated[d, length - FIRST_REPEATED] = _covered(chars, start, length, places, group, seen, mark, num)
            num = _longer(places, group, num)
            if num == 0:
                break
    return top, repeated


@compiled
def _top(chars: Any, start: int, length: int, counts: Any, firsts: Any, num_groups: int) -> int:
    best, place = 1, -1
    for g in range(num_groups):
        if counts[g] > best:
            best, place = counts[g], firsts[g]
    if place < 0:
        return 0
    size = length - 1
    for k in range(length):
        size += chars[start + place + k]
    return size * best


@compiled
def _repeated(places: Any, group: Any, counts: Any, num: int) -> int:
    """Leaves the places whose n-gram stands at least twice."""
    left = 0
    for p in range(num):
        if counts[group[places[p]]] > 1:
            places[left] = places[p]
            left += 1
    return left


@compiled
def _longer(places: Any, group: Any, num: int) -> int:
    """Leaves the places behind which another one follows at once: only there can a longer n-gram repeat."""
    left = 0
    for p in range(num - 1):
        if places[p + 1] == places[p] + 1:
            places[left] = places[p]
            left += 1
    return left


@compiled
def _covered(chars: Any, start: int, length: int, places: Any, group: Any, seen: Any, mark: int, num: int) -> int:
    """Walks the text: an n-gram that stood before counts, and the walk goes on behind it."""
    total, behind = 0, 0
    for p in range(num):
        i = places[p]
        if i < behind:
            continue
        if seen[group[i]] != mark:
            seen[group[i]] = mark
            continue
        for k in range(length):
            total += chars[start + i + k]
        behind = i + length
    return total
