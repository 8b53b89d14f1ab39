"""The service behind a real socket: right answers, 4xx for everything bad, and still serving after each."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pyarrow.parquet as pq
import pytest
import uvicorn
from conftest import listening, with_config
from raw_http import content, get, headers_of, post, request, send, status
from uvicorn.server import ServerState

from raysl.monitor.recorder import read_records
from raysl.serve.config import RecordConfig
from raysl.serve.listener import LimitedHeads
from raysl.serve.service import Service, Settings
from tests.tiny_bundle import CLASSES, make_bundle

MARK = "patient-0451-secret"
CLASSIFY = "/v1/classify"
GOOD = b'{"text": "apple banana"}'


@pytest.fixture
def port(service: Service) -> int:
    return service.config.port


def test_every_task_answers_at_its_address(port: int) -> None:
    assert post(port, CLASSIFY, {"text": "saw"})[1]["label"] == "tool"
    assert len(post(port, "/v1/embed", {"text": "saw"})[1]["embedding"]) == 4
    assert post(port, "/v1/search", {"text": "saw", "limit": 1})[1]["documents"][0]["id"] == "b"
    assert post(port, "/v1/generate", {"text": "cat", "temperature": 0, "max_tokens": 1})[1]["text"] == "dog"


def test_what_prepare_replaced_is_neither_read_nor_recorded(settings: Settings, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "redacting", redact={"kinds": ["email"]})
    redacting = replace(with_config(settings, record=RecordConfig()), bundle_folder=folder)
    with listening(redacting) as service:
        answers = [
            post(service.config.port, "/v1/embed", {"text": text})[1]["embedding"]
            for text in ("apple a.b@example.org", "apple [EMAIL]", "apple saw")
        ]
        service.recorder.flush()  # type: ignore[union-attr]
    assert answers[0] == answers[1] != answers[2]
    texts = read_records(redacting.run_folder)["text"].to_pylist()
    assert texts == ["apple [EMAIL]", "apple [EMAIL]", "apple saw"]


def test_info_says_what_is_served(port: int) -> None:
    code, info = get(port, "/v1/info")
    assert (code, info["name"], info["version"], info["classes"]) == (200, "tiny", 1, list(CLASSES))
    assert info["tasks"] == ["classify", "embed", "search", "generate"]
    assert get(port, "/healthz")[0] == 200


def test_openapi_describes_every_address(port: int) -> None:
    code, document = get(port, "/openapi.json")
    assert (code, document["openapi"]) == (200, "3.1.0")
    posts = {path for path, item in document["paths"].items() if "post" in item}
    assert posts == {"/v1/classify", "/v1/embed", "/v1/search", "/v1/generate", "/v1/feedback"}
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in document["components"]["schemas"]


def test_the_request_id_is_in_the_answer_and_its_header(port: int) -> None:
    for given, kept in (("X-Request-ID: order-7", True), ('X-Request-ID: a"b', False)):
        answer = send(port, request(CLASSIFY, GOOD, headers=(given,)))
        (name,) = [value for key, value in headers_of(answer) if key == "x-request-id"]
        assert content(answer)["request_id"] == name
        assert (name == "order-7") == kept


def test_an_error_carries_the_request_id_too(port: int) -> None:
    answer = send(port, request(CLASSIFY, b"{}", headers=("X-Request-ID: order-8",)))
    assert content(answer) == {"request_id": "order-8", "errors": [{"field": "text", "message": "is needed and missing"}]}


def _bad() -> Iterator[tuple[str, bytes]]:
    yield "a megabyte of text", request(CLASSIFY, json.dumps({"text": MARK * 50_000}).encode())
    yield "60 MB", request(CLASSIFY, b'{"text": "' + b"a" * 60_000_000 + b'"}')
    yield "long text", request(CLASSIFY, json.dumps({"text": MARK * 200}).encode())
    yield "invalid UTF-8", request(CLASSIFY, b'{"text": "%s\xff"}' % MARK.encode())
    yield "empty text", request(CLASSIFY, b'{"text": ""}')
    yield "wrong field", request(CLASSIFY, json.dumps({MARK: 1}).encode())
    yield "text/plain", request(CLASSIFY, MARK.encode(), content_type="text/plain")
    yield "gzip", request(CLASSIFY, GOOD, headers=("Content-Encoding: gzip",))
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "FOO"):
        yield f"method {method}", request(CLASSIFY, b"", method)
    yield "post on a get", request("/v1/info", GOOD)
    for path in ("/nope", "/../../etc/passwd", "/%00", "/%ff", "/v1/", "/v1/classify/", "/" + "a" * 50_000):
        yield f"path {path[:20]}", request(path, GOOD)
    yield "negative length", request(CLASSIFY, GOOD, length="-5")
    yield "length abc", request(CLASSIFY, GOOD, length="abc")
    yield "two lengths", request(CLASSIFY, GOOD, headers=("Content-Length: 3",))
    yield "length and chunks", request(CLASSIFY, b"0\r\n\r\n", headers=("Transfer-Encoding: chunked",))
    head = f"POST {CLASSIFY} HTTP/1.1\r\nHost: x\r\n"
    yield "bad chunk", f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\nabc\r\n".encode()
    yield "garbage", b"\x00\x01\x02garbage\r\n\r\n"
    yield "HTTP/9.9", request(CLASSIFY, GOOD).replace(b"HTTP/1.1", b"HTTP/9.9")
    yield "TLS hello", bytes.fromhex("16030100c8010000c40303") + b"\x00" * 190 + b"\r\n\r\n"


@pytest.mark.parametrize("name", dict(_bad()))
def test_bad_requests_are_4xx_echo_nothing_and_leave_the_service_up(port: int, name: str) -> None:
    answer = send(port, dict(_bad())[name])
    assert 400 <= status(answer) < 500, answer[:200]
    assert MARK.encode() not in answer
    assert post(port, CLASSIFY, GOOD)[0] == 200


def test_a_client_that_leaves_in_the_middle_does_no_harm(port: int) -> None:
    send(port, request(CLASSIFY, b'{"text"', length="500"), cut=True)
    assert post(port, CLASSIFY, GOOD)[0] == 200


@pytest.mark.parametrize(
    "header", ["x-request-timeout-seconds: 0.0001", "x-request-timeout-seconds: \xff", "cookie: \xff\xfe"]
)
def test_headers_do_not_steer_the_service(port: int, header: str) -> None:
    assert post(port, CLASSIFY, GOOD, headers=(header,))[0] == 200


def test_a_body_in_chunks_is_limited_while_it_streams(port: int) -> None:
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    head = f"POST {CLASSIFY} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n".encode()
    assert status(send(port, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 20 + b"0\r\n\r\n")) == 413


def test_a_large_head_is_431(port: int) -> None:
    assert status(send(port, request(CLASSIFY, GOOD, headers=("Cookie: " + "a" * 100_000,)))) == 431
    assert status(send(port, request(CLASSIFY, GOOD, headers=("Cookie: " + "a" * 50_000,)))) == 200


def test_a_head_is_limited_while_it_streams(port: int) -> None:
    parts, answer = 0, b""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(f"POST {CLASSIFY} HTTP/1.1\r\nCookie: ".encode())
        connection.setblocking(False)
        while not answer and parts < 100:
            connection.send(b"a" * 10_000)
            parts += 1
            time.sleep(0.01)
            with suppress(BlockingIOError):
                answer = connection.recv(65536)
    assert status(answer) == 431
    assert parts < 20


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1/cl", request("/healthz", method="GET").replace(b"close", b"keep-alive") + b"GET /"]
)
def test_a_connection_whose_head_does_not_come_is_closed(port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysl.serve.listener.KEEP_ALIVE_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(sent)
        while connection.recv(65536):
            pass
    held = request(CLASSIFY, GOOD)
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(held[:-3])  # a body that is slow has the time of a request
        time.sleep(0.6)
        connection.sendall(held[-3:])
        assert status(connection.recv(65536)) == 200


def test_a_head_behind_a_large_body_is_counted_alone() -> None:
    """Of two requests in one read the second is not yet whole."""
    body = b"a" * 200_000
    first = f"POST {CLASSIFY} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    transport = MagicMock(**{"is_closing.return_value": False, "get_extra_info.return_value": None})

    async def app(scope: object, receive: object, send: object) -> None:
        """Answers nothing."""

    async def receive() -> None:
        protocol = LimitedHeads(uvicorn.Config(app=app), ServerState(), {})
        protocol.connection_made(transport)
        protocol.data_received(first + request(CLASSIFY, GOOD)[:60])
        assert not transport.write.called
        protocol.data_received(b"a" * 70_000)
        assert transport.write.call_args.args[0].startswith(b"HTTP/1.1 431 ")
        await asyncio.sleep(0)  # the first request's task begins

    asyncio.run(receive())


def test_feedback_names_a_known_class(port: int) -> None:
    assert post(port, "/v1/feedback", {"request_id": "a-1", "label": "tool"})[0] == 200
    code, answer = post(port, "/v1/feedback", {"request_id": "a-1", "label": MARK})
    assert (code, answer["errors"][0]["field"]) == (422, "label")
    assert post(port, "/v1/feedback", {"request_id": "a b", "label": "tool"})[1]["errors"][0]["field"] == "request_id"


def test_feedback_takes_a_class_as_info_names_it(settings: Settings, tmp_path: Path) -> None:
    """`prepare` keeps labels as they are: with blanks around them, or with accents as macOS writes them."""
    classes = ["tool ", "cafe\u0301", "a\u00a0b"]
    bundle = make_bundle(tmp_path / "bundle", classes=classes)
    with listening(replace(with_config(settings), bundle_folder=bundle, run_folder=tmp_path)) as service:
        for label in get(service.config.port, "/v1/info")[1]["classes"]:
            assert post(service.config.port, "/v1/feedback", {"request_id": "a", "label": label})[0] == 200
        for label in ("tool", " ", ""):
            assert post(service.config.port, "/v1/feedback", {"request_id": "a", "label": label})[0] == 422
        service.recorder.flush()  # type: ignore[union-attr]
    (path,) = (tmp_path / "records" / "feedback").glob("*.parquet")
    assert pq.read_table(path)["label"].to_pylist() == classes


def test_answers_are_recorded_and_joined_with_feedback(service: Service) -> None:
    port = service.config.port
    name = post(port, CLASSIFY, {"text": "drill saw"})[1]["request_id"]
    post(port, "/v1/feedback", {"request_id": name, "label": "animal"})
    service.recorder.flush()
    (row,) = [row for row in read_records(service.settings.run_folder).to_pylist() if row["request_id"] == name]
    assert (row["text"], row["prediction"], row["label"], row["task"], row["version"]) == (
        "drill saw", "tool", "animal", "classify", 1)  # fmt: skip
    assert row["confidence"] > 0.9
    assert len(row["embedding"]) == 4
    assert 0 < row["model_ms"] < row["latency_ms"] < 5000


def test_without_records_feedback_is_404_and_answers_go_on(settings: Settings) -> None:
    with listening(with_config(settings, record=RecordConfig(enabled=False))) as service:
        port = service.config.port
        assert post(port, "/v1/feedback", {"request_id": "a", "label": "tool"})[0] == 404
        assert post(port, CLASSIFY, GOOD)[0] == 200


class _Held:
    """Holds one task's model up until it is let go."""

    def __init__(self, service: Service) -> None:
        self.gate = threading.Event()
        batcher = service._batchers["classify"]
        predict = batcher.predict
        batcher.predict = lambda requests: (self.gate.wait(20), predict(requests))[1]


