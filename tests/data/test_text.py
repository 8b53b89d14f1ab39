"""Normalization: one form for the same text."""

import re
import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysl.data.text import TRAILING, normalize, normalize_column


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("plain text stays\n    indented code too", "plain text stays\n    indented code too"),
        ("a\r\nb\rc\u2028d\x0ce", "a\nb\nc\nd\ne"),
        ("a\x00b\u200bc\ufeff", "abc"),
        ("a  \n \n\n\nb \n", "a\n\nb"),
        ("a\xa0b\tc", "a b    c"),
        ("cafe\u0301", "caf\xe9"),
        ("cafÃ© â€œhiâ€\x9d", "café “hi”"),
        ("São Paulo, Âge", "São Paulo, Âge"),
        (" \n\t\n", ""),
    ],
)
def test_each_kind_of_dirt_goes(raw: str, clean: str) -> None:
    assert normalize(raw) == clean


@settings(max_examples=200)
@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_normalizing_twice_changes_nothing(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once


def test_a_column_keeps_its_rows() -> None:
    assert normalize_column(pa.chunked_array([["a ", "b"], ["\x00"]])).to_pylist() == ["a", "b", ""]


def test_broken_marks_around_a_control_character_are_repaired_at_once() -> None:
    assert normalize("Â\x08\x91") == normalize(normalize("Â\x08\x91"))


@settings(max_examples=300)
@given(text=st.text(alphabet=" \n\ta", max_size=40))
def test_blanks_before_a_line_end_are_those_of_the_plain_pattern(text: str) -> None:
    assert TRAILING.sub("", text) == re.sub(r"[ ]+$", "", text, flags=re.MULTILINE)


def test_long_runs_of_blanks_cost_time_in_proportion() -> None:
    text = f"a{' ' * 50_000}b"
    started = time.process_time()
    assert normalize(f"{text} \n") == text
    assert time.process_time() - started < 0.5
