"""Reading requests and writing answers: every bad body is a 4xx that names the field and repeats nothing of the input."""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Scope = Mapping[str, Any]
Headers = Mapping[bytes, bytes]
ModelT = TypeVar("ModelT", bound=BaseModel)

BODY = "body"
MAX_DRAINED_BYTES = 64 << 20
"""Bytes of a body too large that are read and thrown away, so that the client gets to read the answer."""
MAX_ERRORS = 10
_PLAIN_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class HttpError(Exception):
    """An answer that is not 200: `errors` are (field, message) pairs."""

    def __init__(self, status: int, errors: Sequence[tuple[str, str]], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, errors)
        self.status, self.errors, self.headers = status, errors, dict(headers or {})

    def content(self, request_id: str) -> bytes:
        errors = [{"field": field, "message": message} for field, message in self.errors]
        return json.dumps({"request_id": request_id, "errors": errors}).encode()


def request_id(headers: Headers) -> str:
    """The client's X-Request-ID where it is plain (letters, digits, `.`, `_`, `-`; 128 at most), else a new one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode("ascii") if _PLAIN_ID.fullmatch(given) else uuid.uuid4().hex


def check_headers(headers: Headers, max_bytes: int) -> bool:
    """Refuses what is not JSON with 415. True where the stated length is within `max_bytes`."""
    media_type = headers.get(b"content-type", b"application/json").split(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise HttpError(415, [("content-type", "must be application/json")])
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise HttpError(415, [("content-encoding", "must be absent; send the body as it is")])
    length = headers.get(b"content-length", b"0")
    return not length.isdigit() or (len(length) < 16 and int(length) <= max_bytes)


async def read_body(receive: Any, headers: Headers, max_bytes: int) -> bytes:
    """The body, never more than `max_bytes` of it in memory; HttpError 413 above, whatever Content-Length said."""
    too_long = not check_headers(headers, max_bytes)
    if too_long and headers.get(b"expect", b"").lower() == b"100-continue":  # the client waits with the body; curl does
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    total = 0
    while total <= MAX_DRAINED_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError(400, [(BODY, "ended before it was complete")])
        part = message.get("body", b"")
        total += len(part)
        too_long = too_long or total > max_bytes
        if too_long:
            parts.clear()
        else:
            parts.append(part)
        if not message.get("more_body", False):
            break
    if too_long:
        raise _too_large(max_bytes)
    return b"".join(parts)


def _too_large(max_bytes: int) -> HttpError:
    return HttpError(413, [(BODY, f"is larger than the {max_bytes} bytes allowed")], {"connection": "close"})


def parse(model: type[ModelT], body: bytes, context: Mapping[str, Any]) -> ModelT:
    """The validated request; HttpError 400 where the body is no JSON object, 422 where a field is wrong."""
    if not body.strip():
        raise HttpError(400, [(BODY, "is empty; send a JSON object")])
    try:
        return model.model_validate_json(body, context=dict(context))
    except ValidationError as error:
        lines = error.errors(include_url=False, include_input=False)
        raise HttpError(_status(lines), [_line(model, line) for line in lines[:MAX_ERRORS]]) from None


def _status(lines: Sequence[ErrorDetails]) -> int:
    return 400 if any(not line["loc"] and line["type"] in ("json_invalid", "model_type") for line in lines) else 422


def _line(model: type[BaseModel], line: ErrorDetails) -> tuple[str, str]:
    field = str(line["loc"][0]) if line["loc"] else BODY
    if line["type"] == "json_invalid":
        problem = line["msg"].removeprefix("Invalid JSON: ").replace("invalid unicode code point", "invalid UTF-8")
        return BODY, f"is not valid JSON: {problem}"
    if line["type"] == "model_type":
        return BODY, "must be a JSON object"
    if field not in model.model_fields:  # its name is the client's own words, which stay out of answers and logs
        return BODY, f"has an unknown field; allowed: {', '.join(model.model_fields)}"
    message = line["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return field, "is needed and missing" if line["type"] == "missing" else message
