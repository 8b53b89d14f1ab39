"""Decisions of datatrove 0.10.1 about a few texts: ours are the same, and datatrove's still are where it is installed."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from raysl.data.filters import Filter
from raysl.data.filters.c4 import C4
from raysl.data.filters.fineweb import FineWeb
from raysl.data.filters.quality import Quality
from raysl.data.filters.repetition import Repetition

PROSE = (
    "The ship that we had seen from the hill came into the harbour before noon, and the men of the town went down to it. "
    "Nobody could say where it had come from. Its captain, a tall man with a grey beard, asked for water and for bread. "
    "He paid in silver. When he was asked to stay for the night he laughed, shook his head and pointed to the west.\n"
)
TEXTS = {
    "prose": PROSE,
    "short": PROSE[:180],
    "dialogue": 'What? Yes! No. "Well," she said, "no." (Why?) Oh, \'yes\', that; and - to - be: "Go!"\n' * 6,
    "numbers": "the and to of " + "12345 678.9 +55 " * 20,
    "hashes": PROSE + "# " * 40,
    "chant": "to the sea and the land " * 30,
    "lines": "A line that stands here again.\n" * 12 + PROSE,
    "code": PROSE + 'It prints f() { return "x"; } at the end.\n',
    "menu": PROSE + "Home\nAbout\nContact us\nfunction() {\n" * 3,
    "wrapped": PROSE.replace(" and ", " and\n").replace(" the ", " the\n"),
    "list": "Apples and pears\nPlums\nCherries\nGrapes and figs\n" * 8,
    "quotes": "\n".join(f"Then he said “it is number {n}”" for n in range(8)),
}
DROPPED = {  # by datatrove 0.10.1 with its defaults, but 0.1 for FineWeb's repeated lines
    "quality": {"dialogue", "hashes", "list", "numbers", "quotes", "short"},
    "repetition": {"chant", "dialogue", "hashes", "lines", "list", "menu", "numbers", "quotes"},
    "c4": {"chant", "code", "list", "numbers", "quotes", "short", "wrapped"},
    "fineweb": {"chant", "dialogue", "lines", "list", "menu", "numbers", "quotes", "short", "wrapped"},
}
OURS: dict[str, Filter] = {
    "quality": Quality(Quality.Config(count_marks=True)),
    "repetition": Repetition(Repetition.Config()),
    "c4": C4(C4.Config(typographic_quotes=False)),
    "fineweb": FineWeb(FineWeb.Config()),
}


@pytest.mark.parametrize("family", DROPPED)
def test_the_same_texts_go(family: str) -> None:
    keep = OURS[family].keep(pa.table({"text": list(TEXTS.values())}))
    dropped = {name for row, name in enumerate(TEXTS) if not all(kept[row] for kept in keep.values())}
    assert dropped == DROPPED[family]


@pytest.mark.parametrize("family", DROPPED)
def test_datatrove_still_drops_them(family: str) -> None:
    filters = pytest.importorskip("datatrove.pipeline.filters")
    document = pytest.importorskip("datatrove.data").Document
    makers: dict[str, Callable[[], Any]] = {
        "quality": filters.GopherQualityFilter, "repetition": filters.GopherRepetitionFilter, "c4": filters.C4QualityFilter,
        "fineweb": lambda: filters.FineWebQualityFilter(char_duplicates_ratio=0.1),
    }  # fmt: skip
    one = makers[family]()
    dropped = {name for name, text in TEXTS.items() if one.filter(document(text=text, id=name)) is not True}
    assert dropped == DROPPED[family]
