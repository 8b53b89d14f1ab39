"""The compiled kernels of minhash.py: same results as minhash_numpy.py, four to ten times as fast.

Compiled once per machine (about 10 s, kept in numba's cache); they release the GIL.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from raysl.data.minhash_words import ALONE, TABLE_SIZE
from raysl.kernels import compiled

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]

BASE = np.uint64(0x9E3779B97F4A7C15)
ALONE_FLAG = np.uint32(ALONE)


@compiled
def mix64(h: Any) -> Any:
    """Finalizer of MurmurHash3: every bit of the input moves every bit of the output."""
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@compiled
def word_hashes(data: Any, start: int, stop: int, table: U32, out: U64) -> int:
    """Hashes of the words of one UTF-8 text into `out`; returns how many.

    A word is taken in pieces of eight bytes of its lower-cased UTF-8, each multiplied in.
    """
    count, h, piece, size, inside, i = 0, np.uint64(0), np.uint64(0), np.uint64(0), False, start
    while i < stop:
        byte = data[i]
        if byte < 128:
            code = table[byte]
            i += 1
        else:
            if byte < 0xE0:
                point = ((byte & 0x1F) << 6) | (data[i + 1] & 0x3F)
                i += 2
            elif byte < 0xF0:
                point = ((byte & 0x0F) << 12) | ((data[i + 1] & 0x3F) << 6) | (data[i + 2] & 0x3F)
                i += 3
            else:
                point = (
                    ((byte & 0x07) << 18) | ((data[i + 1] & 0x3F) << 12) | ((data[i + 2] & 0x3F) << 6) | (data[i + 3] & 0x3F)
                )
                i += 4
            code = table[point] if point < TABLE_SIZE else np.uint32(point) | ALONE_FLAG
        if inside and (code == 0 or code >= ALONE_FLAG):
            out[count] = mix64(h * BASE + piece if size else h)
            count += 1
            h, piece, size, inside = np.uint64(0), np.uint64(0), np.uint64(0), False
        if code == 0:
            continue
        if code < 128:
            piece |= np.uint64(code) << (size << np.uint64(3))
            size += np.uint64(1)
            if size == 8:
                h, piece, size = h * BASE + piece, np.uint64(0), np.uint64(0)
            inside = True
            continue
        encoded, width = _utf8(code & ~ALONE_FLAG)
        if code >= ALONE_FLAG:
            out[count] = mix64(encoded)
            count += 1
            continue
        for _ in range(width):
            piece |= (encoded & np.uint64(0xFF)) << (size << np.uint64(3))
            encoded >>= np.uint64(8)
            size += np.uint64(1)
            if size == 8:
                h, piece, size = h * BASE + piece, np.uint64(0), np.uint64(0)
        inside = True
    if inside:
        out[count] = mix64(h * BASE + piece if size else h)
        count += 1
    return count


@compiled
def _utf8(code: Any) -> tuple[Any, int]:
    """The UTF-8 bytes of a code point above 127, the first one lowest, and how many they are."""
    c = np.uint64(code)
    tail = np.uint64(0x80) | (c & np.uint64(0x3F))
    if c < 0x800:
        return (np.uint64(0xC0) | (c >> np.uint64(6))) | (tail << np.uint64(8)), 2
    middle = np.uint64(0x80) | ((c >> np.uint64(6)) & np.uint64(0x3F))
    if c < 0x10000:
        lead = np.uint64(0xE0) | (c >> np.uint64(12))
        return lead | (middle << np.uint64(8)) | (tail << np.uint64(16)), 3
    upper = np.uint64(0x80) | ((c >> np.uint64(12)) & np.uint64(0x3F))
    lead = np.uint64(0xF0) | (c >> np.uint64(18))
    return lead | (upper << np.uint64(8)) | (middle << np.uint64(16)) | (tail << np.uint64(24)), 4


@compiled
def shingle_hashes(data: Any, offsets: Any, ngram: int, table: U32) -> tuple[U64, I64]:
    """Hashes of the shingles of every text, in order, and where each text's begin. Every text has at least one."""
    n = len(offsets) - 1
    longest = 0
    for d in range(n):
        longest = max(longest, offsets[d + 1] - offsets[d])
    words = np.empty(longest // 2 + 2, np.uint64)
    out = np.empty(n + (offsets[n] - offsets[0]) // 4, np.uint64)
    starts = np.zeros(n + 1, np.int64)
    count = 0
    for d in range(n):
        width = word_hashes(data, offsets[d], offsets[d + 1], table, words)
        if width == 0:
            words[0] = _content_hash(data, offsets[d], offsets[d + 1])
            width = 1
        num = max(width - ngram + 1, 1)
        width = min(ngram, width)
        if count + num > len(out):
            grown = np.empty(2 * len(out) + num, np.uint64)
            grown[:count] = out[:count]
            out = grown
        for s in range(num):
            h = np.uint64(width)
            for w in range(width):
                h = h * BASE + words[s + w]
            out[count + s] = mix64(h)
        count += num
        starts[d + 1] = count
    return out[:count].copy(), starts


@compiled
def _content_hash(data: Any, start: int, stop: int) -> Any:
    """For texts without a single word: all bytes that are no blanks."""
    h = np.uint64(1)
    for i in range(start, stop):
        if data[i] > 32:
            h = h * BASE + np.uint64(data[i])
    return mix64(h)


@compiled
def signatures(hashes: U64, starts: I64, a: U32, b: U32) -> U32:
    """Minimum of every permutation over the shingles of each text."""
    n, k = len(starts) - 1, len(a)
    out = np.full((n, k), np.uint32(0xFFFFFFFF), np.uint32)
    low = np.empty(4, np.uint32)
    for d in range(n):
        row = out[d]
        for s in range(starts[d], starts[d + 1], 4):
            for t in range(4):
                low[t] = _premixed(hashes[min(s + t, starts[d + 1] - 1)])
            h0, h1, h2, h3 = low[0], low[1], low[2], low[3]
            for j in range(k):
                v0 = min(np.uint32(a[j] * h0 + b[j]), np.uint32(a[j] * h1 + b[j]))
                v1 = min(np.uint32(a[j] * h2 + b[j]), np.uint32(a[j] * h3 + b[j]))
                row[j] = min(row[j], min(v0, v1))
    return out


@compiled
def _premixed(h: Any) -> Any:
    x = np.uint32(h >> np.uint64(32))
    x ^= x >> np.uint32(16)
    x = np.uint32(x * np.uint32(0x85EBCA6B))
    x ^= x >> np.uint32(13)
    x = np.uint32(x * np.uint32(0xC2B2AE35))
    return np.uint32(x ^ (x >> np.uint32(16)))


@compiled
def _fill(values: U64, marks: I64, hashes: Any, mark: int, mask: int) -> int:
    """Puts the hashes of one text into the set whose entries carry `mark`; returns how many are different."""
    size = 0
    for h in hashes:
        slot = np.int64(h & np.uint64(mask))
        while marks[slot] == mark and values[slot] != h:
            slot = (slot + 1) & mask
        if marks[slot] != mark:
            marks[slot] = mark
            values[slot] = h
            size += 1
    return size


@compiled
def _shared(values: U64, marks: I64, hits: I64, hashes: Any, mark: int, mask: int, hit: int) -> int:
    """How many different hashes of another text are in that set."""
    common = 0
    for h in hashes:
        slot = np.int64(h & np.uint64(mask))
        while marks[slot] == mark and values[slot] != h:
            slot = (slot + 1) & mask
        if marks[slot] == mark and hits[slot] != hit:
            hits[slot] = hit
            common += 1
    return common


@compiled
def _root(parents: I64, x: int) -> int:
    while parents[x] != x:
        parents[x] = parents[parents[x]]
        x = parents[x]
    return x


@compiled
def _join(parents: I64, x: int, y: int) -> None:
    x, y = _root(parents, x), _root(parents, y)
    parents[max(x, y)] = min(x, y)


@compiled
def _mask_for(num: int) -> int:
    size = 16
    while size < 2 * num:
        size *= 2
    return size - 1


@compiled
def resolve(
    buckets: I64, bucket_starts: I64, of_document: I64, hashes: U64, starts: I64, stops: I64, fixed: int, threshold: float,
    max_checks: int,
) -> tuple[I64, Any, I64, int]:  # fmt: skip
    """Decides document by document, in order: kept, or removed for the kept document that is nearest to it.

    `buckets` are the buckets of each document (`of_document` says where its own begin), `bucket_starts` the room of each.
    The first `fixed` documents are kept whatever they resemble. The list of a bucket holds its kept documents from the
    front and the removed ones from the back, so hot buckets are not walked twice.
    Returns the kept document or -1, the Jaccard index, the roots of the clusters, how many documents hit `max_checks`.
    """
    n = len(starts)
    kept_of, jaccards = np.full(n, -1, np.int64), np.zeros(n, np.float64)
    parents, seen, sizes = np.arange(n), np.full(n, -1, np.int64), np.zeros(n, np.int64)
    lists = np.empty(bucket_starts[-1], np.int64)
    num_kept, num_removed = np.zeros(len(bucket_starts) - 1, np.int64), np.zeros(len(bucket_starts) - 1, np.int64)
    mixed = np.zeros(len(bucket_starts) - 1, np.bool_)
    longest = 0
    for d in range(n):
        longest = max(longest, stops[d] - starts[d])
    room = _mask_for(longest) + 1
    values, marks, hits = np.empty(room, np.uint64), np.full(room, -1, np.int64), np.full(room, -1, np.int64)
    hit, capped = 0, 0
    for d in range(n):
        mask = _mask_for(stops[d] - starts[d])
        sizes[d] = _fill(values, marks, hashes[starts[d] : stops[d]], d, mask)
        checks = 0
        for removed in range(2):
            for p in range(of_document[d], of_document[d + 1]):
                b = buckets[p]
                first, num = bucket_starts[b], num_kept[b]
                if removed:
                    num = num_removed[b]
                    first = bucket_starts[b + 1] - num
                    if num and not mixed[b] and _root(parents, lists[bucket_starts[b + 1] - 1]) == _root(parents, d):
                        continue
                for q in range(first, first + num):
                    e = lists[q]
                    if seen[e] == d or checks >= max_checks or (removed and _root(parents, e) == _root(parents, d)):
                        continue
                    seen[e] = d
                    if min(sizes[d], sizes[e]) < threshold * max(sizes[d], sizes[e]):
                        continue
                    checks += 1
                    hit += 1
                    common = _shared(values, marks, hits, hashes[starts[e] : stops[e]], d, mask, hit)
                    jaccard = common / (sizes[d] + sizes[e] - common)
                    if jaccard < threshold:
                        continue
                    _join(parents, d, e)
                    if not removed and d >= fixed and (jaccard > jaccards[d] or (jaccard == jaccards[d] and e < kept_of[d])):
                        kept_of[d], jaccards[d] = e, jaccard
        capped += checks >= max_checks
        for p in range(of_document[d], of_document[d + 1]):
            b = buckets[p]
            if kept_of[d] < 0:
                lists[bucket_starts[b] + num_kept[b]] = d
                num_kept[b] += 1
                continue
            num_removed[b] += 1
            lists[bucket_starts[b + 1] - num_removed[b]] = d
            mixed[b] |= _root(parents, lists[bucket_starts[b + 1] - 1]) != _root(parents, d)
    for d in range(n):
        parents[d] = _root(parents, d)
    return kept_of, jaccards, parents, capped
