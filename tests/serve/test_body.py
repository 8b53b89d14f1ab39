"""Every bad body is a 4xx that names the field and repeats nothing of the input."""

import asyncio
from typing import Any

import pytest

from raysl.serve.body import HttpError, check_headers, parse, read_body, request_id
from raysl.serve.tasks.base import MAX_TEXT_CHARS
from raysl.serve.tasks.generate import GenerateRequest

SECRET = "patient-0451"
LIMITS = {MAX_TEXT_CHARS: 40}

MALFORMED = {
    "empty": (b"", "is empty"),
    "blanks": (b"  \n", "is empty"),
    "cut off": (b'{"text": "patient-0451', "not valid JSON: EOF"),
    "an array": (b"[]", "must be a JSON object"),
    "null": (b"null", "must be a JSON object"),
    "a string": (b'"patient-0451"', "must be a JSON object"),
    "a number": (b"12", "must be a JSON object"),
    "a form": (b"text=patient-0451", "not valid JSON"),
    "random bytes": (bytes(range(256)) * 4, "not valid JSON"),
    "invalid UTF-8": (b'{"text": "patient-0451 \xff\xfe"}', "invalid UTF-8"),
    "UTF-16": ('{"text": "a"}'.encode("utf-16"), "not valid JSON"),
    "a byte order mark": (b'\xef\xbb\xbf{"text": "a"}', "not valid JSON"),
    "a lone surrogate": (b'{"text": "\\ud800"}', "not valid JSON"),
    "6000 digits": (b'{"text": ' + b"1" * 6000 + b"}", "number out of range"),
    "nested 100,000 deep": (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion limit"),
    "objects nested deep": (b'{"text": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "recursion limit"),
    "text behind the object": (b'{"text": "a"}patient-0451', "trailing characters"),
}  # fmt: skip

WRONG = {
    "no field": (b"{}", "text", "is needed and missing"),
    "NaN": (b'{"text": NaN}', "text", "must be a valid string"),
    "Infinity": (b'{"text": Infinity}', "text", "must be a valid string"),
    "a number": (b'{"text": 5}', "text", "must be a valid string"),
    "null": (b'{"text": null}', "text", "must be a valid string"),
    "a list": (b'{"text": ["patient-0451"]}', "text", "must be a valid string"),
    "an object": (b'{"text": {"patient-0451": 1}}', "text", "must be a valid string"),
    "a truth value": (b'{"text": true}', "text", "must be a valid string"),
    "an empty text": (b'{"text": ""}', "text", "must not be empty"),
    "a blank text": ('{"text": " \t\u00a0\u3000"}'.replace("\t", "\\t").encode(), "text", "must not be empty"),
    "a long text": (b'{"text": "' + b"patient-0451 " * 4 + b'"}', "text", "more characters than the 40 allowed"),
    "an unknown field": (b'{"text": "a", "patient-0451": 1}', "body", "unknown field; allowed: text, max_tokens"),
    "no whole number": (b'{"text": "a", "max_tokens": 1.5}', "max_tokens", "must be a valid integer"),
    "a number as text": (b'{"text": "a", "max_tokens": "7"}', "max_tokens", "must be a valid integer"),
    "too many": (b'{"text": "a", "max_tokens": 513}', "max_tokens", "less than or equal to 512"),
    "a huge number": (b'{"text": "a", "seed": 99999999999999999999999}', "seed", "less than or equal to"),
    "a temperature of NaN": (b'{"text": "a", "temperature": NaN}', "temperature", "must be a finite number"),
    "a temperature above all": (b'{"text": "a", "temperature": 1e999}', "temperature", "must be a finite number"),
}  # fmt: skip


def _refused(body: bytes) -> HttpError:
    with pytest.raises(HttpError) as caught:
        parse(GenerateRequest, body, LIMITS)
    assert SECRET.encode() not in caught.value.content("id")
    return caught.value


@pytest.mark.parametrize("name", MALFORMED)
def test_a_body_that_is_no_json_object_is_400(name: str) -> None:
    body, message = MALFORMED[name]
    error = _refused(body)
    assert (error.status, error.errors[0][0]) == (400, "body")
    assert message in error.errors[0][1]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_field_is_422_and_named(name: str) -> None:
    body, field, message = WRONG[name]
    error = _refused(body)
    assert (error.status, error.errors[0][0]) == (422, field)
    assert message in error.errors[0][1]


def test_every_wrong_field_is_named() -> None:
    error = _refused(b'{"text": 1, "max_tokens": 0, "top_k": -1}')
    assert [field for field, _ in error.errors] == ["text", "max_tokens", "top_k"]


def test_of_equal_keys_the_last_one_counts() -> None:
    assert parse(GenerateRequest, b'{"text": "a", "text": "b"}', LIMITS).text == "b"


@pytest.mark.parametrize("text", ["a\\u0000b", "\\ud83d\\ude00", "ünï", "x" * 40])
def test_unusual_text_is_taken(text: str) -> None:
    assert parse(GenerateRequest, f'{{"text": "{text}"}}'.encode(), LIMITS).text


@pytest.mark.parametrize("given", [b"", b"a b", b"a" * 129, b'"', b"\xff", b"a\r\nb", "ü".encode()])
def test_a_request_id_that_is_not_plain_is_replaced(given: bytes) -> None:
    name = request_id({b"x-request-id": given})
    assert len(name) == 32
    assert name.isalnum()


def test_a_plain_request_id_is_kept() -> None:
    assert request_id({b"x-request-id": b"order-7_a.B"}) == "order-7_a.B"


@pytest.mark.parametrize(
    ("header", "value"),
    [(b"content-type", b"text/plain"), (b"content-type", b"text/plain; x=application/json"), (b"content-encoding", b"gzip")],
)
def test_what_is_not_plain_json_is_415(header: bytes, value: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        check_headers({header: value}, 100)
    assert (caught.value.status, caught.value.errors[0][0]) == (415, header.decode())


def _read(parts: list[bytes], length: bytes | None, limit: int = 10, disconnect: bool = False) -> bytes:
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.disconnect"} if disconnect else {"type": "http.request", "body": b""})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    return asyncio.run(read_body(receive, {} if length is None else {b"content-length": length}, limit))


def test_a_body_in_parts_is_put_together() -> None:
    assert _read([b"ab", b"cd", b"e"], b"5") == b"abcde"


@pytest.mark.parametrize("length", [None, b"3", b"11", b"9" * 400])
def test_a_body_too_large_is_413_whatever_its_length_said(length: bytes | None) -> None:
    with pytest.raises(HttpError) as caught:
        _read([b"abcd"] * 3, length)
    assert (caught.value.status, caught.value.errors) == (413, [("body", "is larger than the 10 bytes allowed")])


def test_a_stated_length_too_large_is_413_even_if_less_comes() -> None:
    with pytest.raises(HttpError) as caught:
        _read([b"ab"], b"11")
    assert caught.value.status == 413


def test_a_client_that_asks_first_is_refused_before_it_sends() -> None:
    headers = {b"content-length": b"11", b"expect": b"100-continue"}
    with pytest.raises(HttpError) as caught:
        asyncio.run(read_body(None, headers, 10))
    assert caught.value.status == 413


def test_a_body_that_ends_early_is_400() -> None:
    with pytest.raises(HttpError) as caught:
        _read([b"ab"], b"9", disconnect=True)
    assert caught.value.status == 400
