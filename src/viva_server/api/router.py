"""Adding routes of ours to an application, each with what all of them have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from viva_server.api.edge import Edge
from viva_server.api.problems import Problem

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Router:
    """Adds resources below a prefix, each behind the edge and with its 405."""

    def __init__(self, app: web.Application, edge: Edge, prefix: str) -> None:
        self._app = app
        self._edge = edge
        self._prefix = prefix

    def add(self, path: str, **handlers: Handler) -> web.Resource:
        """Add a resource; handlers are named by their methods, in lower case."""
        resource = self._app.router.add_resource(self._prefix + path)
        edge = self._edge
        for method, handler in {**handlers, "options": edge.preflight}.items():
            resource.add_route(
                method.upper(), edge.wrap(handler), expect_handler=edge.expect
            )
        resource.add_route(hdrs.METH_ANY, edge.wrap(_refuse_method(handlers)))
        return resource


def _refuse_method(handlers: dict[str, Handler]) -> Handler:
    allowed = ", ".join(sorted({"OPTIONS", *(name.upper() for name in handlers)}))

    async def refuse(_: web.Request) -> web.StreamResponse:
        raise Problem(
            "method_not_allowed",
            "This path does not take this method.",
            headers={"Allow": allowed},
        )

    return refuse
