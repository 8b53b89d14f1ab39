"""A replica's own HTTP listener, on the socket that all replicas of the machine share.

This spares the hop through Ray Serve's Python proxy, which costs more CPU than a small model does.
"""

import asyncio
import math
import socket

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from raysl.errors import ServeError
from raysl.serve.http import HttpApp

KEEP_ALIVE_SECONDS = 75
"""How long a connection may wait for its next request, or take for the head of one."""
NOTICE_SECONDS = 0.5
"""How long connections that are open get their answers with `connection: close` before idle ones are closed."""
MAX_HEAD_BYTES = 65_536
"""Largest address and headers of a request together; above it 431."""
SENDING_SECONDS = 3
"""For an answer that is ready in the last moment to reach its client."""


def drain_seconds(request_timeout_s: float) -> int:
    """How long a listener that stops waits for the answers to the requests in flight, of which the last is a 503."""
    return math.ceil(request_timeout_s) + SENDING_SECONDS


class LimitedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which alone takes a head of any size and joins its parts in quadratic time on the event loop.

    It also waits for ever for a head that does not come: connections that say nothing would use up all files of the process.
    """

    _late: asyncio.TimerHandle | None = None
    _head_bytes, _heads = 0, 0
    _in_head, _between_requests, _too_large = False, True, False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._late = self.loop.call_later(KEEP_ALIVE_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def data_received(self, data: bytes) -> None:
        heads, between_requests = self._heads, self._between_requests
        super().data_received(data)
        if not self._in_head:
            self._head_bytes = 0
        elif self._heads == heads + between_requests:  # else the head has begun somewhere in `data`, behind a body
            self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._late = self._late or self.loop.call_later(KEEP_ALIVE_SECONDS, self.transport.close)
        self._heads += 1
        self._in_head, self._between_requests = True, False

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_waiting()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._too_large = True
            raise ValueError("the head is too large")  # the parser's caller then answers with `send_400_response`
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._between_requests = True

    def send_400_response(self, msg: str) -> None:
        if not self._too_large:
            super().send_400_response(msg)
            return
        reason = f"The address and headers are larger than the {MAX_HEAD_BYTES} bytes allowed."
        head = f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(reason)}\r\nconnection: close"
        self.transport.write(f"HTTP/1.1 431 Request Header Fields Too Large\r\n{head}\r\n\r\n{reason}".encode())
        self.transport.close()


class Listener:
    """uvicorn inside the running event loop."""

    def __init__(self, app: HttpApp, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app, http=LimitedHeads, lifespan="off", access_log=False, log_config=None, server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=drain_seconds(app.config.request_timeout_s),
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._app, self._socket = app, listening
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when connections are accepted."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise ServeError("the HTTP listener ended while it started")
            await asyncio.sleep(0.01)

    def check(self) -> None:
        if self._task is None or self._task.done():
            raise ServeError("the HTTP listener has ended")

    async def stop(self) -> None:
        """Takes no new connections, tells clients on open ones to come back, and answers the requests in flight."""
        for server in self._server.servers:
            server.close()
        self._app.draining = True
        await asyncio.sleep(NOTICE_SECONDS)
        self._server.should_exit = True
        if self._task is not None:
            await self._task
