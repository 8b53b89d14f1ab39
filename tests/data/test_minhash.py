"""Near-duplicate removal against brute force, for the compiled and the numpy kernels alike."""

import json
import re
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from raysl.data import minhash
from raysl.data.minhash_words import words

BOTH = pytest.mark.parametrize("compiled", [True, False], ids=["numba", "numpy"])
WORDS = [f"w{i}" for i in range(12)]
MANY_BANDS = {"num_bands": 80, "rows_per_band": 1}  # every pair of the tests is a candidate


def shingles(text: str, ngram: int = 2) -> set[tuple[str, ...]]:
    found = re.findall(r"\w+", text.lower())
    return {tuple(found[i : i + ngram]) for i in range(max(1, len(found) - ngram + 1))}


def jaccard(a: str, b: str) -> float:
    x, y = shingles(a), shingles(b)
    return len(x & y) / len(x | y)


def brute_force(texts: list[str], threshold: float) -> tuple[list[int], list[float], list[int]]:
    """Kept document, Jaccard index and cluster by comparing all pairs."""
    kept, best, cluster = [-1] * len(texts), [0.0] * len(texts), list(range(len(texts)))
    for d in range(len(texts)):
        for e in range(d):
            value = jaccard(texts[d], texts[e])
            if value < threshold:
                continue
            low, high = sorted((cluster[d], cluster[e]))
            cluster = [low if c == high else c for c in cluster]
            if kept[e] < 0 and value > best[d]:
                kept[d], best[d] = e, value
    return kept, best, cluster


@st.composite
def corpora(draw: st.DrawFn) -> list[str]:
    """Texts of few words, many of them edits of an earlier one."""
    texts: list[str] = []
    for _ in range(draw(st.integers(2, 14))):
        if texts and draw(st.booleans()):
            found = draw(st.sampled_from(texts)).split()
            for _ in range(draw(st.integers(0, 2))):
                found[draw(st.integers(0, len(found) - 1))] = draw(st.sampled_from(WORDS))
        else:
            found = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=14))
        texts.append(" ".join(found))
    return texts


@BOTH
@settings(max_examples=60)
@given(texts=corpora(), threshold=st.sampled_from([0.4, 0.5, 0.7, 0.8, 1.0]))
def test_equals_comparing_all_pairs(compiled: bool, texts: list[str], threshold: float) -> None:
    found = minhash.deduplicate(pa.array(texts), threshold, ngram=2, compiled=compiled, **MANY_BANDS)
    kept, best, cluster = brute_force(texts, threshold)
    assert found.kept.tolist() == kept
    assert found.jaccard.tolist() == pytest.approx(best)
    assert found.cluster.tolist() == cluster


@settings(max_examples=60)
@given(texts=corpora())
def test_a_removed_document_has_a_kept_twin_before_it(texts: list[str]) -> None:
    found = minhash.deduplicate(pa.array(texts), 0.6, ngram=2, num_bands=20, rows_per_band=3)
    for row in found.removed.tolist():
        twin = int(found.kept[row])
        assert twin < row
        assert found.kept[twin] < 0
        assert found.jaccard[row] == pytest.approx(jaccard(texts[row], texts[twin]))
        assert found.jaccard[row] >= 0.6
        assert found.cluster[row] == found.cluster[twin]


@settings(max_examples=80)
@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=12), ngram=st.integers(1, 6))
def test_numpy_and_numba_see_the_same_shingles(texts: list[str], ngram: int) -> None:
    column = pa.array([text.encode("utf-8", "ignore").decode() for text in texts])
    fast, slow = (minhash.shingle_hashes(column, ngram, compiled) for compiled in (True, False))
    np.testing.assert_array_equal(fast[1], slow[1])
    np.testing.assert_array_equal(fast[0], slow[0])
    signatures = [minhash.signatures(*fast, num=48, compiled=compiled) for compiled in (True, False)]
    np.testing.assert_array_equal(*signatures)


@pytest.mark.parametrize("character", ["a", "\u00e9", "\u0416", "\U00010400", "\u4f60"])
def test_numpy_and_numba_see_the_same_long_words(character: str) -> None:
    lengths = [1, 2, 3, 7, 8, 9, 15, 16, 17, 64, 511, 512, 513, 520, 521, 5000]
    column = pa.array([" ".join(["x", character * length, character * length + "y"]) for length in lengths])
    fast, slow = (minhash.shingle_hashes(column, 1, compiled) for compiled in (True, False))
    np.testing.assert_array_equal(fast[1], slow[1])
    np.testing.assert_array_equal(fast[0], slow[0])
    assert len(np.unique(fast[0])) == (2 if character == "\u4f60" else 1) + (
        len(lengths) * 2 if character != "\u4f60" else 1
    )


@settings(max_examples=80)
@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_words_are_runs_of_word_characters_in_lower_case(text: str) -> None:
    plain = re.sub("[Ā-\U0010ffff]", " ", text)  # Latin-1, where lower() maps one character to one
    assert words(plain) == re.findall(r"\w+", plain.lower())


@BOTH
def test_texts_with_the_same_words_have_the_same_shingles(compiled: bool) -> None:
    column = pa.array(["The Cat, sat!", "the cat sat", "the cat sad", "ΟΔΟΣ ÜBER", "οδος über"])
    hashes, starts = minhash.shingle_hashes(column, 5, compiled)
    assert starts.tolist() == [0, 1, 2, 3, 4, 5]
    assert hashes[0] == hashes[1] != hashes[2]
    assert hashes[3] == hashes[4]


