"""One text for each Gopher repetition rule; the counts behind them are tested in test_measures.py."""

import pyarrow as pa
import pytest

from raysl.data.filters.repetition import Repetition


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("one two\n" * 4 + " ".join(f"w{n}" for n in range(80)), "repeated_lines"),
        ("x" * 30 + "\n" + "\n".join(f"w{n}" for n in range(9)) + "\n" + "x" * 30, "repeated_line_chars"),
        ("buy now " * 5 + " ".join(f"word{n}" for n in range(20)), "top_2_gram"),
        (
            " ".join([*(f"a{n}" for n in range(10)), *(f"b{n}" for n in range(20)), *(f"a{n}" for n in range(10))]),
            "repeated_5_grams",
        ),
    ],
)
def test_each_rule_names_its_reason(text: str, reason: str) -> None:
    keep = Repetition(Repetition.Config()).keep(pa.table({"text": pa.chunked_array([[text]])}))
    assert reason in [name for name, kept in keep.items() if not kept[0]]


def test_prose_without_repetition_passes() -> None:
    text = "\n\n".join(" ".join(f"w{p}x{n}" for n in range(30)) for p in range(3))
    keep = Repetition(Repetition.Config()).keep(pa.table({"text": pa.chunked_array([[text]])}))
    assert all(kept[0] for kept in keep.values())
