"""Length counts characters, not bytes."""

import pyarrow as pa
import pytest
from pydantic import ValidationError

from raysl.data.filters.length import Length


def test_bounds_are_inclusive_and_count_characters() -> None:
    keep = Length(Length.Config(min_chars=2, max_chars=4)).keep(pa.table({"text": ["ä", "ää", "ääää", "ääääa"]}))
    assert keep["too_short"].tolist() == [False, True, True, True]
    assert keep["too_long"].tolist() == [True, True, True, False]


def test_bounds_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_chars must not exceed max_chars"):
        Length.Config(min_chars=5, max_chars=4)