@BOTH
def test_a_slice_of_a_column_is_read_where_it_lies(compiled: bool) -> None:
    column = pa.array(["zero zero", "one tw\u00f6", "three four", "five six"])
    whole = minhash.shingle_hashes(column, 1, compiled)[0]
    part, starts = minhash.shingle_hashes(column.slice(1, 2), 1, compiled)
    assert starts.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(part, whole[2:6])


@BOTH
@pytest.mark.parametrize(
    ("texts", "removed"),
    [
        (["你好世界今天天气很好我们去公园", "他们昨天在学校学习数学和物理课"], []),
        (["你好世界今天天气很好我们去公园玩", "你好世界今天天气很好我们去公园玩吧"], [1]),
        (["東京は日本の首都です。", "京都は古い都でした。", "東京は日本の首都です!"], [2]),
        (["สวัสดีครับยินดีต้อนรับ", "ขอบคุณมากและลาก่อนนะ"], []),
        (["one two", "one three", "one two"], [2]),
        (["...", "!!!", "...", ""], [2]),
    ],
    ids=["chinese", "chinese twin", "japanese", "thai", "short", "no words"],
)
def test_short_texts_and_texts_without_spaces_are_compared_by_content(
    compiled: bool, texts: list[str], removed: list[int]
) -> None:
    assert minhash.deduplicate(pa.array(texts), compiled=compiled).removed.tolist() == removed


def test_hand_worked_jaccard_and_representative() -> None:
    a, b, c = "p q r s t", "p q r s u", "q r s u v"  # pairs of words: ab and bc share 3 of 5, ac 2 of 6
    found = minhash.deduplicate(pa.array([a, b, c]), 0.6, ngram=2, **MANY_BANDS)
    assert found.kept.tolist() == [-1, 0, -1]  # c stays: its only twin is gone
    assert found.jaccard.tolist() == pytest.approx([0, 0.6, 0])
    assert found.cluster.tolist() == [0, 0, 0]  # but it is in the same cluster, so in the same split


def test_signatures_equal_datasketch() -> None:
    hashes, starts = minhash.shingle_hashes(pa.array(["the quick brown fox jumps over the lazy dog again"]), 5)
    reference = MinHash(num_perm=240, seed=7, hashfunc=lambda value: value, scheme="affine32")
    reference.update_batch([int(h) >> 32 for h in hashes])
    assert minhash.signatures(hashes, starts, 240, seed=7)[0].tolist() == reference.hashvalues.tolist()


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_for_a_threshold_find_999_of_1000_pairs_at_it(threshold: float) -> None:
    bands, rows = minhash.lsh_parameters(threshold)
    assert bands * rows <= minhash.NUM_PERMUTATIONS
    assert 1 - (1 - threshold**rows) ** bands >= 0.999
    more_rows = minhash.NUM_PERMUTATIONS // (rows + 1)
    assert threshold == 1 or 1 - (1 - threshold ** (rows + 1)) ** more_rows < 0.999


def test_hand_worked_bands() -> None:
    assert minhash.lsh_parameters(0.8) == (24, 5)  # .8^5 = .3277, .6723^24 = .0001; 20 bands of 6 miss .0023
    assert minhash.lsh_parameters(1.0) == (1, 120)
    keys = minhash.band_keys(np.array([[1, 2, 3, 4], [1, 2, 9, 4], [3, 4, 1, 2]], np.uint32), 2, 2)
    assert keys[0, 0] == keys[1, 0]  # the same rows in the same band
    assert len(np.unique(keys)) == 5  # 3, 4 in band 0 is not 3, 4 in band 1


def test_planted_pairs_at_the_threshold_are_found() -> None:
    random = np.random.default_rng(0)
    texts, near = [], []
    for _ in range(150):
        base = [str(n) for n in random.integers(0, 10**6, 300)]
        copy = [*base[:268], *(str(n) for n in random.integers(0, 10**6, 32))]
        texts += [" ".join(base), " ".join(copy)]
        near.append(264 / (296 + 296 - 264))
    assert min(near) > 0.8
    assert len(minhash.deduplicate(pa.array(texts)).removed) >= 0.98 * len(near)


MEMORY = r"""
import json, re, sys
import pyarrow as pa
from raysl.data import minhash
kind = sys.argv[1]
if kind == "long":
    texts = [f"text {i} " * 20 for i in range(200)] + [" ".join(f"w{i * 7919 % 1000003}" for i in range(1_300_000))]
else:
    page = [f"word{i}" for i in range(400)]
    texts = [" ".join([*page[:i % 400], f"x{i}", *page[i % 400 + 1:]]) for i in range(8000)]
found = minhash.deduplicate(pa.array(texts))
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024  # ru_maxrss would be the parent's
print(json.dumps({"mb": peak, "removed": len(found.removed), "bytes": sum(map(len, texts))}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "removed"), [("long", 0), ("hot", 7999)])
def test_memory_stays_bounded_for_a_huge_document_and_a_hot_bucket(kind: str, removed: int) -> None:
    command = [sys.executable, "-c", MEMORY, kind]
    subprocess.run(command, capture_output=True, check=True)  # compiling takes memory too, once a machine
    started = time.monotonic()
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(output)
    assert result["removed"] == removed
    assert result["mb"] < 500
    assert time.monotonic() - started < 60
