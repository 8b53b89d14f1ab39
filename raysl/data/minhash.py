"""Near-duplicate removal by MinHash and banding with an exact check (Broder 1997; Leskovec et al., ch. 3).

A plain library: texts in, the kept document of every removed one out. `prepare` runs the same functions inside Ray Data.

Guarantees: a document is removed only if a kept document has a Jaccard index of word shingles >= threshold with it,
measured exactly (up to 64-bit hash collisions); the first document in order is kept; clusters are the connected
components of all pairs that were checked and hold. Cost: 8 bytes a word for the shingles, 12 bytes a band of a document.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysl.data.minhash_words import character_table
from raysl.kernels import has_numba

NUM_PERMUTATIONS = 120
RECALL = 0.999
"""Share of the pairs at the threshold that the default bands make candidates."""
MAX_CHECKS = 2000
"""Exact comparisons for one document at most, so that a million variants of one template end in time."""
FEW_PAIRS = 300_000
"""Pairs of documents in common buckets up to which numpy resolves them in a second or two."""
CHUNK_BYTES = {True: 4 << 20, False: 192 << 10}
"""Text of one call of the kernels: compiled ones work in place, numpy's intermediate arrays should fit a core's cache."""
BAND_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Shingles:
    """Hashes of the shingles of many texts (with repeats): those of text i are hashes[starts[i]:stops[i]]."""

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """What became of each document, by its row number."""

    kept: NDArray[np.int64]
    """Row of the kept document that stands for this one; -1 for kept documents."""
    jaccard: NDArray[np.float64]
    """Exact Jaccard index with that document; 0 for kept documents."""
    cluster: NDArray[np.int64]
    """Row of the first document of the cluster."""
    num_capped: int
    """Documents for which MAX_CHECKS ended the search."""

    @property
    def removed(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.kept >= 0)


def deduplicate(texts: pa.Array | pa.ChunkedArray, threshold: float = 0.8, ngram: int = 5, num_bands: int = 24,
                rows_per_band: int = 5, seed: int = 1, compiled: bool = True) -> Duplicates:  # fmt: skip
    """Finds the near-duplicates among `texts`; needs about one and a half times the memory of the text."""
    parts, keys = [], []
    for chunk in chunks(texts, compiled):
        hashes, starts = shingle_hashes(chunk, ngram, compiled)
        signature = signatures(hashes, starts, num_bands * rows_per_band, seed, compiled)
        keys.append(band_keys(signature, num_bands, rows_per_band))
        parts.append((hashes, starts))
    if not parts:
        empty = np.zeros(0, np.int64)
        return Duplicates(empty, np.zeros(0), empty, 0)
    return find_duplicates(np.concatenate(keys), lambda rows: selected(parts, rows), threshold, compiled=compiled)


def selected(parts: Sequence[tuple[NDArray[np.uint64], NDArray[np.int64]]], rows: NDArray[np.int64]) -> Shingles:
    """The shingles of some (sorted) texts; `parts` are the hashes of many and where each text's begin."""
    found, first = [np.zeros(0, np.uint64)], 0
    for hashes, starts in parts:
        own = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + len(starts) - 1)] - first
        found += [hashes[start:stop] for start, stop in zip(starts[own].tolist(), starts[own + 1].tolist(), strict=True)]
        first += len(starts) - 1
    stops = np.cumsum([len(one) for one in found])
    return Shingles(np.concatenate(found), stops[:-1], stops[1:])


def joined(parts: list[tuple[NDArray[np.uint64], NDArray[np.int64]]]) -> Shingles:
    sizes = np.cumsum([0, *(len(hashes) for hashes, _ in parts)])
    starts = np.concatenate([first[:-1] + size for (_, first), size in zip(parts, sizes, strict=False)])
    stops = np.concatenate([first[1:] + size for (_, first), size in zip(parts, sizes, strict=False)])
    return Shingles(np.concatenate([hashes for hashes, _ in parts]), starts, stops)


def chunks(texts: pa.Array | pa.ChunkedArray, compiled: bool = True) -> list[pa.Array]:
    """Arrays of about CHUNK_BYTES (one text may be longer)."""
    arrays = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    found = []
    for array in arrays:
        if not len(array):
            continue
        step = max(1, int(len(array) * CHUNK_BYTES[compiled] / max(array.nbytes, 1)))
        found += [array.slice(start, step) for start in range(0, len(array), step)]
    return found


@cache
def kernels(compiled: bool = True) -> ModuleType:
    """The compiled kernels where they are wanted and numba is installed, the numpy ones otherwise: same results."""
    return importlib.import_module(f"raysl.data.minhash_{'numba' if compiled and has_numba() else 'numpy'}")


