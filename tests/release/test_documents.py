"""Documents drawn from what `prepare` wrote."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysl.errors import DataError
from raysl.release import documents as release_documents
from raysl.release.documents import draw_split
from raysl.schema import DOCUMENT


def documents(numbers: list[int], splits: list[str], labels: dict[int, str] | None = None) -> pa.Table:
    names = [f"d{number}" for number in numbers]
    columns = [names, [f"text {n}" for n in numbers], [(labels or {}).get(n) for n in numbers], numbers, splits]
    return pa.table(columns, schema=DOCUMENT)


def test_a_draw_keeps_the_order_of_the_corpus(tmp_path: Path) -> None:
    pq.write_table(documents([0, 1, 2, 3], ["test", "train", "test", "test"]), tmp_path / "part-00000.parquet")
    pq.write_table(documents([4, 5], ["test", "test"]), tmp_path / "part-00001.parquet")
    drawn = np.sort(np.random.default_rng(7).permutation(5)[:3])
    expected = [["d0", "d2", "d3", "d4", "d5"][place] for place in drawn]
    assert draw_split(tmp_path, "test", 3, seed=7)["id"].to_pylist() == expected
    assert draw_split(tmp_path, "test", 9, seed=7)["id"].to_pylist() == ["d0", "d2", "d3", "d4", "d5"]


def test_of_a_corpus_with_few_labels_as_many_labelled_rows_are_drawn_as_of_another(tmp_path: Path) -> None:
    labels = dict.fromkeys(range(0, 1000, 50), "a")
    pq.write_table(documents(list(range(1000)), ["test"] * 1000, labels), tmp_path / "part-00000.parquet")
    assert draw_split(tmp_path, "test", 15, seed=7)["label"].null_count > 10
    drawn = draw_split(tmp_path, "test", 15, seed=7, labelled=True)
    assert drawn.column_names == ["id", "text", "label"]
    assert (len(drawn), drawn["label"].null_count) == (15, 0)


def test_a_split_without_a_label_gives_no_labelled_row_and_one_without_a_row_is_refused(tmp_path: Path) -> None:
    pq.write_table(documents([0, 1], ["test", "train"]), tmp_path / "part-00000.parquet")
    assert len(draw_split(tmp_path, "test", 15, seed=7, labelled=True)) == 0
    for labelled in (True, False):
        with pytest.raises(DataError, match=r"prepare\.split\.validation"):
            draw_split(tmp_path, "validation", 15, seed=7, labelled=labelled)


def test_a_draw_from_more_text_than_one_array_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three chunks share the memory of one."""
    data, offsets = pa.py_buffer(np.zeros(2**30 - 1, np.uint8)), pa.py_buffer(np.array([0, 1, 2**30 - 1], np.int32))
    texts = pa.chunked_array([pa.StringArray.from_buffers(2, offsets, data)] * 3)
    part = documents(list(range(6)), ["test"] * 6).set_column(1, "text", texts)
    (tmp_path / "part-00000.parquet").touch()
    monkeypatch.setattr(release_documents, "_of_split", lambda path, split, columns, labelled: part)
    seed = next(seed for seed in range(99) if np.random.default_rng(seed).permutation(6)[0] == 4)
    assert draw_split(tmp_path, "test", 1, seed)["text"].to_pylist() == ["\0"]
