"""No framing that two parsers may read differently reaches a handler.

A new version of aiohttp must pass this table before it is used.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiohttp import http_parser, web

from tests.raw_http import connect, exchange, read_answer, serving
from viva_server.api.edge import Edge
from viva_server.api.request import read_body
from viva_server.commands.http_server import refuse_without_c_parser
from viva_server.errors import ConfigError

HOST = b"Host: viva.test\r\n"
# Ends every exchange: the server answers it and closes, if it still listens.
LAST = b"GET /last HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


def post(*lines: bytes, body: bytes = b"", start: bytes = b"POST /p HTTP/1.1") -> bytes:
    head = b"".join(line + b"\r\n" for line in lines)
    return start + b"\r\n" + HOST + head + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


N = str(len(SMUGGLED)).encode()
REFUSED = {
    "length and chunked": post(
        b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "chunked and length": post(
        b"Transfer-Encoding: chunked", b"Content-Length: " + N, body=b"0\r\n\r\n"
    ),
    "two lengths": post(b"Content-Length: 0", b"Content-Length: " + N),
    "the same length twice": post(
        b"Content-Length: 2", b"Content-Length: 2", body=b"ab"
    ),
    "a list of lengths": post(b"Content-Length: 2, 2", body=b"ab"),
    "a length with a sign": post(b"Content-Length: +2", body=b"ab"),
    "a length with an underscore": post(b"Content-Length: 0_2", body=b"ab"),
    "a negative length": post(b"Content-Length: -2", body=b"ab"),
    "a hexadecimal length": post(b"Content-Length: 0x2", body=b"ab"),
    "a length of 20 digits": post(b"Content-Length: 99999999999999999999"),
    "an empty length": post(b"Content-Length: "),
    "another coding": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunked and then another coding": post(
        b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"
    ),
    "chunked twice": post(
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "a vertical tab before chunked": post(
        b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"
    ),
    "chunked on HTTP/1.0": post(
        b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", start=b"POST /p HTTP/1.0"
    ),
    "a space before the colon": post(b"Content-Length : 2", body=b"ab"),
    "a folded header": post(b"X-A: b\r\n Content-Length: 2", body=b"ab"),
    "a header that begins with a space": post(b" Content-Length: 2", body=b"ab"),
    "a bare LF after a header": post(b"X-A: b\nContent-Length: 2", body=b"ab"),
    "a bare CR in a header": post(b"X-A: b\rContent-Length: 2", body=b"ab"),
    "NUL in a header": post(b"X-A: b\0"),
    "NUL in a header's name": post(b"X-\0A: b"),
    "a header without a name": post(b": b"),
    "LF in a chunk's extension": chunked(b"2;a=b\nxx\r\nab\r\n0\r\n\r\n"),
    "a chunk size with 0x": chunked(b"0x2\r\nab\r\n0\r\n\r\n"),
    "a chunk size with a sign": chunked(b"+2\r\nab\r\n0\r\n\r\n"),
    "a chunk size with an underscore": chunked(b"0_2\r\nab\r\n0\r\n\r\n"),
    "a chunk size of 20 digits": chunked(b"99999999999999999999\r\nab\r\n0\r\n\r\n"),
    "chunks that end with a bare LF": chunked(b"2\nab\n0\n\n"),
    "a chunk longer than its size": chunked(b"2\r\nabc\r\n0\r\n\r\n"),
    "no Host": b"GET /p HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /p HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "HTTP/9.9": post(start=b"GET /p HTTP/9.9"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in lower case": post(start=b"get /p HTTP/1.1"),
    "a target of 10 kB": post(start=b"GET /" + b"a" * 10_000 + b" HTTP/1.1"),
    "a header of 10 kB": post(b"X-A: " + b"b" * 10_000),
    "1000 headers": post(*[b"X-A: b"] * 1000),
    "1000 trailers": chunked(b"2\r\nab\r\n0\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
}
SERVED = {
    "a plain request": (post(b"Content-Length: 2", body=b"ab"), ["/p", "/last"]),
    "an absolute target": (
        post(start=b"GET http://evil.test/p HTTP/1.1"),
        ["/p", "/last"],
    ),
    "a chunk extension": (
        chunked(b"2;a=b\r\nab\r\n0\r\n\r\n"),
        ["/p", "/last"],
    ),
    "a trailer": (
        chunked(b"2\r\nab\r\n0\r\nX-A: b\r\n\r\n"),
        ["/p", "/last"],
    ),
    "a body that looks like a request": (
        post(b"Content-Length: " + N, body=SMUGGLED),
        ["/p", "/last"],
    ),
    "pipelining": (post() * 5, ["/p"] * 5 + ["/last"]),
}


@dataclass
class Site:
    """A server and the paths that its handler has seen."""

    port: int
    seen: list[str]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        body = await read_body(request)
        seen.append(request.path)
        return web.Response(body=body)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", Edge().wrap(handler))
    async with serving(app, head_seconds=1.0, lingering_seconds=0.2) as port:
        yield Site(port, seen)


@pytest.mark.parametrize("attack", REFUSED.values(), ids=REFUSED)
async def test_a_framing_attack_is_answered_400_and_the_connection_closed(
    site: Site, attack: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        answers = await exchange(site.port, attack + SMUGGLED + LAST)

    assert [answer.status for answer in answers] == [400]
    assert answers[0].headers["content-type"].startswith("application/problem+json")
    assert answers[0].json()["request_id"] == answers[0].headers["x-request-id"]
    assert site.seen == []
    assert not [line for line in caplog.records if line.levelno > logging.INFO]


@pytest.mark.parametrize("attack", REFUSED.values(), ids=REFUSED)
async def test_a_framing_attack_in_small_segments_reaches_no_handler(
    site: Site, attack: bytes
) -> None:
    cuts = [attack[: len(attack) // 2], attack[len(attack) // 2 :], SMUGGLED, LAST]
    answers = await exchange(site.port, *cuts)

    assert [answer.status for answer in answers] == [400]
    assert site.seen == []


@pytest.mark.parametrize(("bytes_", "seen"), SERVED.values(), ids=SERVED)
async def test_what_is_unusual_but_clear_is_served(
    site: Site, bytes_: bytes, seen: list[str]
) -> None:
    answers = await exchange(site.port, bytes_ + LAST)

    assert [answer.status for answer in answers] == [200] * len(seen)
    assert site.seen == seen


async def test_nothing_follows_a_request_without_a_version(site: Site) -> None:
    answers = await exchange(site.port, b"GET /p\r\n\r\n", SMUGGLED, LAST)

    assert len(answers) == 1
    assert site.seen == ["/p"]


async def test_the_body_of_an_upgrade_that_nobody_wants_is_no_request(
    site: Site,
) -> None:
    upgrade = [b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: " + N]
    reader, writer = await connect(site.port)
    writer.write(post(*upgrade, body=SMUGGLED))
    answer = await read_answer(reader)
    writer.close()

    assert answer is not None
    assert answer.body == SMUGGLED
    assert site.seen == ["/p"]


async def test_expect_100_continue_is_answered_before_the_body(site: Site) -> None:
    request = post(b"Content-Length: 2", b"Expect: 100-continue")
    answers = await exchange(site.port, request, b"ab", LAST)

    assert [answer.status for answer in answers] == [100, 200, 200]


async def test_bytes_of_a_client_never_reach_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await exchange(site.port, b"GET /secret\x1b[31m\nforged line HTTP/1.1\r\n\r\n")

    assert len(caplog.messages) == 1
    assert "secret" not in caplog.text
    assert "forged" not in caplog.text


def test_the_pure_python_parser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_without_c_parser()
    python_parser = http_parser.HttpRequestParserPy
    monkeypatch.setattr(http_parser, "HttpRequestParser", python_parser)
    with pytest.raises(ConfigError, match="parser"):
        refuse_without_c_parser()
