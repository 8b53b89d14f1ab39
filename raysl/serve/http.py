"""The HTTP face of a service: a bare ASGI application, because validation and errors are our own.

It runs under any ASGI server: inside a Ray Serve replica, or under uvicorn alone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from raysl.serve.body import HttpError, Scope, read_body, request_id
from raysl.serve.openapi import document
from raysl.serve.service import FEEDBACK, INFO, Service

logger = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = dict[bytes, bytes]
JSON = b"application/json"


class HttpApp:
    """GET /healthz, /v1/info, /openapi.json; POST /v1/<task>, /v1/feedback. Everything else is 404 or 405."""

    def __init__(self, service: Service) -> None:
        self.service, self.config = service, service.config
        self.gets = {"/healthz": self._health, f"/v1/{INFO}": service.info, "/openapi.json": self._openapi}
        self.posts = {f"/v1/{name}" for name in (*service.tasks, FEEDBACK)}
        self.in_flight = 0
        """Requests that are being answered."""
        self.draining = False
        """Whether clients are told to close their connections, because this replica is going."""
        self._document = document(service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
        else:
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """The service is opened and closed by whoever made it."""
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = dict(scope["headers"])
        name = request_id(headers)
        extra = {"connection": "close"} if self.draining else {}
        try:
            status, content = 200, await self._answer(scope, headers, receive, name)
        except HttpError as error:
            status, content, extra = error.status, error.content(name), extra | error.headers
        except Exception:
            logger.exception("request %s failed", name)
            status, content = 500, HttpError(500, [("service", "failed; its log has the reason")]).content(name)
        await _respond(send, status, content, name, extra, scope["method"] == "HEAD")

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive, name: str) -> bytes:
        path, method = scope["path"], scope["method"]
        if path in self.gets:
            _allow(method, ("GET", "HEAD"))
            return self.gets[path](name)
        if path not in self.posts:
            known = ", ".join([*self.gets, *sorted(self.posts)])
            raise HttpError(404, [("path", f"is none of {known}")])
        _allow(method, ("POST",))
        return await self._post(path.removeprefix("/v1/"), headers, receive, name)

    async def _post(self, task: str, headers: Headers, receive: Receive, name: str) -> bytes:
        limit = self.config.max_ongoing_requests + max(0, self.config.max_queued_requests)
        if self.config.max_queued_requests >= 0 and self.in_flight >= limit:
            raise HttpError(503, [("service", "is busy; try again later")], {"retry-after": "1"})
        self.in_flight += 1
        deadline = asyncio.get_running_loop().time() + self.config.request_timeout_s  # of body and answer together
        try:
            body = await self._body(receive, headers, deadline)
            if task == FEEDBACK:
                return self.service.feedback(body, name)
            async with asyncio.timeout_at(deadline):
                return await self.service.ask(task, body, name)
        except TimeoutError:
            raise HttpError(503, [("service", "took too long; try again later")], {"retry-after": "1"}) from None
        finally:
            self.in_flight -= 1

    async def _body(self, receive: Receive, headers: Headers, deadline: float) -> bytes:
        try:
            async with asyncio.timeout_at(deadline):
                return await read_body(receive, headers, self.service.max_body_bytes)
        except TimeoutError:
            raise HttpError(408, [("body", "came too slowly")], {"connection": "close"}) from None

    def _health(self, name: str) -> bytes:
        return b'{"status": "ok"}'

    def _openapi(self, name: str) -> bytes:
        return self._document


def _allow(method: str, methods: tuple[str, ...]) -> None:
    if method not in methods:
        raise HttpError(405, [("method", f"must be {' or '.join(methods)}")], {"allow": ", ".join(methods)})


async def _respond(send: Send, status: int, content: bytes, name: str, extra: dict[str, str], head: bool) -> None:
    headers = [(b"content-type", JSON), (b"content-length", str(len(content)).encode()), (b"x-request-id", name.encode())]
    headers += [(key.encode(), value.encode()) for key, value in extra.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else content})
