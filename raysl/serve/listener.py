"""A replica's own HTTP listener, on the socket that all replicas of the machine share.

This spares the hop through Ray Serve's Python proxy, which costs more CPU than a small model does.
"""

import asyncio
import math
import socket

import uvicorn

from raysl.errors import ServeError
from raysl.serve.http import HttpApp

KEEP_ALIVE_SECONDS = 75
NOTICE_SECONDS = 0.5
"""How long connections that are open get their answers with `connection: close` before idle ones are closed."""
SENDING_SECONDS = 3
"""For an answer that is ready in the last moment to reach its client."""


def drain_seconds(request_timeout_s: float) -> int:
    """How long a listener that stops waits for the answers to the requests in flight, of which the last is a 503."""
    return math.ceil(request_timeout_s) + SENDING_SECONDS


class Listener:
    """uvicorn inside the running event loop."""

    def __init__(self, app: HttpApp, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app, lifespan="off", access_log=False, log_config=None, server_header=False,
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
