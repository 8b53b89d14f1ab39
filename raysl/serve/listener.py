"""A replica's own HTTP listener. Replicas of a node share one port: the kernel spreads connections over them.

This spares the hop through Ray Serve's Python proxy, which costs more CPU than a small model does.
"""

import asyncio
import errno
import socket

import uvicorn

from raysl.errors import ServeError
from raysl.serve.http import HttpApp

KEEP_ALIVE_SECONDS = 75
DRAIN_SECONDS = 10


class Listener:
    """uvicorn on a shared port inside the running event loop."""

    def __init__(self, app: HttpApp, host: str, port: int) -> None:
        config = uvicorn.Config(
            app, lifespan="off", access_log=False, log_config=None, server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=DRAIN_SECONDS,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._socket = open_socket(host, port, shared=True)
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
        """Takes no new connections and answers the requests in flight."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def open_socket(host: str, port: int, shared: bool) -> socket.socket:
    """A bound socket; `shared` lets other processes of this user bind the same port."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def check_port(host: str, port: int) -> None:
    """ServeError naming the key to change, where `host:port` cannot be listened on."""
    try:
        with open_socket(host, port, shared=False) as bound:
            bound.listen(1)
    except OSError as error:
        raise ServeError(_explained(error, host, port)) from error


def _explained(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        free = _free_port(host, port)
        return f"Port {port} of {host} is in use. Stop what listens there, or choose another one: serve.port={free}."
    if error.errno == errno.EACCES:
        return f"Port {port} of {host} is not allowed to this user. Choose one from 1024 on: serve.port=8000."
    return f"serve.host={host} is no address of this machine ({error.strerror}). Use 127.0.0.1, or 0.0.0.0 for all."


def _free_port(host: str, port: int) -> int:
    for candidate in range(port + 1, min(port + 100, 65536)):
        try:
            open_socket(host, candidate, shared=False).close()
            return candidate
        except OSError:
            continue
    return 8000
