"""HTTP by hand, for what no client library would send."""

import json
import socket
from typing import Any

TIMEOUT = 20


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def send(port: int, data: bytes, cut: bool = False) -> bytes:
    """All that comes back; `cut` closes our side after sending."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        received = b""
        try:
            connection.sendall(data)
            if cut:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except (BrokenPipeError, ConnectionResetError):
            pass
        return received


def request(path: str, body: bytes = b"", method: str = "POST", headers: tuple[str, ...] = (), **kept: str | None) -> bytes:
    """One request that asks to close; `content_type=None` and `length=...` change the usual headers."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
    content_type = kept.get("content_type", "application/json")
    lines += [f"Content-Type: {content_type}"] if content_type else []
    lines += [f"Content-Length: {kept.get('length', len(body))}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def status(answer: bytes) -> int:
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


def headers_of(answer: bytes) -> list[tuple[str, str]]:
    lines = answer.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return [(key.lower(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]


def content(answer: bytes) -> dict[str, Any]:
    return dict(json.loads(answer.split(b"\r\n\r\n", 1)[1]))


def post(port: int, path: str, body: Any, **options: Any) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = send(port, request(path, data, **options))
    return status(answer), content(answer)


def get(port: int, path: str) -> tuple[int, dict[str, Any]]:
    answer = send(port, request(path, method="GET"))
    return status(answer), content(answer)
