"""Clean units: what they hold, and reading it again."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysl.data.clean import ROWS, Cleaner, values_at
from raysl.data.config import PrepareConfig
from raysl.data.dedup import PLAN
from raysl.data.prints import PrintSettings
from raysl.data.tokens import planned_titles
from raysl.schema import HAS_TITLE, RAW_DOCUMENT, TEXT

TITLED = [
    ({"title": "On ships", "text": "First sentence.\nSecond."}, True),
    ({"title": None, "text": "First sentence.\nSecond."}, False),
    ({"text": "First sentence.\nThird."}, False),
    ({"title": "  ", "text": "\n\nFirst sentence.\nFourth."}, False),
    ({"title": "\u200b", "text": "First sentence.\nFifth."}, False),
    ({"title": "Dropped", "text": "short"}, True),
    ({"title": 7, "text": "First sentence.\nSixth."}, True),
]


def cleaned(folder: Path, **source: object) -> Path:
    """The unit of all rows of TITLED but the short one."""
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row, _ in TITLED))
    config = PrepareConfig.model_validate(
        {"source": {"type": "files", "path": str(folder), **source}, "filters": [{"type": "length", "min_chars": 18}]}
    )
    Cleaner(config, PrintSettings.of(config.deduplicate), 0, compiled=False)([("a.jsonl", 0, 10**6)], folder / "unit")
    return folder / "unit"


def test_a_unit_says_which_documents_have_a_title(tmp_path: Path) -> None:
    """The first line of a text is no title where there is none, and the text is the same as without titles."""
    rows = pq.read_table(cleaned(tmp_path, title_column="title") / ROWS)
    assert rows[HAS_TITLE].to_pylist() == [titled for row, titled in TITLED if row["text"] != "short"]
    assert rows[TEXT].to_pylist()[:2] == ["On ships\nFirst sentence.\nSecond.", "First sentence.\nSecond."]
    assert rows[TEXT].to_pylist()[3] == "First sentence.\nFourth."
    plan = pa.table([[0, 1, 5], ["a", "b", "c"], [None] * 3, [0, 1, 5], ["train"] * 3], schema=PLAN)
    pq.write_table(plan, tmp_path / "part-00000.parquet")
    assert planned_titles(tmp_path / "unit", tmp_path, 0).to_pylist() == [True, False, True]


def test_a_unit_without_titles_says_nothing_of_them(tmp_path: Path) -> None:
    assert pq.read_schema(cleaned(tmp_path) / ROWS).remove_metadata().equals(RAW_DOCUMENT)
    pq.write_table(pa.table([[1], ["b"], [None], [1], ["train"]], schema=PLAN), tmp_path / "part-00000.parquet")
    assert planned_titles(tmp_path / "unit", tmp_path, 0).to_pylist() == [True]  # cleaned by an earlier raysl, if at all


def test_texts_of_more_than_one_array_can_hold_are_chosen() -> None:
    """As a unit of more than 2 GiB is read; the three chunks share the memory of one."""
    data = pa.py_buffer(np.zeros(2**30 - 1, np.uint8))
    offsets = pa.py_buffer(np.array([0, 1, 2**30 - 2, 2**30 - 1], np.int32))
    texts = pa.chunked_array([pa.StringArray.from_buffers(3, offsets, data)] * 3)
    with pytest.raises(pa.ArrowInvalid, match="offset overflow"):
        texts.take(pa.array([0]))
    assert values_at(texts, np.array([0, 2, 3, 8])).to_pylist() == ["\0"] * 4


def test_chosen_texts_are_one_array_where_it_holds_them() -> None:
    texts = values_at(pa.chunked_array([["a", "b"], ["c"], ["d"]]), np.array([1, 2]))
    assert texts.num_chunks == 1
    assert texts.to_pylist() == ["b", "c"]
