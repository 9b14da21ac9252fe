"""Reading a request's body: the limits in size and time, then the strict decoder."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import HttpVersion11, web

from viva_server.api.problems import Problem
from viva_server.api.wire import parse_json

BODY_BYTES = 1024 * 1024
BODY_SECONDS = 30.0


async def read_json(
    request: web.Request,
    limit_bytes: int = BODY_BYTES,
    *,
    within_seconds: float = BODY_SECONDS,
    optional: bool = False,
) -> dict[str, Any]:
    """Read the JSON object that is the request's body.

    With `optional` a request without any body counts as one with `{}`.

    Raises:
        Problem: 415 for another type, charset or any content coding; 413 and 408
            for too much or too slow a body, and the connection then closes.
        WireError: 400 for what the strict decoder refuses.
        ConnectionError: the client left.
    """
    if optional and not request.body_exists:
        return {}
    _check_type(request)
    return parse_json(
        await read_body(request, limit_bytes, within_seconds=within_seconds)
    )


async def read_body(
    request: web.Request,
    limit_bytes: int = BODY_BYTES,
    *,
    within_seconds: float = BODY_SECONDS,
) -> bytes:
    """Read at most `limit_bytes` of body, as they came over the wire.

    The limits are this function's and not the application's `client_max_size`, which
    belongs to the host. A body that a host's middleware has read is taken from there.

    Raises:
        Problem: 413, without reading on; 408 after `within_seconds`; 415 for a
            content coding, since the size of what it unpacks to is unknown.
        ConnectionError: the client left.
    """
    _check_framing(request)
    _check_coding(request)
    if (request.content_length or 0) > limit_bytes:
        raise _too_large(limit_bytes)
    try:
        async with asyncio.timeout(within_seconds):
            return await _read(request, limit_bytes)
    except TimeoutError:
        detail = "The body came too slowly."
        raise Problem("request_timeout", detail, closes=True) from None


async def _read(request: web.Request, limit_bytes: int) -> bytes:
    content = request.content
    if content.at_eof():
        return await request.read()
    body = bytearray()
    while chunk := await content.readany():
        body += chunk
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
    return bytes(body)


def _check_framing(request: web.Request) -> None:
    # RFC 9112 § 6.1: chunks in HTTP/1.0 are faulty framing. The parser skips them.
    if request.version < HttpVersion11 and "Transfer-Encoding" in request.headers:
        raise Problem("bad_request", "HTTP/1.0 has no chunks.", closes=True)


def _check_type(request: web.Request) -> None:
    # aiohttp's `content_type` takes the first of two headers and invents one for none.
    declared = request.headers.getall("Content-Type", [])
    if len(declared) != 1 or request.content_type != "application/json":
        raise _unsupported("Content-Type must be application/json.", "Content-Type")
    if (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise _unsupported("The only charset is utf-8.", "Content-Type")


def _check_coding(request: web.Request) -> None:
    codings = request.headers.getall("Content-Encoding", [])
    if any(coding.strip().lower() != "identity" for coding in codings):
        raise _unsupported("A body must not be compressed.", "Content-Encoding")


def _unsupported(detail: str, header: str) -> Problem:
    errors = [(f"/headers/{header}", detail)]
    return Problem("unsupported_media_type", detail, errors=errors, closes=True)


def _too_large(limit_bytes: int) -> Problem:
    detail = f"The body has more than {limit_bytes} bytes."
    return Problem("too_large", detail, closes=True)
