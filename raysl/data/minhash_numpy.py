"""The kernels of minhash.py without a compiler: the same results as minhash_numba.py, for machines without numba."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysl.data.minhash_words import ALONE, TABLE_SIZE

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]

BASE = 0x9E3779B97F4A7C15
BLOCK = 1 << 15
"""Shingles whose hashes stay in a core's cache while all permutations pass over them."""


def mix64(h: U64) -> U64:
    h = h ^ (h >> np.uint64(33))
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@cache
def _powers(base: int, size: int) -> U64:
    """base^0 .. base^(size - 1) mod 2^64."""
    factors = np.full(size, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _words(data: NDArray[np.uint8], bounds: I64, table: U32) -> tuple[U64, I64]:
    """Hashes of all words and, for each text, where its words begin (one more than there are texts)."""
    codes, bounds = _codes(data, bounds, table)
    alone = codes >= ALONE
    first = (codes != 0) & np.r_[True, (codes[:-1] == 0) | alone[:-1] | alone[1:]]
    last = (codes != 0) & np.r_[(codes[1:] == 0) | alone[:-1] | alone[1:], True]
    inner = bounds[1:-1][(bounds[1:-1] > 0) & (bounds[1:-1] < len(codes))]
    first[inner] = codes[inner] != 0
    last[inner - 1] = codes[inner - 1] != 0
    begin, end = np.flatnonzero(first), np.flatnonzero(last)
    return run_hashes(codes, begin, end), np.searchsorted(begin, bounds)


def run_hashes(codes: Any, begin: I64, end: I64) -> U64:
    """Hash of each run codes[begin:end + 1]: a polynomial, so that differences of one running sum give all of them."""
    return hashes_between(running_sums(codes), begin, end)


def running_sums(codes: Any) -> U64:
    """What `hashes_between` needs of the codes, for any number of calls."""
    inverse = _powers(pow(BASE, -1, 1 << 64), _power_size(len(codes)))
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * inverse[: len(codes)], out=sums[1:])
    return sums


def hashes_between(sums: U64, begin: I64, end: I64) -> U64:
    return mix64((sums[end + 1] - sums[begin]) * _powers(BASE, _power_size(len(sums) - 1))[end])


def _power_size(num_codes: int) -> int:
    return 1 << max(10, num_codes.bit_length())


def _codes(data: NDArray[np.uint8], bounds: I64, table: U32) -> tuple[U32, I64]:
    """The table's entry for every character, and the bounds counted in characters."""
    part, bounds = data[bounds[0] : bounds[-1]], bounds - bounds[0]
    if not len(part) or int(part.max()) < 128:
        return table[part], bounds
    lead = (part & 0xC0) != 0x80
    points = np.frombuffer(part.tobytes().decode("utf-8").encode("utf-32-le"), np.uint32)
    codes = np.where(points < TABLE_SIZE, table[np.minimum(points, TABLE_SIZE - 1)], points | np.uint32(ALONE))
    return codes, np.r_[0, np.cumsum(lead)][bounds]


def shingle_hashes(data: NDArray[np.uint8], offsets: I64, ngram: int, table: U32) -> tuple[U64, I64]:
    words, starts = _words(data, offsets, table)
    counts = np.diff(starts)
    for empty in np.flatnonzero(counts == 0)[::-1]:  # a text without words: all its characters are one
        words = np.insert(words, starts[empty], _content_hash(data[offsets[empty] : offsets[empty + 1]]))
        starts[empty + 1 :] += 1
        counts[empty] = 1
    sizes = np.maximum(counts - ngram + 1, 1)
    out_starts = np.r_[0, np.cumsum(sizes)]
    out = np.empty(out_starts[-1], np.uint64)
    for width in range(1, ngram + 1):
        chosen = np.flatnonzero(counts >= ngram if width == ngram else counts == width)
        if not len(chosen):
            continue
        where, begin = _ranges(out_starts[chosen], sizes[chosen]), _ranges(starts[chosen], sizes[chosen])
        h = np.full(len(begin), width, np.uint64)
        for w in range(width):
            h *= np.uint64(BASE)
            h += words[begin + w]
        out[where] = mix64(h)
    return out, out_starts


