import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysl import schema
from raysl.data.labelled import (
    Documents,
    Labelled,
    class_numbers,
    draw_per_class,
    draw_texts,
    largest_classes,
    read_documents,
    read_split,
    tell_small_classes,
)
from raysl.errors import DataError


def documents(labels: list[str | None]) -> Documents:
    return Documents([str(n) for n in range(len(labels))], labels, ["text"] * len(labels))


def test_the_largest_labels_become_classes_by_name_and_ties_go_by_name() -> None:
    rows = documents(["b", "b", "a", "a", "z", "z", "z", "c", None])
    assert largest_classes(rows, 3) == ["a", "b", "z"]
    chosen = rows.of_classes(["a", "z"])
    assert chosen.ids == ["2", "3", "4", "5", "6"]
    assert class_numbers(chosen, ["a", "z"]).tolist() == [0, 0, 1, 1, 1]


def test_one_label_is_no_classification() -> None:
    with pytest.raises(DataError, match="two labels"):
        largest_classes(documents(["a", "a", None]), 5)


def test_a_draw_is_balanced_seeded_and_takes_all_of_a_small_class() -> None:
    targets = np.array([0] * 20 + [1] * 20 + [2] * 2)
    drawn = draw_per_class(targets, 5, (1, 2))
    assert np.bincount(targets[drawn]).tolist() == [5, 5, 2]
    assert drawn.tolist() == draw_per_class(targets, 5, (1, 2)).tolist()
    assert drawn.tolist() != draw_per_class(targets, 5, (1, 3)).tolist()
    assert draw_per_class(targets, None, (0,)).tolist() == list(range(42))


def test_classes_with_fewer_rows_than_are_asked_for_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    targets = np.array([0] * 20 + [1] * 4 + [2] * 2)
    for per_class in (None, 2, 5):
        tell_small_classes("evaluate", targets, per_class, ["a", "b", "c"])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "2 of 3 classes have fewer than labels_per_class=5 labelled rows" in said[0]
    assert "'c' the fewest (2)" in said[0]


def test_a_split_is_read_in_order_over_all_parts(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    for part, splits in enumerate((["train", "test"], ["test", "train"])):
        ids = [f"{part}{n}" for n in range(2)]
        table = pa.table([ids, ids, [None, "a"], [0, 1], splits], schema=schema.DOCUMENT)
        pq.write_table(table, tmp_path / "documents" / f"part-{part:05d}.parquet")
    assert whole(read_documents(tmp_path, "test")) == Documents(["01", "10"], ["a", None], ["01", "10"])
    assert whole(read_split(tmp_path, "test")) == Documents(["01"], ["a"], ["01"])
    assert whole(read_documents(tmp_path, "train").take([1, 0])) == Documents(["11", "00"], ["a", None], ["11", "00"])
    assert whole(read_documents(tmp_path, "validation")) == Documents([], [], [])
    texts = read_documents(tmp_path, "train").texts
    assert (texts[-1], list(texts[:1]), pickle.loads(pickle.dumps(texts))) == ("11", ["00"], ["00", "11"])


def whole(rows: Labelled) -> Documents:
    assert isinstance(rows, Documents)
    return Documents(rows.ids, rows.labels, list(rows.texts))


def test_few_of_many_documents_take_little_memory(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    for part in range(8):
        names = [f"{part}-{n:04}" for n in range(100)]
        table = pa.table([names, [name * 3000 for name in names], ["a"] * 100, list(range(100)), ["train"] * 100],
                         schema=schema.DOCUMENT)  # fmt: skip
        pq.write_table(table, tmp_path / "documents" / f"part-{part:05d}.parquet")
    tracemalloc.start()
    drawn = read_split(tmp_path, "train").take([5, 700])
    assert isinstance(drawn, Documents)
    assert [text[:6] for text in drawn.texts] == ["0-0005", "7-0000"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6  # all texts are 14 MB


def test_of_much_text_a_part_is_drawn_evenly(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    for part in range(4):
        names = [f"{part}-{n:04}" + "é" * 100 for n in range(500)]
        splits = ["test" if n % 5 == 0 else "train" for n in range(500)]
        table = pa.table([names, names, [None] * 500, list(range(500)), splits], schema=schema.DOCUMENT)
        pq.write_table(table, tmp_path / "documents" / f"part-{part:05d}.parquet")
    everything = list(read_documents(tmp_path, "train").texts)
    assert draw_texts(tmp_path, "train", 1.0, seed=0) == everything
    drawn = draw_texts(tmp_path, "train", 0.1, seed=0)
    assert drawn == draw_texts(tmp_path, "train", 0.1, seed=0) != draw_texts(tmp_path, "train", 0.1, seed=1)
    assert sum(len(text.encode()) for text in drawn) == pytest.approx(1e5, rel=0.2)
    assert drawn == sorted(drawn)
    assert {text[0] for text in drawn} == set("0123")


def test_a_folder_without_documents_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="raysl prepare"):
        read_documents(tmp_path, "train")
