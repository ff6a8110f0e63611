"""Who may ask a server on loopback: programs of this machine and its own pages, not pages of other web sites.

A browser sends what any page asks for: a POST without a preflight, or a WebSocket, which CORS does not concern. And
where a stranger's name resolves to 127.0.0.1, his page is the server's own. Whoever may change a deployment runs
commands.
"""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_HOSTS = ["127.0.0.1", "localhost"]


def of_this_machine(app: ASGIApp, *, origins: Collection[str]) -> ASGIApp:
    """The same application for requests to a host of loopback that come from no page, or from one of some origins."""
    return TrustedHostMiddleware(_SameOrigin(app, origins=origins), allowed_hosts=_HOSTS)


class _SameOrigin:
    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            origin = Headers(scope=scope).get("origin")  # which programs do not send
            if origin is not None and origin not in self._origins:
                await PlainTextResponse("pages of other sites may not ask", status_code=403)(scope, receive, send)
                return
        await self._app(scope, receive, send)
