"""C4: which lines of a page stay, and which pages."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysl.data.filters import c4_lines, run_filters
from raysl.data.filters.c4 import C4, choose_lines
from raysl.data.filters.c4_lines import REASONS, Rules, count_sentences
from raysl.data.filters.length import Length

GOOD = "It was a good day. We went out early! Did it rain? No. It never did."


def table(*texts: str) -> pa.Table:
    return pa.table({"id": [f"d{n}" for n in range(len(texts))], "text": list(texts), "label": [None] * len(texts)})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("A menu without an end", "c4_no_sentence_end"),
        ("And so it goes on...", "c4_no_sentence_end"),
        ("Too short.", "c4_few_words"),
        (f"What a long {'x' * 1001} word.", "c4_long_word"),
        ("Please enable JavaScript to go on.", "c4_javascript"),
        ("Read our Terms of Use before you go on.", "c4_policy"),
        ("We use cookies on this page.", "c4_policy"),
    ],
)
def test_lines_that_are_no_sentences_go(line: str, reason: str) -> None:
    pages = choose_lines(pa.array([f"{GOOD}\n{line}\n“And this stays too.”"]), Rules(), compiled=False)
    assert pages.texts.to_pylist() == [f"{GOOD}\n“And this stays too.”"]
    assert {REASONS[place]: pages.removed[place] for place in np.flatnonzero(pages.removed)} == {reason: 1}


def test_citation_marks_are_cut_out() -> None:
    text = "The first[1] and the second[citation needed] are here.[23]\nSee [edit] and [a] there."
    pages = choose_lines(pa.array([text]), Rules(), compiled=False)
    assert pages.texts.to_pylist() == ["The first and the second are here.\nSee  and [a] there."]


def test_typographic_quotes_end_a_line_unless_told_otherwise() -> None:
    texts = pa.array(["“It was a day.”"])
    assert choose_lines(texts, Rules(), compiled=False).texts.to_pylist() == ["“It was a day.”"]
    assert choose_lines(texts, Rules(typographic_quotes=False), compiled=False).texts.to_pylist() == [""]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, None),
        ("It was. A day. With four. Sentences only.", "few_sentences"),
        (f"{GOOD}\nLorem ipsum dolor sit amet.", "lorem_ipsum"),
        (f"{GOOD}\nLorem ipsum dolor sit amet", None),
        (f"{GOOD}\nIt says f() {{ here.", "curly_bracket"),
        (f"{GOOD}\nfunction f() {{", None),
    ],
)
def test_each_rule_for_pages_names_its_reason(text: str, reason: str | None) -> None:
    assert run_filters([C4(C4.Config())], table(text)).reasons == [reason]


def test_rules_can_be_loosened() -> None:
    config = C4.Config(drop_code=False, terminal_punctuation=False, min_sentences=1)
    found = run_filters([C4(config)], table("a b c { d"))
    assert found.passed.tolist() == [True]
    assert found.batch["text"].to_pylist() == ["a b c { d"]


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("One. Two! Three? “Four.”", 4),
        ("Mr. Smith met Dr. A. Jones, e.g. here.", 1),
        ("Version 2.5 costs $3.50 today.", 1),
        ("Wait... what?! Yes.", 2),
        ('He said "Stop." Then he went.', 2),
        ("no end", 1),
    ],
)
def test_sentences_are_counted_by_their_ends(line: str, count: int) -> None:
    assert count_sentences(line) == count


def test_later_filters_see_the_lines_that_stay() -> None:
    c4, length = C4(C4.Config()), Length(Length.Config(max_chars=100))
    found = run_filters([c4, length], table(f"{GOOD}\n{'menu ' * 50}", GOOD * 2))
    assert found.reasons == [None, "too_long"]
    assert found.batch["text"].to_pylist()[0] == GOOD
    assert c4.edits == {"c4_no_sentence_end": 1}


PARTS = [
    "It was a day.",
    "[3]",
    "[edit]",
    "{",
    "JavaScript",
    "Use  Cookies",
    "lorem Ipsum.",
    "terms of use",
    "\n",
    "\n\n",
    "“So?”",
]
PARTS += ["...", "… end.’", " ", "\x1f", "É!", "a" * 12, "a.!" * 400, "x.]", "Mr. B. went."]
LINES = st.lists(st.sampled_from(PARTS) | st.text(max_size=6), max_size=12)
RULES = st.builds(Rules, st.integers(0, 4), st.integers(1, 12), st.booleans(), st.booleans())


@pytest.mark.slow  # numba compiles for some seconds once
@settings(max_examples=150)
@given(st.lists(LINES.map("".join), max_size=4), RULES)
def test_the_compiled_form_gives_the_same_pages(texts: list[str], rules: Rules) -> None:
    pytest.importorskip("numba")
    from raysl.data.filters import c4_lines_numba

    column = pa.array(["", *texts], pa.string()).slice(1)
    plain, fast = c4_lines.choose_lines(column, rules), c4_lines_numba.choose_lines(column, rules)
    assert fast.texts.to_pylist() == plain.texts.to_pylist()
    for name in ("sentences", "has_lorem_ipsum", "has_bracket", "removed"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(plain, name), err_msg=name)