def test_above_the_limit_requests_are_503_with_retry_after(settings: Settings) -> None:
    with listening(with_config(settings, max_ongoing_requests=2, max_queued_requests=1)) as service:
        held, port = _Held(service), service.config.port
        threads = [threading.Thread(target=post, args=(port, CLASSIFY, GOOD)) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        answer = send(port, request(CLASSIFY, GOOD))
        assert status(answer) == 503
        assert ("retry-after", "1") in headers_of(answer)
        assert get(port, "/healthz")[0] == 200
        held.gate.set()
        for thread in threads:
            thread.join()
        assert post(port, CLASSIFY, GOOD)[0] == 200


def test_a_request_that_takes_too_long_is_503_and_a_hanging_model_is_unhealthy(settings: Settings) -> None:
    with listening(with_config(settings, request_timeout_s=0.2)) as service:
        held, port = _Held(service), service.config.port
        service.check()
        assert post(port, CLASSIFY, GOOD)[0] == 503
        time.sleep(0.6)
        with pytest.raises(Exception, match="classify has been at work"):
            service.check()
        held.gate.set()


def test_the_time_limit_is_of_body_and_answer_together(settings: Settings) -> None:
    """A replica that goes waits as long as that and no longer."""
    data = request(CLASSIFY, GOOD)
    with listening(with_config(settings, request_timeout_s=1.0)) as service:
        held, started = _Held(service), time.monotonic()
        with socket.create_connection(("127.0.0.1", service.config.port)) as client:
            client.sendall(data[:-5])
            time.sleep(0.7)
            client.sendall(data[-5:])
            assert status(client.recv(1000)) == 503
            assert time.monotonic() - started < 1.4
        held.gate.set()


def test_a_fault_of_a_task_is_a_500_without_its_reason(settings: Settings) -> None:
    with listening(with_config(settings)) as service:

        def fail(requests: object) -> list[object]:
            raise RuntimeError(MARK)

        service._batchers["classify"].predict = fail
        code, answer = post(service.config.port, CLASSIFY, GOOD)
        assert (code, MARK in json.dumps(answer)) == (500, False)
        assert post(service.config.port, "/v1/embed", GOOD)[0] == 200


def test_many_clients_at_once_get_their_own_answers(port: int) -> None:
    words = {"apple": "fruit", "saw": "tool", "horse": "animal"}
    wrong: list[str] = []

    def ask(word: str, label: str) -> None:
        for _ in range(20):
            code, answer = post(port, CLASSIFY, {"text": word})
            if code != 200 or answer["label"] != label:
                wrong.append(word)

    threads = [threading.Thread(target=ask, args=pair) for pair in list(words.items()) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