def _ranges(firsts: I64, sizes: I64) -> I64:
    """firsts[0], firsts[0] + 1, ... up to sizes[0] numbers, then the same for the next."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1]) + np.repeat(firsts - ends + sizes, sizes)


def _content_hash(data: NDArray[np.uint8]) -> np.uint64:
    h = 1
    for byte in data[data > 32].tolist():
        h = (h * BASE + byte) & (2**64 - 1)
    return np.uint64(mix64(np.array([h], np.uint64))[0])


def signatures(hashes: U64, starts: I64, a: U32, b: U32) -> U32:
    out = np.empty((len(starts) - 1, len(a)), np.uint32)
    for first, stop in _blocks(starts):
        low = _premixed(hashes[starts[first] : starts[stop]])
        bounds = starts[first:stop] - starts[first]
        buffer = np.empty_like(low)
        for k in range(len(a)):
            np.multiply(low, a[k], out=buffer)
            buffer += b[k]
            out[first:stop, k] = np.minimum.reduceat(buffer, bounds)
    return out


def _blocks(starts: I64) -> Iterator[tuple[int, int]]:
    first = 0
    while first < len(starts) - 1:
        stop = max(int(np.searchsorted(starts, starts[first] + BLOCK, side="right")) - 1, first + 1)
        yield first, stop
        first = stop


def _premixed(hashes: U64) -> U32:
    x = (hashes >> np.uint64(32)).astype(np.uint32)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


class _Forest:
    def __init__(self, size: int) -> None:
        self.parents = list(range(size))

    def root(self, x: int) -> int:
        parents = self.parents
        while parents[x] != x:
            parents[x] = parents[parents[x]]
            x = parents[x]
        return x

    def join(self, x: int, y: int) -> None:
        x, y = self.root(x), self.root(y)
        self.parents[max(x, y)] = min(x, y)


def resolve(buckets: I64, bucket_starts: I64, of_document: I64, hashes: U64, starts: I64, stops: I64, fixed: int,
            threshold: float, max_checks: int) -> tuple[I64, NDArray[Any], I64, int]:  # fmt: skip
    """See minhash_numba.resolve: the same walk, with Python lists for buckets and sorted arrays for sets."""
    n = len(starts)
    forest, capped = _Forest(n), 0
    kept_of, jaccards = np.full(n, -1, np.int64), np.zeros(n)
    kept: list[list[int]] = [[] for _ in range(len(bucket_starts) - 1)]
    removed: list[list[int]] = [[] for _ in range(len(bucket_starts) - 1)]
    mixed = [False] * len(kept)
    sets = [np.unique(hashes[start:stop]) for start, stop in zip(starts, stops, strict=True)]
    for d in range(n):
        own = buckets[of_document[d] : of_document[d + 1]].tolist()
        best, best_jaccard, seen = -1, 0.0, set[int]()
        checks = 0
        for e, is_kept in _comparable(d, own, kept, removed, mixed, forest, seen):
            if checks >= max_checks:
                break
            seen.add(e)
            small, large = sorted((len(sets[d]), len(sets[e])))
            if small < threshold * large:
                continue
            checks += 1
            common = _num_shared(sets[d], sets[e])
            jaccard = common / (small + large - common)
            if jaccard < threshold:
                continue
            forest.join(d, e)
            if is_kept and d >= fixed and (jaccard > best_jaccard or (jaccard == best_jaccard and e < best)):
                best, best_jaccard = e, jaccard
        capped += checks >= max_checks
        kept_of[d], jaccards[d] = best, best_jaccard
        for b in own:
            if best < 0:
                kept[b].append(d)
            else:
                removed[b].append(d)
                mixed[b] = mixed[b] or forest.root(removed[b][0]) != forest.root(d)
    return kept_of, jaccards, np.array([forest.root(d) for d in range(n)], np.int64), capped


def _num_shared(a: U64, b: U64) -> int:
    """Of two sorted sets; four times as fast as np.intersect1d on short ones."""
    places = b.searchsorted(a)
    places[places == len(b)] = 0
    return int(np.count_nonzero(b[places] == a))


def _comparable(d: int, own: list[int], kept: list[list[int]], removed: list[list[int]], mixed: list[bool],
                forest: _Forest, seen: set[int]) -> Iterator[tuple[int, bool]]:  # fmt: skip
    """Earlier documents to compare with: all kept ones, then the removed ones that are not in the same cluster yet."""
    for b in own:
        for e in kept[b]:
            if e not in seen:
                yield e, True
    for b in own:
        if removed[b] and not mixed[b] and forest.root(removed[b][0]) == forest.root(d):
            continue
        for e in reversed(removed[b]):
            if e not in seen and forest.root(e) != forest.root(d):
                yield e, False
