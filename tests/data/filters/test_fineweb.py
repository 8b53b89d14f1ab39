"""One text for each FineWeb rule, a hair on either side of the threshold."""

import pyarrow as pa
import pytest

from raysl.data.filters.fineweb import FineWeb

LONG = "this line has more than thirty characters"


def lines(*counted: tuple[int, str]) -> str:
    """The lines with a number each, so that none repeats."""
    return "\n".join(f"{number}{place} {line}" for place, (count, line) in enumerate(counted) for number in range(count))


def failed(text: str, **config: float) -> list[str]:
    keep = FineWeb(FineWeb.Config(**config)).keep(pa.table({"text": [text]}))
    return [reason for reason, kept in keep.items() if not kept[0]]


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (lines((13, f"{LONG}."), (87, LONG)), []),
        (lines((12, f"{LONG}."), (88, LONG)), ["few_punctuated_lines"]),
        (lines((20, f"“{LONG}.”"), (20, LONG)), ["few_punctuated_lines"]),
        (lines((66, "one two three four."), (34, f"{LONG}.")), []),
        (lines((67, "one two three four."), (33, f"{LONG}.")), ["short_lines"]),
        (f"{lines((50, LONG + '.'))}\n" + "\n".join([LONG + "!"] * 5), []),
        (f"{lines((50, LONG + '.'))}\n" + "\n".join([LONG + "!"] * 8), ["fineweb_repeated_lines"]),
        (lines((10, f"{LONG}.")).replace(" ", "x"), ["list"]),
        ("", ["few_punctuated_lines"]),
    ],
)
def test_each_rule_names_its_reason(text: str, reasons: list[str]) -> None:
    assert failed(text) == reasons


def test_lines_are_counted_without_blank_ones_and_blanks() -> None:
    text = "\n\n".join(f"    {line}" for line in lines((13, f"{LONG}."), (87, LONG)).split("\n"))
    assert failed(text) == []


def test_thresholds_come_from_the_config() -> None:
    text = lines((50, LONG + ".")) + f"\n{LONG}!\n{LONG}!"
    assert failed(text, max_repeated_line_chars=0.01) == ["fineweb_repeated_lines"]
    assert failed("a.\nb.\nc.", max_short_lines=1, short_line_chars=0, max_lines_per_word=1) == []
