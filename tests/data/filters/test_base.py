"""Counting and sampling of what filters drop."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from raysl.data.filters import Filter, apply_filters
from raysl.data.filters.base import NUM_EXAMPLES, Bools, Examples
from raysl.data.filters.length import Length


def batch_of(*texts: str) -> pa.Table:
    return pa.table({"id": [f"d{n}" for n in range(len(texts))], "text": list(texts), "label": [None] * len(texts)})


class NoX(Filter):
    def keep(self, batch: pa.Table) -> Mapping[str, Bools]:
        texts = batch["text"].to_pylist()
        return {"has_x": np.array(["x" not in t for t in texts]), "has_y": np.array(["y" not in t for t in texts])}


def test_a_row_is_counted_once_under_its_first_reason() -> None:
    short, letters = Length(Length.Config(min_chars=3)), NoX(None)
    passed, reasons = apply_filters([short, letters], batch_of("x", "good", "xxxy", "yyyy", "xy"))
    assert passed.tolist() == [False, True, False, False, False]
    assert reasons == ["too_short", None, "has_x", "has_y", "too_short"]
    assert short.dropped == {"too_short": 2}
    assert letters.dropped == {"has_x": 1, "has_y": 1}
    assert [name for _, name, _ in letters.examples.found["has_y"]] == ["d3"]


def test_examples_do_not_depend_on_how_rows_are_divided() -> None:
    rows = pa.table({"id": [f"d{n}" for n in range(60)], "text": [f"text {n}" for n in range(60)]})
    whole, parts = Examples(5), Examples(5)
    whole.add("why", rows)
    for start in (40, 0, 20):
        one = Examples(5)
        one.add("why", rows.slice(start, 20))
        parts.merge(one.found)
    assert len(whole.found["why"]) == NUM_EXAMPLES
    assert whole.found == parts.found
    other = Examples(6)
    other.add("why", rows)
    assert other.found != whole.found
