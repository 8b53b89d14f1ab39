"""The decision over all prints, and new rows against a kept corpus; no cluster is needed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysl.data import minhash
from raysl.data.clean import PRINTS, ROWS
from raysl.data.config import DeduplicateConfig, SplitConfig
from raysl.data.decisions import Corpus, decide_in_one_task
from raysl.data.dedup import deduplicate_against, split_of, unique_ids, united_labels, write_index_settings
from raysl.data.plan import Planner
from raysl.data.prints import PrintSettings, make_prints, write_prints
from raysl.errors import DataError
from raysl.schema import RAW_DOCUMENT

SETTINGS = PrintSettings(threshold=0.6, ngram=2, num_bands=60, rows_per_band=1)
SHARES = SplitConfig(validation=0.1, test=0.2)


def table_of(texts: list[str], labels: list[str | None] | None = None, prefix: str = "d") -> pa.Table:
    ids = [f"{prefix}{number}" for number in range(len(texts))]
    columns = [pa.array(values, pa.string()) for values in (ids, texts, labels or [None] * len(texts))]
    return pa.Table.from_arrays(columns, schema=RAW_DOCUMENT)


def write_unit(folder: Path, table: pa.Table) -> Path:
    folder.mkdir(parents=True)
    pq.write_table(table, folder / ROWS)
    write_prints(make_prints(table, SETTINGS, compiled=False), folder / PRINTS)
    return folder


def plan(folder: Path, *tables: pa.Table) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    units = tuple(write_unit(folder / f"unit{number}", table) for number, table in enumerate(tables))
    corpus = Corpus(units, tuple(len(table) for table in tables), SETTINGS, 100)
    decide_in_one_task(corpus, folder / "decided")
    planner = Planner(corpus, folder / "decided", folder / "plan", SHARES, 0)
    planner(0, len(units))
    return planned(folder, "part"), planned(folder, "duplicates")


def planned(folder: Path, name: str) -> list[dict[str, object]]:
    return [row for path in sorted((folder / "plan").glob(f"{name}-*.parquet")) for row in pq.read_table(path).to_pylist()]


TWINS = ["a b c d e f", "u v w x y z", "a b c d e f", "a b c d e g", "k l m n o p"]


def test_the_plan_is_the_same_however_rows_are_divided(tmp_path: Path) -> None:
    whole = table_of(TWINS, ["x", None, None, "y", "z"])
    kept, removed = plan(tmp_path / "one", whole)
    parts, removed_of_parts = plan(tmp_path / "many", whole.slice(0, 2), whole.slice(2, 0), whole.slice(2, 3))
    for rows in (kept, parts):
        assert [row["id"] for row in rows] == ["d0", "d1", "d4"]
        assert [row["cluster"] for row in rows] == [0, 1, 4]
    assert [row["row"] for row in kept] == [0, 1, 4]
    assert [row["row"] for row in parts] == [0, 1, 2]
    assert removed == removed_of_parts == [
        {"id": "d2", "reason": "exact_duplicate", "kept_id": "d0", "jaccard": 1.0},
        {"id": "d3", "reason": "near_duplicate", "kept_id": "d0", "jaccard": pytest.approx(4 / 6)},
    ]  # fmt: skip


def test_labels_of_twins_are_united_and_conflicts_listed() -> None:
    found = minhash.Duplicates(
        kept=np.array([-1, 0, -1, 0, 2]), jaccard=np.zeros(5), cluster=np.array([0, 0, 2, 0, 2]), num_capped=0
    )
    labels, conflicts = united_labels(list("abcde"), ["x", "y", None, "x", "z"], found)
    assert labels == ["x", "y", "z", "x", "z"]
    assert conflicts.to_pylist() == [{"id": "a", "label": "x", "labels": ["x", "y"]}]


def test_ids_become_unique_and_first_ones_stay() -> None:
    assert unique_ids(["a", "b", "a", "a", "a#2"]) == ["a", "b", "a#3", "a#4", "a#2"]
    assert unique_ids(["x", "x"]) == ["x", "x#2"]


@settings(max_examples=50)
@given(ids=st.lists(st.sampled_from(["a", "b", "a#2", "a#3", "b#2"]), max_size=12))
def test_unique_ids_are_unique(ids: list[str]) -> None:
    assert len(set(unique_ids(ids))) == len(ids)


def test_splits_have_their_shares_and_depend_on_the_seed() -> None:
    drawn = [split_of(f"d{number}", 0, SHARES) for number in range(5000)]
    assert drawn.count("test") / 5000 == pytest.approx(0.2, abs=0.02)
    assert drawn.count("validation") / 5000 == pytest.approx(0.1, abs=0.02)
    assert drawn != [split_of(f"d{number}", 1, SHARES) for number in range(5000)]
    assert split_of("d0", 0, SplitConfig(validation=0, test=0)) == "train"


@settings(max_examples=40)
@given(
    texts=st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8).map(" ".join), min_size=2, max_size=10),
    share=st.floats(0, 1),
)
def test_incremental_equals_one_run_with_the_old_rows_first(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], share: float
) -> None:
    folder = tmp_path_factory.mktemp("index")
    table, num_old = table_of(texts), int(share * len(texts))
    full = minhash.deduplicate(table["text"], 0.6, 2, 60, 1, compiled=False)
    old = table.slice(0, num_old).filter(pa.array(full.kept[:num_old] < 0))
    write_index_settings(folder, SETTINGS)
    write_prints(make_prints(old, SETTINGS, compiled=False), folder / "part-00000.arrow")
    found = deduplicate_against(folder, table.slice(num_old))
    new = range(num_old, len(texts))
    assert found.kept["id"].to_pylist() == [f"d{n}" for n in new if full.kept[n] < 0]
    assert [(row["id"], row["kept_id"]) for row in found.removed.to_pylist()] == [
        (f"d{n}", f"d{full.kept[n]}") for n in new if full.kept[n] >= 0
    ]


def test_old_text_is_not_read_and_a_missing_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no index of kept documents"):
        deduplicate_against(tmp_path / "none", table_of(["x"]))
    write_index_settings(tmp_path, SETTINGS)
    write_prints(make_prints(table_of(TWINS[:2], prefix="old"), SETTINGS, compiled=False), tmp_path / "part-00000.arrow")
    assert "text" not in pa.ipc.open_file(pa.memory_map(str(tmp_path / "part-00000.arrow"))).schema.names
    found = deduplicate_against(tmp_path, table_of([TWINS[3], "new words only"], prefix="new"))
    assert found.kept["id"].to_pylist() == ["new1"]
    assert found.removed["kept_id"].to_pylist() == ["old0"]


def test_an_index_of_other_hashes_is_refused(tmp_path: Path) -> None:
    write_index_settings(tmp_path, replace(SETTINGS, scheme=1))
    with pytest.raises(DataError, match="written by another version of raysl"):
        deduplicate_against(tmp_path, table_of(["x"]))


def test_an_empty_table_of_new_rows_is_fine(tmp_path: Path) -> None:
    write_index_settings(tmp_path, SETTINGS)
    write_prints(make_prints(table_of(TWINS[:2]), SETTINGS, compiled=False), tmp_path / "part-00000.arrow")
    found = deduplicate_against(tmp_path, table_of([]))
    assert len(found.kept) == len(found.removed) == 0


def test_settings_follow_the_config() -> None:
    assert PrintSettings.of(DeduplicateConfig()) == PrintSettings(0.8, 5, 24, 5)
    assert PrintSettings.of(DeduplicateConfig(num_bands=4, rows_per_band=5)).num_bands == 4
