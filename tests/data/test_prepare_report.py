"""What the last lines of `prepare` say."""

import pytest

from raysl.data.prepare_report import table, token_metrics

COUNTS = {"documents_in": 200, "kept": 150, "dropped": {"too_short": 10, "near_duplicate": 40}, "vocab_size": 1000,
          "tokens": {"train": 9000, "validation": 1012}}  # fmt: skip


def test_token_statistics_are_those_of_held_out_text() -> None:
    splits = {
        "train": {"documents": 1, "tokens": 2, "bytes": 3, "unknown": 1},
        "validation": {"documents": 12, "tokens": 1012, "bytes": 4250, "unknown": 5},  # 12 of the tokens are [SEP]
    }
    assert token_metrics(splits) == {"bytes_per_token": 4.25, "unknown_rate": 0.005}
    splits["validation"] = {"documents": 0, "tokens": 0, "bytes": 0, "unknown": 0}
    assert token_metrics(splits) == {}


@pytest.mark.parametrize(
    ("more", "metrics", "last"),
    [
        ({}, {"bytes_per_token": 4.25, "unknown_rate": 0.005}, ["  held out: 4.25 bytes a token, 0.500% unknown"]),
        (
            {"cuts": {"validation_from": "2011-10-01", "test_from": "2011-11-01"}},
            {"popularity_loss": 7.4668, "unknown_rate": 0.0465},
            [
                "  held out: 4.7% unknown items; loss by popularity 7.467",
                "  validation from 2011-10-01, test from 2011-11-01",
            ],
        ),
    ],
    ids=["text", "behaviour"],
)
def test_table_ends_with_what_was_measured(more: dict[str, object], metrics: dict[str, float], last: list[str]) -> None:
    lines = table(COUNTS | more, metrics, "rows").splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["rows", "in", "200", "100.0%"],
        ["-", "near_duplicate", "40", "20.0%"],
        ["-", "too_short", "10", "5.0%"],
        ["kept", "150", "75.0%"],
    ]
    assert lines[4] == "  tokens: train 9,000, validation 1,012; vocabulary 1,000"
    assert lines[5:] == last
