"""Clean units: what they hold, and reading it again."""

import numpy as np
import pyarrow as pa
import pytest

from raysl.data.clean import texts_at


def test_texts_of_more_than_one_array_can_hold_are_chosen() -> None:
    """As a unit of more than 2 GiB is read; the three chunks share the memory of one."""
    data = pa.py_buffer(np.zeros(2**30 - 1, np.uint8))
    offsets = pa.py_buffer(np.array([0, 1, 2**30 - 2, 2**30 - 1], np.int32))
    texts = pa.chunked_array([pa.StringArray.from_buffers(3, offsets, data)] * 3)
    with pytest.raises(pa.ArrowInvalid, match="offset overflow"):
        texts.take(pa.array([0]))
    assert texts_at(texts, np.array([0, 2, 3, 8])).to_pylist() == ["\0"] * 4


def test_chosen_texts_are_one_array_where_it_holds_them() -> None:
    texts = texts_at(pa.chunked_array([["a", "b"], ["c"], ["d"]]), np.array([1, 2]))
    assert texts.num_chunks == 1
    assert texts.to_pylist() == ["b", "c"]
