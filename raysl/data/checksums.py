"""Numbers that carry their own proof: payment cards (Luhn, ISO/IEC 7812) and bank accounts (IBAN, ISO 13616)."""

import re

CARD_LENGTHS = (
    (re.compile(r"4"), (13, 16, 19)),
    (re.compile(r"5[1-5]|2(?:2[2-9]|[3-6]|7[01]|720)"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"3(?:0[0-5]|[689])"), (14, 16)),
    (re.compile(r"35|6"), (16, 17, 18, 19)),
)
"""First digits of an issuer and the lengths of its numbers: of random digits that pass Luhn they leave one in four."""
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27,
    "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28,
    "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
"""Characters of an account number by country."""


def luhn(digits: str) -> bool:
    """Whether the check digit is right: every second digit from the right is doubled, the sum ends in 0."""
    doubled = [int(digit) * 2 for digit in digits[-2::-2]]
    total = sum(map(int, digits[-1::-2])) + sum(value - 9 if value > 9 else value for value in doubled)
    return total % 10 == 0


def is_card(number: str) -> bool:
    """Whether digits (blanks and hyphens aside) are a number that an issuer could have given out."""
    digits = re.sub(r"[ -]", "", number)
    known = any(prefix.match(digits) and len(digits) in lengths for prefix, lengths in CARD_LENGTHS)
    return known and len(set(digits)) > 1 and luhn(digits)


def is_iban(text: str) -> int:
    """How many characters at the begin of `text` are a bank account whose check digits are right; 0 for none."""
    wanted = IBAN_LENGTHS.get(text[:2], 0)
    places = [place for place, char in enumerate(text) if char != " "][:wanted]
    if not wanted or len(places) < wanted:
        return 0
    end = places[-1] + 1
    if text[end : end + 1] not in ("", " "):
        return 0
    number = text[:end].replace(" ", "")
    return end if int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1 else 0
