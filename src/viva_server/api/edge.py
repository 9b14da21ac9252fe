"""What a route is, adding it to an application, and what each has around it."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestPayloadError
from msgspec import Meta

from viva_server.api.problems import (
    FAILURES,
    PROBLEMS,
    RETRY_AFTER,
    Problem,
    reply_failed,
    reply_pending,
    status_of,
    unavailable,
    unexpected,
)
from viva_server.api.request import client_address
from viva_server.api.wire import Id, not_found
from viva_server.auth import ScopeError
from viva_server.config import Network
from viva_server.errors import (
    AuthError,
    FencedError,
    KeyReusedError,
    NotFoundError,
    NotNewestError,
    OverloadedError,
    ReplyPendingError,
    ResponderError,
    RowError,
    StoreError,
    TooManyRepliesError,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID = web.RequestKey("viva_request_id", str)
TYPE_PREFIX = "urn:viva:problem:"
CLIENT_GONE_STATUS = 499
"""nginx's status in an access log for a client that left before its answer."""

access_logger = logging.getLogger("viva_server.access")
error_logger = logging.getLogger("viva_server.api")

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_EXPOSED = "Content-Location, Retry-After, Viva-Message-Id, X-Request-Id"
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Idempotency-Key, Last-Event-ID"
    ),
    "Access-Control-Max-Age": "600",
}
_KEPT_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate")
_CODES = {
    status_of(code): code
    for code in (
        "bad_request",
        "unauthorized",
        "forbidden",
        "not_found",
        "method_not_allowed",
        "request_timeout",
        "too_large",
        "unsupported_media_type",
        "expectation_failed",
        "internal_error",
        "unavailable",
    )
}
"""What aiohttp and a host's handlers mean by a bare status."""


