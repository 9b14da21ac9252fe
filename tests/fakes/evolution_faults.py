"""What Evolution API may do instead of answering a sendText well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Fault:
    """One answer that goes wrong.

    `effect`: the message is sent all the same. `ends`: "answer", "drop" (the connection
    is reset without an answer) or "hang" (nothing comes until the client leaves).
    """

    status: int = 201
    message: object = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    effect: bool = False
    ends: str = "answer"
    raw: bytes | None = None

    def body(self) -> dict[str, object]:
        """Return the JSON that Evolution's error handler makes."""
        body: dict[str, object] = {
            "status": self.status,
            "error": _ERRORS.get(self.status, "Internal Server Error"),
        }
        if self.code:
            body["code"] = self.code
        return {**body, "response": {"message": self.message}}


_ERRORS: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
}
_ABSENT: Final = [{"jid": "x", "exists": False, "number": "x"}]

FAULTS: Final[Mapping[str, Fault]] = {
    "400": Fault(400, [["instance.number is not of a type(s) string"]]),
    "401": Fault(401, "Unauthorized"),
    "403": Fault(403, "Forbidden"),
    "404": Fault(404, ['The "loja" instance does not exist']),
    "429": Fault(429, "Too many requests", headers={"Retry-After": "7"}),
    "500": Fault(500, "Internal Server Error"),
    "502": Fault(502, raw=b"<html>502 Bad Gateway</html>"),
    "503": Fault(503, "Service Unavailable"),
    "504": Fault(504, raw=b"<html>504</html>"),
    "absent": Fault(400, _ABSENT),
    "closed": Fault(400, ["Error: Connection Closed"]),
    "closed at the check": Fault(500, "Connection Closed"),
    "closed group": Fault(400, ["[object Object]"]),
    "check timed out": Fault(500, "Timed Out"),
    "never logged in": Fault(
        400, ["TypeError: Cannot read properties of undefined (reading 'id')"]
    ),
    "overlimit": Fault(400, ["Error: rate-overlimit"]),
    "not stored": Fault(400, ["PrismaClientKnownRequestError: …"], effect=True),
    "graph away": Fault(
        400, ["TypeError: Cannot read properties of undefined (reading 'message')"]
    ),
    "timed out": Fault(400, ["Error: Timed Out"], effect=True),
    "license": Fault(503, "License required", code="LICENSE_REQUIRED"),
    "requires textMessage": Fault(400, [['instance requires property "textMessage"']]),
    "requires text": Fault(400, [['instance requires property "text"']]),
    "redirect": Fault(302, headers={"Location": "/elsewhere"}),
    "drop": Fault(ends="drop"),
    "drop after effect": Fault(ends="drop", effect=True),
    "hang": Fault(ends="hang"),
    "hang after effect": Fault(ends="hang", effect=True),
    "504 after effect": Fault(504, raw=b"<html>504</html>", effect=True),
    "500 of a proxy": Fault(500, raw=b"<html>500</html>", effect=True),
    "html": Fault(200, raw=b"<html>Log in</html>"),
    "huge": Fault(201, raw=b'{"key":{"id":"' + b"x" * 2**20 + b'"}}'),
    "garbage": Fault(201, raw=b'{"key":[]}'),
}
"""Names for `FakeEvolution.script`."""


def problem(status: int, message: object) -> web.Response:
    """Answer as Evolution's error handler does."""
    return web.json_response(Fault(status, message).body(), status=status)


def meta_refusal(code: int, message: str = "(#0) refused", **more: object) -> Fault:
    """Make what Graph refused: a 201 with its bare error, and without a key."""
    error = {"message": message, "type": "OAuthException", "code": code, **more}
    return Fault(201, raw=json.dumps({**error, "fbtrace_id": "AbC"}).encode())


async def fail(request: web.Request, fault: Fault) -> web.StreamResponse:
    """Let a request go wrong."""
    transport = request.transport
    assert transport is not None, "it was there a moment ago"
    if fault.ends == "hang":
        while not transport.is_closing():
            await asyncio.sleep(0.05)
    if fault.ends == "drop":
        transport.abort()
    if fault.raw is not None:
        kind = "text/html" if fault.raw.startswith(b"<") else "application/json"
        return web.Response(
            status=fault.status,
            body=fault.raw,
            headers={"Content-Type": kind, **fault.headers},
        )
    return web.json_response(fault.body(), status=fault.status, headers=fault.headers)
