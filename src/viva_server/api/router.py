"""What a route is, and adding it to an application with what all of them have."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta

from viva_server.api.codes import FAILURES, PROBLEMS
from viva_server.api.edge import Edge
from viva_server.api.problems import Problem
from viva_server.api.wire import Id

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Access = Literal["all", "person", "admin", "local", "webhook"]


ANYWHERE: Final = ("bad_request", "expectation_failed", "internal_error")
"""Codes that any route may answer with."""

_REFUSALS: Final[Mapping[Access, tuple[str, ...]]] = {
    "all": (),
    "person": ("unauthorized", "unavailable"),
    "admin": ("unauthorized", "insufficient_scope", "unavailable"),
    "local": ("unauthorized", "insufficient_scope"),
    "webhook": ("wrong_secret", "unavailable"),
}
_BODY_CODES: Final = (
    *("bad_body", "empty_body", "invalid_utf8", "invalid_json", "not_an_object"),
    *("duplicate_key", "invalid_number", "invalid_text", "too_deep"),
    *("too_many_values", "request_timeout", "too_large", "unsupported_media_type"),
    *("validation_error", "not_storable"),
)
_RAW_BODY_CODES: Final = ("bad_body", "content_encoding", "invalid_json")
_CODES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("before", "limit", "page", "page_size"), ("bad_query",)),
    "Idempotency-Key": ("bad_idempotency_key", "idempotency_key_reused"),
    "key_id": ("message_not_found",),
    "message_id": ("message_not_found",),
    "session_id": ("session_not_found",),
}
"""What may be wrong with a parameter, or with a member of a body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path, and all that its callers have to know of it.

    `id` is the name of the operation in OpenAPI. `handler` is a method of the class
    of its group; its docstring is the description. The fields of `headers` and
    `query` are the parameters. `body` is `dict` where any object is taken; `answer`
    has one type, or several any of which may be sent. `no_content` says when the
    answer is a 204. `codes` are those of problems that do not follow from the rest.
    With `has_head` HEAD gives the same without a body.
    """

    id: str
    method: Literal["get", "post", "delete"]
    path: str
    handler: Callable[[Any, web.Request], Awaitable[web.StreamResponse]]
    access: Access
    headers: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    body: type | None = None
    is_body_optional: bool = False
    answer: tuple[type, ...] = ()
    no_content: str = ""
    codes: tuple[str, ...] = ()
    has_head: bool = False

    def problem_codes(self, path: str) -> list[str]:
        """Name every code of a problem that `path` may answer with, in their order."""
        kinds = (self.headers, self.query, self.body)
        members = {name for kind in kinds for name in _members(kind)}
        codes = {
            *ANYWHERE,
            *_REFUSALS[self.access],
            *(_BODY_CODES if _members(self.body) else ()),
            *(_RAW_BODY_CODES if self.body is dict else ()),
            *(
                code
                for name in (*members, *re.findall(r"\w+", path))
                for code in _CODES_OF.get(name, ())
            ),
            *self.codes,
        }
        return [code for code in (*PROBLEMS, *FAILURES) if code in codes]


def _members(kind: type | None) -> tuple[str, ...]:
    return getattr(kind, "__struct_encode_fields__", ())


class PathParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What may stand in a path."""

    message_id: Annotated[Id, Meta(description="A reply of the person.")]
    session_id: Annotated[Id, Meta(description="A session of the person.")]
    key_id: Annotated[
        str,
        Meta(
            description="WhatsApp's id of a person's message, or of one that was sent."
        ),
    ]
    event: Annotated[
        str,
        Meta(
            description="The event's name as Evolution writes it in a path; anything "
            "is taken, more segments among it."
        ),
    ]


class Group(NamedTuple):
    """The routes of one subject; `handlers` is the class of their handlers.

    With `is_at_root` a standalone server has them without the prefix, too.
    """

    name: str
    handlers: type
    routes: tuple[Route, ...]
    is_at_root: bool = False


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

    def add_group(self, group: Group, handlers: object) -> dict[str, web.Resource]:
        """Add the routes of a group, whose handlers are methods of `handlers`.

        Gives their resources by the ids of the routes.
        """
        by_path: dict[str, dict[str, Handler]] = {}
        for route in group.routes:
            methods = by_path.setdefault(route.path, {})
            handler = partial(route.handler, handlers)
            methods[route.method] = handler
            if route.has_head:
                methods["head"] = handler
        added = {path: self.add(path, **each) for path, each in by_path.items()}
        return {route.id: added[route.path] for route in group.routes}


def _refuse_method(handlers: dict[str, Handler]) -> Handler:
    allowed = ", ".join(sorted({"OPTIONS", *(name.upper() for name in handlers)}))

    async def refuse(_: web.Request) -> web.StreamResponse:
        raise Problem(
            "method_not_allowed",
            "This path does not take this method.",
            headers={"Allow": allowed},
        )

    return refuse
