"""The kernels of minhash.py without a compiler: the same results as minhash_numba.py, for machines without numba."""

from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysl.data.minhash_words import ALONE, TABLE_SIZE, character_table

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

BASE = 0x9E3779B97F4A7C15
PIECE = np.array([2 ** (8 * size) - 1 for size in range(9)], np.uint64)
"""Masks of the first bytes of a piece."""
BLOCK = 1 << 16
"""Shingles whose hashes stay in a core's cache while all permutations pass over them."""


def mix64(h: U64) -> U64:
    h = h ^ (h >> np.uint64(33))
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    h ^= h >> np.uint64(33)
    return h


@cache
def _powers(base: int, size: int) -> U64:
    """base^0 .. base^(size - 1) mod 2^64."""
    factors = np.full(size, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _words(data: NDArray[np.uint8], bounds: I64, table: U32) -> tuple[U64, I64]:
    """Hashes of all words and, for each text, where its words begin (one more than there are texts)."""
    part, bounds = data[bounds[0] : bounds[-1]], bounds - bounds[0]
    plain = np.frombuffer(bytearray(part).translate(_ascii_table()), np.uint8)
    leads = np.flatnonzero(part >= 0xC0)
    alone = _write_others(plain, part, leads, table) if len(leads) else leads
    inside = plain != 0
    changes = inside[1:] != inside[:-1]
    changes[alone[(alone > 0) & (alone < len(plain))] - 1] = True
    first, last = inside.copy(), inside
    inner = bounds[1:-1][(bounds[1:-1] > 0) & (bounds[1:-1] < len(plain))]
    changes[inner - 1] = True
    first[1:] &= changes
    last[:-1] &= changes
    begin, end = np.flatnonzero(first), np.flatnonzero(last)
    return piece_hashes(plain, begin, end + 1), np.searchsorted(begin, bounds)


@cache
def _ascii_table() -> bytes:
    """The lower-cased byte of each byte of a word, 0 for what breaks one and for bytes of longer characters."""
    return character_table()[:128].astype(np.uint8).tobytes() + bytes(128)


def _write_others(plain: NDArray[np.uint8], part: NDArray[np.uint8], leads: I64, table: U32) -> I64:
    """Writes the characters of more than one byte into `plain`; returns where those that stand alone begin and end."""
    cuts: list[I64] = [np.zeros(0, np.int64)]
    for width, low, high in ((2, 0xC0, 0xE0), (3, 0xE0, 0xF0), (4, 0xF0, 0x100)):
        own = leads[(part[leads] >= low) & (part[leads] < high)]
        points: U32 = (part[own] & (0x7F >> width)).astype(np.uint32)
        for place in range(1, width):
            points = (points << np.uint32(6)) | (part[own + place] & 0x3F).astype(np.uint32)
        codes: U32 = np.where(points < TABLE_SIZE, table[np.minimum(points, TABLE_SIZE - 1)], points | np.uint32(ALONE))
        alone = own[codes >= ALONE]
        cuts += [alone, alone + width]
        own, codes = own[codes != 0], codes[codes != 0]
        for place in range(width - 1, 0, -1):  # a small letter has as many bytes as the capital
            plain[own + place] = (codes & 0x3F) | 0x80
            codes = (codes & np.uint32(ALONE - 1)) >> np.uint32(6)
        plain[own] = codes | low
    return np.concatenate(cuts)


def piece_hashes(data: NDArray[np.uint8], begin: I64, stop: I64) -> U64:
    """Hash of each data[begin:stop]: its bytes in pieces of eight, the last one filled with zeros, as a polynomial."""
    padded = np.zeros(len(data) + 8, np.uint8)
    padded[: len(data)] = data
    eights = np.ndarray((len(data) + 1,), "V8", buffer=padded, strides=(1,))  # at every byte; gathering it costs 3 ns
    sizes = stop - begin
    h = np.take(eights, begin).view(np.uint64) & np.take(PIECE, np.minimum(sizes, 8))
    rows = np.flatnonzero(sizes > 8)
    if len(rows):  # the further pieces of the longer ones, all in one row
        begin, sizes = begin[rows] + 8, sizes[rows] - 8
        counts = (sizes + 7) >> 3
        firsts = np.cumsum(counts) - counts
        place = np.arange(firsts[-1] + counts[-1]) - np.repeat(firsts, counts)
        pieces = np.take(eights, np.repeat(begin, counts) + 8 * place).view(np.uint64)
        pieces[firsts + counts - 1] &= PIECE[sizes - 8 * counts + 8]
        powers = _powers(BASE, _power_size(int(counts.max())))
        pieces *= powers[np.repeat(counts, counts) - place - 1]
        h[rows] = h[rows] * powers[counts] + np.add.reduceat(pieces, firsts)
    return mix64(h)


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


def shingle_hashes(data: NDArray[np.uint8], offsets: I64, ngram: int, table: U32) -> tuple[U64, I64]:
    words, starts = _words(data, offsets, table)
    counts = np.diff(starts)
    for empty in np.flatnonzero(counts == 0)[::-1]:  # a text without words: all its characters are one
        words = np.insert(words, starts[empty], _content_hash(data[offsets[empty] : offsets[empty + 1]]))
        starts[empty + 1 :] += 1
        counts[empty] = 1
    sizes = np.maximum(counts - ngram + 1, 1)
    out_starts = np.r_[0, np.cumsum(sizes)]
    full = _full_shingles(words, starts, ngram)
    if len(full) == out_starts[-1]:
        return full, out_starts
    out = np.empty(out_starts[-1], np.uint64)
    out[np.repeat(counts >= ngram, sizes)] = full
    for width in range(1, ngram):
        short = np.flatnonzero(counts == width)
        h = np.full(len(short), width, np.uint64)
        for w in range(width):
            h = h * np.uint64(BASE) + words[starts[short] + w]
        out[out_starts[short]] = mix64(h)
    return out, out_starts


def _full_shingles(words: U64, starts: I64, ngram: int) -> U64:
    """Hashes of all `ngram` words in a row that lie in one text."""
    h = np.full(max(len(words) - ngram + 1, 0), ngram, np.uint64)
    for w in range(ngram):
        h *= np.uint64(BASE)
        h += words[w : w + len(h)]
    inside = np.ones(len(words), np.bool_)
    for w in range(1, ngram):
        inside[np.maximum(starts[1:] - w, 0)] = False
    return mix64(h[inside[: len(h)]])


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
    sets = _sets(hashes, starts, stops)
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
        if best < 0:
            for b in own:
                kept[b].append(d)
            continue
        own_cluster: dict[int, bool] = {}
        for b in own:
            removed[b].append(d)
            top = removed[b][0]
            if top not in own_cluster:  # most buckets of a document begin with the same one
                own_cluster[top] = forest.root(top) == forest.root(d)
            mixed[b] = mixed[b] or not own_cluster[top]
    return kept_of, jaccards, np.array([forest.root(d) for d in range(n)], np.int64), capped


def _sets(hashes: U64, starts: I64, stops: I64) -> list[U64]:
    """The different hashes of each text, sorted."""
    found = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        own = np.sort(hashes[start:stop])
        different = np.ones(len(own), np.bool_)
        np.not_equal(own[1:], own[:-1], out=different[1:])
        found.append(own if different.all() else own[different])
    return found


def _num_shared(a: U64, b: U64) -> int:
    """Of two sorted sets; four times as fast as np.intersect1d on short ones."""
    places = b.searchsorted(a)
    places[places == len(b)] = 0
    return int(np.count_nonzero(b[places] == a))


def _comparable(d: int, own: list[int], kept: list[list[int]], removed: list[list[int]], mixed: list[bool],
                forest: _Forest, seen: set[int]) -> Iterator[tuple[int, bool]]:  # fmt: skip
    """Earlier documents to compare with: all kept ones, then the removed ones that are not in the same cluster yet."""
    for e in dict.fromkeys(chain.from_iterable([kept[b] for b in own])):
        yield e, True
    joined = set[int]()
    for b in own:
        if not removed[b] or (not mixed[b] and removed[b][0] in joined):
            continue
        if not mixed[b] and forest.root(removed[b][0]) == forest.root(d):
            joined.add(removed[b][0])
            continue
        for e in reversed(removed[b]):
            if e not in seen and forest.root(e) != forest.root(d):
                yield e, False
