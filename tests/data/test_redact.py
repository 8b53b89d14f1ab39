"""Personal data goes, what only looks like it stays."""

from collections import Counter

import pyarrow as pa
import pytest

from raysl.data.checksums import is_card, is_iban, luhn
from raysl.data.config import RedactConfig
from raysl.data.redact import redact, redact_column

ALL = RedactConfig()


FOUND = [
    ("Write to Ann.Smith+x@mail.example.co.uk.", "Write to [EMAIL]."),
    ("<a_b@c.de>, x@y.org;", "<[EMAIL]>, [EMAIL];"),
    ("call +49 30 1234567 now", "call [PHONE] now"),
    ("(212) 555-0123 or 212-555-0123 or 1-212-555-0123", "[PHONE] or [PHONE] or [PHONE]"),
    ("Tel. 030 12345678, +1 (212) 555-0123.", "Tel. [PHONE], [PHONE]."),
    ("from 8.8.8.8, at 2001:4860:4860::8888 too", "from [IP], at [IP] too"),
    ("card 4111 1111 1111 1111!", "card [CARD]!"),
    ("amex 3782-822463-10005 and 5555555555554444", "amex [CARD] and [CARD]"),
    ("pay DE89 3704 0044 0532 0130 00 BIC", "pay [IBAN] BIC"),
    ("pay GB29NWBK60161331926819.", "pay [IBAN]."),
]


@pytest.mark.parametrize(("text", "redacted"), FOUND)
def test_personal_data_becomes_a_placeholder(text: str, redacted: str) -> None:
    assert redact(text, ALL) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "@property and x @ y and user@host and a@b.c1",
        "on 2026-11-23 12:30:45, 01/02/2003 12:30, 1999-2005, from 1.234.567,89 to 12345678901234",
        "version 1.2.3.4.5, 127.0.0.1, 10.0.0.1, 192.168.1.1, 999.1.1.1, ::1",
        "xs[a::b], std::vector, 12:30:45, ab:cd:ef:01:23:45",
        "4111 1111 1111 1112 and 1234567890123456",
        "DE89 3704 0044 0532 0130 01 and ABCD1234 and XX12 3456 7890 1234 5678",
        "3.14159265358979 and 0.0001234567 and 1e-0123456789",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redact(text, ALL) == text


def test_checksums_by_hand() -> None:
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert is_card("4111-1111-1111-1111")
    assert not is_card("0000000000000000")
    assert is_iban("DE89370400440532013000") == 22
    assert is_iban("DE89370400440532013000X") == 0
    assert is_iban("DE8937040044053201300") == 0


def test_kinds_are_chosen_and_counted() -> None:
    texts = pa.array(["a@b.org and c@d.org", "clean", "8.8.8.8 of a@b.org", None])
    column, counts = redact_column(texts, ALL)
    assert column.to_pylist() == ["[EMAIL] and [EMAIL]", "clean", "[IP] of [EMAIL]", None]
    assert counts == Counter(email=3, ip=1)
    column, counts = redact_column(texts, RedactConfig(kinds=("ip",)))
    assert column.to_pylist()[2] == "[IP] of a@b.org"
    assert counts == Counter(ip=1)


def test_clean_column_is_handed_back_as_it_is() -> None:
    texts = pa.array(["nothing here", "nor there"])
    assert redact_column(texts, ALL)[0] is texts


def test_the_cheap_test_misses_nothing_that_the_patterns_find() -> None:
    texts = [text for text, _ in FOUND]
    column, _ = redact_column(pa.array(texts), ALL)
    assert column.to_pylist() == [redact(text, ALL) for text in texts]
