"""Near-duplicates by Hamming distance: hand-worked cases, and every pair found whatever the hashes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raysl.data import hamming
from raysl.data.hamming import find_twins, pairs

FAR = 0xFFFF_0000_FFFF_0000


def twins(*values: int, distance: int | None = 2, digests: str = "", known: str = "") -> hamming.Twins:
    hashes = np.array(values, np.uint64)
    names = [letter.encode() for letter in digests or "abcdefgh"[: len(values)]]
    flags = np.array([flag == "y" for flag in known or "y" * len(values)], np.bool_)
    return find_twins(hashes, flags, names, distance)


def test_the_first_stays_and_stands_for_what_lies_within_the_distance() -> None:
    found = twins(0b0000, 0b0011, 0b0111, FAR)
    assert found.kept.tolist() == [-1, 0, -1, -1]  # 0b0111 is 1 bit from the second, but that one is not kept
    assert found.distance.tolist() == [0, 2, 0, 0]
    assert found.cluster.tolist() == [0, 0, 0, 3]  # a chain goes into one split


def test_the_nearest_kept_one_is_named() -> None:
    found = twins(0b000000, 0b001111, 0b000111, distance=3)
    assert found.kept.tolist() == [-1, -1, 1]
    assert found.distance.tolist() == [0, 0, 1]


def test_of_equally_near_ones_the_first_is_named() -> None:
    assert twins(0b0000, 0b1111, 0b0011).kept.tolist() == [-1, -1, 0]


def test_equal_hashes_are_twins_at_distance_zero() -> None:
    assert twins(7, FAR, 7, 7, distance=0).kept.tolist() == [-1, -1, 0, 0]


def test_pictures_without_hash_go_only_for_equal_content() -> None:
    found = twins(0, 0, 0, 0, known="nnny", digests="abab")
    assert found.kept.tolist() == [-1, -1, 0, -1]
    assert found.cluster.tolist() == [0, 1, 0, 3]


def test_without_a_distance_only_equal_content_goes() -> None:
    assert twins(5, 5, 5, distance=None, digests="aba").kept.tolist() == [-1, -1, 0]


def test_nothing_comes_of_nothing() -> None:
    assert len(twins().kept) == 0


close_hashes = st.lists(
    st.tuples(st.sampled_from([0, FAR, 0x0F0F_F0F0_0F0F_F0F0]), st.sets(st.integers(0, 63), max_size=5)), max_size=40
)


def built(parts: list[tuple[int, set[int]]]) -> np.ndarray:
    return np.array([base ^ sum(1 << bit for bit in bits) for base, bits in parts], np.uint64)


def distances(hashes: np.ndarray) -> np.ndarray:
    return np.bitwise_count(hashes[:, None] ^ hashes[None]).astype(int)


@settings(max_examples=60)
@given(close_hashes, st.integers(0, 10))
def test_every_pair_within_the_distance_is_found_and_no_other(parts: list[tuple[int, set[int]]], distance: int) -> None:
    hashes = built(parts)
    found = {(min(a, b), max(a, b)) for left, right in pairs(hashes, distance) for a, b in zip(left, right, strict=True)}
    true = np.argwhere(np.triu(distances(hashes) <= distance, 1))
    assert found == {(a, b) for a, b in true.tolist()}


@settings(max_examples=60)
@given(close_hashes, st.integers(0, 8))
def test_who_goes_has_a_kept_twin_before_it_and_who_stays_has_none(parts: list[tuple[int, set[int]]], distance: int) -> None:
    hashes = built(parts)
    found = find_twins(hashes, np.ones(len(hashes), np.bool_), [b""] * len(hashes), distance)
    apart = distances(hashes)
    kept = np.flatnonzero(found.kept < 0)
    for row in range(len(hashes)):
        before = kept[kept < row]
        near = before[apart[row, before] <= distance]
        assert (found.kept[row] >= 0) == bool(len(near))
        if len(near):
            assert found.kept[row] in near
            assert found.distance[row] == apart[row, found.kept[row]]
    same = found.cluster[:, None] == found.cluster[None]
    assert same[apart <= distance].all()
    assert (found.cluster <= np.arange(len(hashes))).all()


def test_memory_is_bounded_where_all_are_alike(monkeypatch: object) -> None:
    """Many more pairs than are held at a time give the same components."""
    hashes = np.arange(256, dtype=np.uint64)  # every one within 8 bits of every other
    whole = hamming.components(hashes, 8)
    monkeypatch.setattr(hamming, "MAX_EDGES", 300)  # type: ignore[attr-defined]
    assert (hamming.components(hashes, 8) == whole).all()
    assert set(whole.tolist()) == {0}
