"""Near-duplicates among 64-bit hashes: every pair within a Hamming distance, found by banding, then checked exactly.

Of two hashes that differ in at most d bits, one of d + 1 bands is equal (pigeonhole), so none is missed. Memory is
bounded by the number of hashes, however many pairs there are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
MAX_EDGES = 4_000_000
"""Pairs that are held before they are reduced to a forest."""


@dataclass(frozen=True)
class Twins:
    """What became of each row, by its number."""

    kept: Ints
    """Row of the kept one that stands for this one; -1 for kept rows."""
    distance: Ints
    """Bits in which their hashes differ; 0 for kept rows and for equal content without hashes."""
    cluster: Ints
    """First row of the component of near-duplicates."""

    @property
    def removed(self) -> Ints:
        return np.flatnonzero(self.kept >= 0)


def find_twins(hashes: Hashes, known: npt.NDArray[np.bool_], digests: Sequence[bytes], max_distance: int | None) -> Twins:
    """Decides row by row, in order: a row goes only if a kept one before it lies within `max_distance`.

    The nearest kept one stands for it, the first of equally near ones. Rows without a hash (`known` False), and all rows
    where `max_distance` is None, go only for equal digests.
    """
    compared = known if max_distance is not None else np.zeros(len(hashes), np.bool_)
    node_of = _nodes(hashes, compared, digests)
    nodes, first_rows = np.unique(node_of, return_index=True)  # a node is numbered by its first row's turn
    own = compared[first_rows]
    kept, distance, cluster = nodes.copy(), np.zeros(len(nodes), np.int64), nodes.copy()
    if max_distance is not None:
        places = nodes[own]
        found_kept, distance[own], roots = resolve(hashes[first_rows[own]], max_distance)
        kept[own], cluster[own] = places[found_kept], places[roots]
    kept_rows = first_rows[kept][node_of]
    return Twins(
        np.where(kept_rows == np.arange(len(hashes)), -1, kept_rows), distance[node_of], first_rows[cluster][node_of]
    )


def _nodes(hashes: Hashes, compared: npt.NDArray[np.bool_], digests: Sequence[bytes]) -> Ints:
    """Rows of equal hash (or equal digest, where the hash does not count) as one node, numbered in the order of the rows."""
    numbers: dict[int | bytes, int] = {}
    keys = (int(value) if by_hash else name for value, by_hash, name in zip(hashes, compared, digests, strict=True))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def resolve(hashes: Hashes, max_distance: int) -> tuple[Ints, Ints, Ints]:
    """For each of different hashes, in order: the kept one that stands for it (or itself), their distance, its root."""
    roots = components(hashes, max_distance)
    kept, distance = np.arange(len(hashes)), np.zeros(len(hashes), np.int64)
    order = np.argsort(roots, kind="stable")
    bounds = np.r_[0, np.flatnonzero(np.diff(roots[order])) + 1, len(order)]
    for start in np.flatnonzero(np.diff(bounds) > 1):
        members = order[bounds[start] : bounds[start + 1]]
        nearest, distance[members] = _greedy(hashes[members], max_distance)
        kept[members] = members[nearest]
    return kept, distance, roots


def _greedy(hashes: Hashes, max_distance: int) -> tuple[Ints, Ints]:
    """In order: the place of the nearest kept one within the distance, else its own; and that distance."""
    kept, distance = np.arange(len(hashes)), np.zeros(len(hashes), np.int64)
    standing, places, count = np.empty_like(hashes), np.empty_like(kept), 0
    for place, value in enumerate(hashes):
        bits = np.bitwise_count(standing[:count] ^ value)
        nearest = int(bits.argmin()) if count else -1
        if count and bits[nearest] <= max_distance:
            kept[place], distance[place] = places[nearest], bits[nearest]
        else:
            standing[count], places[count], count = value, place, count + 1
    return kept, distance


def components(hashes: Hashes, max_distance: int) -> Ints:
    """For each hash the first one of its component: hashes linked by pairs within the distance."""
    n = len(hashes)
    edges: list[tuple[Ints, Ints]] = []
    count, roots = 0, np.arange(n)
    for pair in pairs(hashes, max_distance):
        edges.append(pair)
        count += len(pair[0])
        if count > MAX_EDGES:
            roots = _roots(edges, n)
            edges = [(np.arange(n), roots)]
            count = n
    return _roots(edges, n) if edges else roots


def _roots(edges: Sequence[tuple[Ints, Ints]], n: int) -> Ints:
    left, right = (np.concatenate(side) for side in zip(*edges, strict=True))
    _, labels = connected_components(coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(n, n)), directed=False)
    _, first = np.unique(labels, return_index=True)
    roots: Ints = first[labels].astype(np.int64)
    return roots


def pairs(hashes: Hashes, max_distance: int) -> Iterator[tuple[Ints, Ints]]:
    """Yields every pair of places whose hashes differ in at most `max_distance` bits, each at least once."""
    for mask in band_masks(max_distance + 1):
        values = hashes & mask
        order = np.argsort(values, kind="stable")
        bucket = np.r_[0, np.cumsum(np.diff(values[order]) > 0)] if len(order) else np.zeros(0, np.int64)
        ends = np.searchsorted(bucket, bucket, side="right")
        starts, lag = np.arange(len(order)), 1
        while len(starts := starts[starts + lag < ends[starts]]):
            left, right = order[starts], order[starts + lag]
            near = np.bitwise_count(hashes[left] ^ hashes[right]) <= max_distance
            if near.any():
                yield left[near], right[near]
            lag += 1


def band_masks(num_bands: int) -> list[np.uint64]:
    """Every bit in one band; neighbouring frequencies, which are alike, in different ones."""
    return [np.uint64(sum(1 << bit for bit in range(band, 64, num_bands))) for band in range(num_bands)]
