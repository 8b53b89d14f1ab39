"""Tokens as spaCy's English tokenizer cuts them; each case was checked against spaCy 3.8."""

import pytest

from raysl.data.filters.words import cut


@pytest.mark.parametrize(
    ("piece", "tokens"),
    [
        ("word", "word"),
        ("(end),", "( end ) ,"),
        ("“Stop!”", "“ Stop ! ”"),
        ("don't", "do n't"),
        ("she’s", "she ’s"),
        ("dogs'", "dogs '"),
        ("cannot", "can not"),
        ("Mr.", "Mr."),
        ("e.g.", "e.g."),
        ("J.", "J."),
        ("NASA.", "NASA ."),
        ("end.Begin", "end . Begin"),
        ("wait...", "wait ..."),
        ("x...y", "x ... y"),
        ("well-known", "well - known"),
        ("8-bit", "8 - bit"),
        ("1990-1995", "1990 - 1995"),
        ("either/or", "either / or"),
        ("and/or", "and/or"),
        ("3,000.50", "3,000.50"),
        ("$5", "$ 5"),
        ("50%", "50 %"),
        ("#tag", "# tag"),
        ("__init__", "_ _ init _ _"),
        ("http://x.org/a-b,", "http://x.org/a-b ,"),
        ("me@x.org", "me@x.org"),
        ("--", "--"),
        ("日本語。", "日本語 。"),
        ("ok☺", "ok ☺"),
    ],
)
def test_pieces_are_cut_like_spacy(piece: str, tokens: str) -> None:
    assert cut(piece) == tuple(tokens.split())


def test_a_very_long_piece_is_one_token() -> None:
    assert cut("!" * 1001) == ("!" * 1001,)
    assert len(cut("!" * 1000)) == 1000
