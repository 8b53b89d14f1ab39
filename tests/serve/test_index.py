"""Search is exact: the same documents as a sort of all cosines."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysl.errors import BundleError
from raysl.release.bundle import Bundle, open_bundle, write_bundle
from raysl.serve.index import SearchIndex
from tests.tiny_bundle import make_bundle


def _random_bundle(folder: Path, documents: int) -> Bundle:
    (folder / "search").mkdir(parents=True)
    vectors = np.random.default_rng(0).normal(size=(documents, 8)).astype(np.float32)
    np.save(folder / "search/embeddings.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    columns = {"id": [str(i) for i in range(documents)], "text": ["tëxt" * 50] * documents, "label": [None] * documents}
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    pq.write_table(table, folder / "search/documents.parquet")
    facts = {"classes": [], "max_tokens": 8, "width": 8, "metrics": {}, "parity": {}, "versions": {}}
    return write_bundle(folder, facts)


def test_finds_what_a_full_sort_finds(tmp_path: Path) -> None:
    index = SearchIndex(_random_bundle(tmp_path, 500), 100)
    queries = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    found = index.nearest(queries, [1, 3, 10, 100, 500])
    for query, hits in zip(queries, found, strict=True):
        expected = np.argsort(-(index.embeddings @ query), kind="stable")[: len(hits)]
        assert [hit.id for hit in hits] == [str(place) for place in expected]
    assert [len(hits) for hits in found] == [1, 3, 10, 100, 500]


def test_equal_documents_come_in_the_order_of_the_corpus_at_the_border_too(tmp_path: Path) -> None:
    index = SearchIndex(_random_bundle(tmp_path, 500), 100)
    index.embeddings = np.tile(np.eye(2, 8, dtype=np.float32), (250, 1))
    found = index.nearest(np.eye(1, 8, dtype=np.float32), [7])[0]
    assert [hit.id for hit in found] == [str(place) for place in range(0, 14, 2)]


def test_asking_for_more_than_there_is_gives_all(tmp_path: Path) -> None:
    index = SearchIndex(_random_bundle(tmp_path, 3), 100)
    assert len(index.nearest(np.ones((1, 8), np.float32), [10])[0]) == 3


def test_snippets_are_cut_by_characters(tmp_path: Path) -> None:
    index = SearchIndex(_random_bundle(tmp_path, 3), 5)
    assert index.nearest(np.ones((1, 8), np.float32), [1])[0][0].snippet == "tëxtt"


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    index = SearchIndex(_random_bundle(tmp_path, 0), 5)
    assert index.nearest(np.ones((2, 8), np.float32), [1, 1]) == [[], []]


def test_embeddings_that_do_not_fit_the_documents_are_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    np.save(folder / "search/embeddings.npy", np.eye(4, dtype=np.float32))
    facts = {"classes": [], "max_tokens": 8, "width": 4, "metrics": {}, "parity": {}, "versions": {}}
    write_bundle(folder, facts)
    with pytest.raises(BundleError, match="4 embeddings for 5 documents"):
        SearchIndex(open_bundle(folder), 10)