class Edge:
    """Wraps handlers: request id, problems, access log, CORS, safe headers.

    A host's application gets no middleware and no signal from it.
    """

    def __init__(
        self,
        *,
        trusted_proxies: Sequence[Network] = (),
        cors_origins: Sequence[str] = (),
    ) -> None:
        self._trusted = tuple(trusted_proxies)
        self._origins = frozenset(cors_origins)

    def wrap(self, handler: Handler) -> Handler:
        """Return `handler` with the edge around it.

        A cancellation and a client that left pass through, logged. An exception
        after a response has begun cuts the connection: no second response follows.
        """

        @functools.wraps(handler)
        async def wrapped(request: web.Request) -> web.StreamResponse:
            return await self._handle(request, handler)

        return wrapped

    def middleware(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        """Return the same as a middleware, for an application that is all ours.

        It turns what the router itself answers (404, 405) into problems.
        """

        @web.middleware
        async def problem_middleware(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            return await self._handle(request, handler)

        return problem_middleware

    def headers(self, request: web.Request) -> dict[str, str]:
        """Return what goes on every response; a stream's handler adds them itself."""
        common = {
            "X-Request-Id": request_id(request),
            "X-Content-Type-Options": "nosniff",
        }
        if not self._origins:
            return common
        common["Vary"] = "Origin"
        if (origin := request.headers.get("Origin", "")) in self._origins:
            common["Access-Control-Allow-Origin"] = origin
            common["Access-Control-Expose-Headers"] = _EXPOSED
        return common

    async def preflight(self, request: web.Request) -> web.Response:
        """Answer OPTIONS; without an allowed Origin nothing is allowed."""
        allowed = request.headers.get("Origin", "") in self._origins
        return web.Response(status=204, headers=_PREFLIGHT if allowed else None)

    async def expect(self, request: web.Request) -> web.StreamResponse | None:
        """Handle the header Expect of a route (`expect_handler`): 100, or a 417."""
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # The interim response is none: the real one has not begun.
            request.writer.output_size = 0
            return None
        problem = Problem("expectation_failed", "Only 100-continue is understood.")
        return await self.wrap(_raises(problem))(request)

    async def _handle(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if REQUEST_ID in request:  # the middleware is around it already
            return await handler(request)
        request[REQUEST_ID] = _request_id(request)
        started = perf_counter()
        status = CLIENT_GONE_STATUS
        try:
            response = await self._answer(request, handler)
            status = response.status
        except web.HTTPException as redirect:
            status = redirect.status
            raise
        finally:
            self._log(request, status, perf_counter() - started)
        return response

    async def _answer(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            response = await handler(request)
        except Exception as error:
            if isinstance(error, ConnectionError) and _is_gone(request):
                # aiohttp would log a traceback at ERROR for each client that leaves.
                return _cut(request)
            if (problem := _problem_of(error, request)) is None:
                raise
            if _has_begun(request):
                return _cut(request)
            response = problem_response(problem, request_id(request))
        if not response.prepared:
            self._dress(request, response)
        return response

    def _dress(self, request: web.Request, response: web.StreamResponse) -> None:
        for name, value in self.headers(request).items():
            response.headers.setdefault(name, value)

    def _log(self, request: web.Request, status: int, seconds: float) -> None:
        if not access_logger.isEnabledFor(logging.INFO):
            return  # what the line says costs more than the rest of the edge
        access_logger.info(
            "%s %s %d %.1fms %dB id=%s from=%s",
            request.method if request.method in _METHODS else "OTHER",
            _route(request),
            status,
            seconds * 1000,
            request.writer.output_size,
            request_id(request),
            client_address(request, self._trusted),
        )


def request_id(request: web.Request) -> str:
    """Return the request's id: the client's own if it is safe to repeat, else ours."""
    return request[REQUEST_ID]


def _request_id(request: web.BaseRequest) -> str:
    given = request.headers.get("X-Request-Id")
    return given if given and _SAFE_ID.fullmatch(given) else os.urandom(16).hex()


def _route(request: web.Request) -> str:
    # The template, not the path: a path can hold anything, and names persons' rows.
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "-"


def _problem_of(error: Exception, request: web.Request) -> Problem | None:
    """Return the problem to answer with; None for a host's redirect."""
    if (problem := to_problem(error)) is not None:
        return problem
    if isinstance(error, web.HTTPException):
        return None
    error_logger.error(
        "unexpected error at %s, id=%s",
        _route(request),
        request_id(request),
        exc_info=error,
    )
    return unexpected()


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _has_begun(request: web.Request) -> bool:
    # `prepare` sets the length or chunking; the headers wait for the first write.
    writer = request.writer
    return bool(
        writer.output_size
        or writer.length is not None
        or getattr(writer, "chunked", False)
    )


def _cut(request: web.Request) -> web.StreamResponse:
    """Drop the connection without a clean end of the response.

    What is returned is never sent: aiohttp finds the transport closing.
    """
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=CLIENT_GONE_STATUS)


def _raises(problem: Problem) -> Handler:
    async def handler(_request: web.Request) -> web.StreamResponse:
        raise problem

    return handler


def to_problem(error: BaseException) -> Problem | None:
    """Return the problem that `error` is; None if nobody expected it."""
    match error:
        case Problem():
            return error
        case AuthError():
            return _auth_problem(error)
        case NotFoundError():
            return not_found(error.kind)
        case NotNewestError():
            return Problem("not_newest", str(error))
        case KeyReusedError():
            return Problem(
                "idempotency_key_reused",
                "This Idempotency-Key belongs to another body.",
            )
        case TooManyRepliesError():
            detail = "You have too many replies under way."
            return Problem("too_many_replies", detail, headers=RETRY_AFTER)
        case OverloadedError() | FencedError():
            return unavailable()
        case RowError():
            return Problem("not_storable", "The database refuses what was sent.")
        case StoreError():
            return unavailable()
        case ReplyPendingError():
            return reply_pending(error.message_id)
        case ResponderError():
            return reply_failed(
                error.code, "The model gave no reply.", retryable=error.retryable
            )
        case RequestPayloadError():
            return Problem("bad_body", "The body broke off.", closes=True)
        case web.HTTPException():
            return _http_problem(error)
    return None


def problem_response(problem: Problem, request_id: str) -> web.Response:
    """Return the answer, as application/problem+json."""
    body = json.dumps(_members(problem, request_id), separators=(",", ":"))
    response = web.Response(
        status=problem.status,
        body=body.encode(),  # json.dumps escapes all that UTF-8 cannot hold
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store", **problem.headers},
    )
    if problem.closes:
        response.force_close()
    return response


def _members(problem: Problem, request_id: str) -> dict[str, Any]:
    members = {
        **problem.extra,
        "type": TYPE_PREFIX + problem.code,
        "title": _title(problem.status),
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
        "retryable": problem.retryable,
    }
    if problem.errors:
        members["errors"] = [
            {"pointer": pointer, "message": message}
            for pointer, message in problem.errors
        ]
    return members


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _auth_problem(error: AuthError) -> Problem:
    if isinstance(error, ScopeError):
        # RFC 6750 § 3.1: a good token without the scope is 403, not 401.
        challenge = f'Bearer error="insufficient_scope", scope="{error.scope}"'
        detail = "The token does not carry the scope that this needs."
        headers = {"WWW-Authenticate": challenge}
        return Problem("insufficient_scope", detail, headers=headers)
    detail = "A valid Bearer token is needed."
    headers = {"WWW-Authenticate": "Bearer"}
    return Problem("unauthorized", detail, headers=headers)


def _http_problem(error: web.HTTPException) -> Problem | None:
    if error.status < 400:
        return None
    kept = {
        name: error.headers[name] for name in _KEPT_HEADERS if name in error.headers
    }
    code = _CODES.get(error.status, f"http_{error.status}")
    detail = f"{_title(error.status)}."
    return Problem(
        code, detail, status=error.status, headers=kept, closes=error.status == 413
    )


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
        members = {name for kind in kinds for name in _fields(kind)}
        codes = {
            *ANYWHERE,
            *_REFUSALS[self.access],
            *(_BODY_CODES if _fields(self.body) else ()),
            *(_RAW_BODY_CODES if self.body is dict else ()),
            *(
                code
                for name in (*members, *re.findall(r"\w+", path))
                for code in _CODES_OF.get(name, ())
            ),
            *self.codes,
        }
        return [code for code in (*PROBLEMS, *FAILURES) if code in codes]


def _fields(kind: type | None) -> tuple[str, ...]:
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
