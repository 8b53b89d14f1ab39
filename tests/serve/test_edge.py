"""What reaches Ray's proxy: no header that steers it, one plain request id."""

import asyncio
from typing import Any

import pytest

from raysl.serve.edge import Edge


def _through(headers: list[tuple[bytes, bytes]], answered: list[tuple[bytes, bytes]]) -> tuple[list[Any], list[Any]]:
    """Headers that come out on the other side, and those the client sees."""
    inner: list[Any] = []
    sent: list[Any] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        inner.extend(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": answered})

    async def send(message: dict[str, Any]) -> None:
        sent.extend(message["headers"])

    asyncio.run(Edge(app)({"type": "http", "headers": headers}, None, send))
    return inner, sent


STEERING = (
    b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"serve_multiplexed_model_id", b"x-session-id",
    b"traceparent",
)  # fmt: skip


@pytest.mark.parametrize("name", STEERING)
def test_headers_that_steer_the_proxy_are_taken_away(name: bytes) -> None:
    inner, _ = _through([(name, b"\xff"), (b"accept", b"*/*")], [])
    assert [key for key, _ in inner] == [b"accept", b"x-request-id"]


def test_client_and_service_see_one_and_the_same_plain_request_id() -> None:
    inner, sent = _through([(b"x-request-id", b"a\xff")], [(b"x-request-id", b"one"), (b"x-request-id", b"two")])
    assert len(inner) == len(sent) == 1
    assert inner == sent


def test_a_plain_request_id_is_kept() -> None:
    inner, sent = _through([(b"x-request-id", b"order-7")], [])
    assert inner == sent == [(b"x-request-id", b"order-7")]