def shingle_hashes(texts: pa.Array, ngram: int, compiled: bool = True) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the word `ngram`s of each text and where each text's begin (one more than there are texts).

    A text of fewer words is one shingle of all of them, a text without words one of all its characters.
    """
    if pa.types.is_large_string(texts.type):
        offset_type: type = np.int64
    else:
        texts, offset_type = texts.cast(pa.string()), np.int32
    _, offsets, data = texts.fill_null("").buffers() if texts.null_count else texts.buffers()
    bounds = np.frombuffer(offsets, offset_type)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    raw = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8)
    found: tuple[NDArray[np.uint64], NDArray[np.int64]]
    found = kernels(compiled).shingle_hashes(raw, bounds, ngram, character_table())
    return found


@cache
def permutations(num: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Factors (odd) and summands of h -> a * h + b mod 2^32; the same as datasketch's affine32 for equal seeds."""
    random = np.random.RandomState(seed)
    a = random.randint(0, 1 << 31, num, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return a, random.randint(0, 1 << 32, num, dtype=np.uint32)


def signatures(hashes: NDArray[np.uint64], starts: NDArray[np.int64], num: int = NUM_PERMUTATIONS,
               seed: int = 1, compiled: bool = True) -> NDArray[np.uint32]:  # fmt: skip
    """MinHash signatures, (texts, num)."""
    found: NDArray[np.uint32] = kernels(compiled).signatures(hashes, starts, *permutations(num, seed))
    return found


def band_keys(signature: NDArray[np.uint32], num_bands: int, rows_per_band: int) -> NDArray[np.uint64]:
    """One 64-bit key for each band, (texts, bands); equal keys of two texts make them candidates."""
    bands = signature[:, : num_bands * rows_per_band].reshape(len(signature), num_bands, rows_per_band)
    keys = np.broadcast_to(np.arange(1, num_bands + 1, dtype=np.uint64), bands.shape[:2]).copy()
    for row in range(rows_per_band):
        keys *= BAND_BASE
        keys += bands[:, :, row]
        keys ^= keys >> np.uint64(29)
    return keys


def find_duplicates(keys: NDArray[np.uint64], shingles_of: Callable[[NDArray[np.int64]], Shingles], threshold: float,
                    fixed: int = 0, compiled: bool | None = None) -> Duplicates:  # fmt: skip
    """Decides document by document, in order; the first `fixed` ones (a kept corpus) stay whatever they resemble.

    `shingles_of(rows)` is asked once, for the few documents that share a band with another one. `compiled` says whether
    to use numba; by default it is used where it saves more time than loading it takes.
    """
    n = len(keys)
    documents, buckets, of_document, bucket_starts = _candidates(keys)
    kept, jaccard = np.full(n, -1, np.int64), np.zeros(n)
    cluster = np.arange(n)
    if not len(documents):
        return Duplicates(kept, jaccard, cluster, 0)
    shingles = shingles_of(documents)
    if compiled is None:
        compiled = bool((np.diff(bucket_starts) ** 2).sum() > FEW_PAIRS)
    kept_of, found_jaccard, roots, num_capped = kernels(compiled).resolve(
        buckets, bucket_starts, of_document, shingles.hashes, shingles.starts, shingles.stops,
        int(np.searchsorted(documents, fixed)), threshold, MAX_CHECKS,
    )  # fmt: skip
    kept[documents] = np.where(kept_of >= 0, documents[kept_of], -1)
    jaccard[documents] = found_jaccard
    cluster[documents] = documents[roots]
    return Duplicates(kept, jaccard, cluster, int(num_capped))


def _candidates(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], ...]:
    """Documents that share a key with another one, and their buckets, document by document.

    Band by band, because more than nine keys of ten are alone. Returns document rows, buckets, where each document's
    buckets begin, and where each bucket's members would begin.
    """
    rows, numbers, count = [], [], 0
    for band in range(keys.shape[1] if len(keys) else 0):
        column = np.ascontiguousarray(keys[:, band])
        order = np.argsort(column)  # the order among equal keys does not matter
        equal = column[order[1:]] == column[order[:-1]]
        member = np.r_[equal, False] | np.r_[False, equal]
        first = member & ~np.r_[False, equal]
        number = np.cumsum(first)[member] + count - 1
        count += int(first.sum())
        rows.append(order[member])
        numbers.append(number)
    if not count:
        empty = np.zeros(0, np.int64)
        return empty, empty, empty, np.zeros(1, np.int64)
    row, bucket, count = _different(np.concatenate(rows), np.concatenate(numbers), count)
    order = np.argsort(row, kind="stable")  # within a document by band
    documents, first_of = np.unique(row[order], return_index=True)
    bucket_starts = np.r_[0, np.cumsum(np.bincount(bucket, minlength=count))]
    return documents, bucket[order], np.r_[first_of, len(row)], bucket_starts


def _different(row: NDArray[np.int64], bucket: NDArray[np.int64], count: int
               ) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:  # fmt: skip
    """Leaves out buckets with the same members as an earlier one: near-copies meet in nearly all bands."""
    weight = (row.astype(np.uint64) + np.uint64(1)) * BAND_BASE
    weight = (weight ^ (weight >> np.uint64(29))) * BAND_BASE
    members = np.add.reduceat(weight ^ (weight >> np.uint64(32)), np.searchsorted(bucket, np.arange(count)))
    keep = np.zeros(count, np.bool_)
    keep[np.unique(members, return_index=True)[1]] = True
    number = np.cumsum(keep) - 1
    chosen = keep[bucket]
    return row[chosen], number[bucket[chosen]], int(keep.sum())


@cache
def lsh_parameters(threshold: float, num_permutations: int = NUM_PERMUTATIONS) -> tuple[int, int]:
    """Bands and rows for a threshold: as many rows as leave RECALL of the pairs at the threshold in a common bucket.

    A pair of Jaccard index j shares a band with probability 1 - (1 - j^rows)^bands. More rows leave fewer candidates to
    check, and the exact check follows, so precision does not depend on them. 0.8 -> 24 bands of 5 rows, which find .99993.
    """
    for rows in range(num_permutations, 1, -1):
        bands = num_permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= RECALL:
            return bands, rows
    return num_permutations, 1
