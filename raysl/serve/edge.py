"""What stands before Ray Serve's proxy in `proxy` mode: takes away headers by which a client would steer the proxy.

Ray lets any client override the time limit, and answers 500 to control headers that are not UTF-8. Ray Serve imports
`middlewares` into its proxies by the path in PROXY_ENVIRONMENT.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware import Middleware

from raysl.serve.body import request_id

PROXY_ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "raysl.serve.edge:middlewares"}
REQUEST_ID = b"x-request-id"
CONTROL = frozenset(
    {
        b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"serve-multiplexed-model-id", b"x-session-id",
        b"traceparent", b"tracestate", REQUEST_ID,
    }
)  # fmt: skip
"""Headers that Ray's proxy acts on, `_` written as `-`."""

Message = dict[str, Any]


class Edge:
    """ASGI middleware: no control headers in, one plain X-Request-ID in and out."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = request_id(dict(scope["headers"])).encode()
        kept = [(key, value) for key, value in scope["headers"] if key.replace(b"_", b"-") not in CONTROL]

        async def send_one_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(key, value) for key, value in message["headers"] if key.lower() != REQUEST_ID]
                message = {**message, "headers": [*headers, (REQUEST_ID, name)]}
            await send(message)

        await self.app({**scope, "headers": [*kept, (REQUEST_ID, name)]}, receive, send_one_id)


def middlewares() -> list[Middleware]:
    return [Middleware(Edge)]
