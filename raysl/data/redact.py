"""Personal data -> a placeholder by kind. A cheap test on the whole column finds the few texts that are worth a look."""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysl.data.checksums import is_card, is_iban
from raysl.data.config import RedactConfig

Kind = Literal["email", "iban", "card", "ip", "phone"]

EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}(?![a-z0-9])")
CARD = re.compile(r"(?<![0-9.,+-])[2-6][0-9]{3}(?:[ -]?[0-9]){9,15}(?![0-9]|[.,-][0-9])")
IP = re.compile(
    r"(?<![0-9A-Za-z.:])(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4})"
    r"(?![0-9A-Za-z:]|\.[0-9])"
)
"""IPv6 as far as it is given out (2000::/3); `a[b::c]` is code."""
PHONE = re.compile(
    r"""(?<![0-9A-Za-z.,/+:-])(?<![0-9][ ])(?:
      (?:\+|00)[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]{1,4}\)?){2,7}                   # +49 (30) 1234-567
    | (?:1[ .-])?(?:\([2-9][0-9]{2}\)[ ]?|[2-9][0-9]{2}[.-])[0-9]{3}[ .-][0-9]{4}  # (212) 555-0123
    | \(?0[1-9][0-9]{1,3}\)?[ /-](?:[0-9]{2,8}[ -]?){1,4}(?<=[0-9])              # 030 1234567
    )(?![0-9A-Za-z:/]|[.,-][0-9])""",
    re.VERBOSE,
)
PHONE_DIGITS = range(9, 16)
"""E.164 allows 15; shorter numbers are dates and quantities more often than telephones."""


def _is_public(address: str) -> bool:
    """Private, loopback and documentation addresses name nobody."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _is_phone(number: str) -> bool:
    return sum(char.isdigit() for char in number) in PHONE_DIGITS


@dataclass(frozen=True)
class Finder:
    """One kind: what a text needs to be worth a look (RE2), what is looked for, and the length of what is proved."""

    hint: str
    pattern: re.Pattern[str]
    proved: Callable[[str], int]
    """How many characters of a match are such data; 0 for none."""


def _whole(test: Callable[[str], bool]) -> Callable[[str], int]:
    return lambda found: len(found) if test(found) else 0


FINDERS: Mapping[Kind, Finder] = {  # in this order: what an earlier one took, a later one does not see
    "email": Finder(r"[0-9A-Za-z_%+-]@[0-9A-Za-z]", EMAIL, len),
    "iban": Finder(r"[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4}", IBAN, is_iban),
    "card": Finder(r"[2-6][0-9]{3}(?:[ -]?[0-9]){9}", CARD, _whole(is_card)),
    "ip": Finder(r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:", IP, _whole(_is_public)),
    "phone": Finder(r"(?:[0-9][ ./()-]{0,2}){9}", PHONE, _whole(_is_phone)),
}


def redact(text: str, config: RedactConfig, counts: Counter[str] | None = None) -> str:
    """The text with [EMAIL], [IBAN], [CARD], [IP] and [PHONE] in place of such data; adds to `counts` by kind."""
    for kind in _kinds(config):
        text = _replaced(text, kind, Counter() if counts is None else counts)
    return text


def _replaced(text: str, kind: Kind, counts: Counter[str]) -> str:
    finder = FINDERS[kind]

    def replacement(match: re.Match[str]) -> str:
        found = match[0]
        length = finder.proved(found)
        if length:
            counts[kind] += 1
        return f"[{kind.upper()}]{found[length:]}" if length else found

    return finder.pattern.sub(replacement, text)


def _kinds(config: RedactConfig) -> list[Kind]:
    return [kind for kind in FINDERS if kind in config.kinds]


def redact_column(texts: pa.Array, config: RedactConfig) -> tuple[pa.Array, Counter[str]]:
    """Redacts a column of texts; counts by kind. Texts in which nothing can be cost about 15 ns a character."""
    counts: Counter[str] = Counter()
    rows: dict[int, str] = {}
    for kind in _kinds(config):
        hints = np.asarray(pc.match_substring_regex(texts, FINDERS[kind].hint))
        for row in np.flatnonzero(hints).tolist():
            rows[row] = _replaced(rows[row] if row in rows else texts[row].as_py(), kind, counts)
    if not rows:
        return texts, counts
    values = texts.to_pylist()
    for row, text in rows.items():
        values[row] = text
    return pa.array(values, pa.string()), counts
