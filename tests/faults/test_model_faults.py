"""Faults of the model's server, U-01 to U-14 of the fault matrix."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import ssl
import traceback
from collections.abc import AsyncIterator

import aiohttp
import pytest
from yarl import URL

from tests.fakes.client import asking, collect, conversation, model_session
from tests.fakes.model import FakeModel
from tests.fakes.script import Script, reply_to
from viva_server.responders import OpenAIResponder

OK = Script(tokens=3)
WHOLE = reply_to("oi", OK)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with model_session() as session:
        yield session


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def content(text: str, finish: str | None = None) -> bytes:
    return event({"choices": [{"delta": {"content": text}, "finish_reason": finish}]})


# U-01


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/v1", "http://model.invalid/v1"]
)
async def test_u01_a_model_that_cannot_be_reached_is_tried_three_times(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    base_url = URL(url.format(port=closed_port()))
    reply = await collect(OpenAIResponder(session, base_url=base_url, model="m"))
    assert (reply.text, reply.end) == ("", "upstream_unavailable")
    assert reply.error is not None
    assert reply.error.retryable
    assert [record.getMessage()[:12] for record in caplog.records] == [
        "Asking the m",
        "Asking the m",
        "No whole rep",
    ]


async def test_u01_a_failing_tls_handshake_is_the_same(
    session: aiohttp.ClientSession,
) -> None:
    # Without a certificate the server has no cipher to share.
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server_side
    )
    port = server.sockets[0].getsockname()[1]
    responder = OpenAIResponder(
        session, base_url=URL(f"https://127.0.0.1:{port}/v1"), model="m"
    )
    async with server:
        assert (await collect(responder)).end == "upstream_unavailable"


async def test_u01_a_server_that_hangs_up_without_a_word_is_tried_again(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel(Script(raw=b""), OK) as model:
        reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == (WHOLE, "stop")
    assert len(model.requests) == 2


# U-02, U-03


async def test_u02_a_first_token_that_does_not_come_is_a_timeout(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel(Script(first_ms=60_000)) as model:
        reply = await collect(asking(session, model, first_token_seconds=0.2))
        assert (reply.text, reply.end) == ("", "upstream_timeout")
        assert reply.error is not None
        assert reply.error.retryable
        async with asyncio.timeout(1):
            await model.requests[0].closed.wait()
        assert len(model.requests) == 1


async def test_u02_comments_are_no_token(session: aiohttp.ClientSession) -> None:
    # For 100 s, however busy the machine is.
    script = Script(events=b": wait\n\n" * 10_000, piece=9, interval_ms=10)
    async with FakeModel(script) as model:
        reply = await collect(asking(session, model, first_token_seconds=0.2))
    assert reply.end == "upstream_timeout"


async def test_u03_silence_between_tokens_ends_the_reply_and_keeps_its_text(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel(Script(cut="stall", cut_after=3)) as model:
        reply = await collect(asking(session, model, idle_seconds=0.2))
        assert (reply.text, reply.end) == (WHOLE, "upstream_timeout")
        async with asyncio.timeout(1):
            await model.requests[0].closed.wait()


async def test_u03_the_idle_limit_starts_again_with_each_token(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel(Script(tokens=10, interval_ms=100)) as model:
        reply = await collect(asking(session, model, idle_seconds=0.5))
    assert reply.end == "stop"


async def test_u03_a_caller_that_takes_its_time_is_not_the_models_silence(
    session: aiohttp.ClientSession,
) -> None:
    script = Script(tokens=8, interval_ms=200)
    async with FakeModel(script) as model:
        stream = asking(session, model, idle_seconds=0.4)(conversation("oi"))
        texts = []
        async for text in stream:
            texts.append(text)
            await asyncio.sleep(0.5)
    assert "".join(texts) == reply_to("oi", script)


# U-04, U-05


async def test_u04_429_is_tried_again_after_retry_after(
    session: aiohttp.ClientSession,
) -> None:
    limited = Script(status=429, headers={"Retry-After": "1"})
    async with FakeModel(limited, OK) as model:
        assert (await collect(asking(session, model))).text == WHOLE
        first, second = model.requests
    assert second.started_at - first.started_at >= 1


@pytest.mark.parametrize("retry_after", ["-5", "soon", ""])
async def test_u04_a_useless_retry_after_costs_no_time(
    session: aiohttp.ClientSession, retry_after: str
) -> None:
    limited = Script(status=429, headers={"Retry-After": retry_after})
    async with FakeModel(limited, OK) as model:
        async with asyncio.timeout(5):
            assert (await collect(asking(session, model))).text == WHOLE


async def test_u04_a_wait_beyond_the_first_token_limit_is_not_begun(
    session: aiohttp.ClientSession,
) -> None:
    limited = Script(status=429, headers={"Retry-After": "1e9"})
    async with FakeModel(limited, OK) as model:
        async with asyncio.timeout(3):
            reply = await collect(asking(session, model, first_token_seconds=9))
    assert reply.end == "upstream_rate_limited"
    assert reply.error is not None
    assert reply.error.retryable
    assert len(model.requests) == 1


async def test_u04_429_for_ever_ends_after_three_attempts(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel(Script(status=429)) as model:
        assert (await collect(asking(session, model))).end == "upstream_rate_limited"
    assert len(model.requests) == 3


@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_u05_5xx_is_tried_again(
    session: aiohttp.ClientSession, status: int
) -> None:
    failing = Script(status=status)
    async with FakeModel(failing, failing, OK) as model:
        assert (await collect(asking(session, model))).text == WHOLE


async def test_u05_5xx_for_ever_ends_after_three_attempts(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel(Script(status=500)) as model:
        reply = await collect(asking(session, model))
    assert reply.end == "upstream_unavailable"
    assert len(model.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 204, 302, 307])
async def test_u05_what_another_attempt_cannot_change_is_not_tried_again(
    session: aiohttp.ClientSession, status: int
) -> None:
    async with FakeModel(Script(status=status)) as model:
        reply = await collect(asking(session, model))
    assert reply.end == "upstream_refused"
    assert reply.error is not None
    assert not reply.error.retryable
    assert len(model.requests) == 1


async def test_u05_the_log_tells_the_operator_the_status(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeModel(Script(status=401)) as model:
        await collect(asking(session, model))
    assert "HTTP 401" in caplog.text


@pytest.mark.parametrize("cut", ["fin", "rst", "eof"])
async def test_u05_a_cut_before_the_first_token_is_tried_again(
    session: aiohttp.ClientSession, cut: str
) -> None:
    async with FakeModel(Script(cut=cut), OK) as model:
        assert (await collect(asking(session, model))).text == WHOLE


@pytest.mark.parametrize("cut", ["fin", "rst", "eof", "error", "garbage"])
async def test_u05_u06_after_the_first_token_nothing_is_tried_again(
    session: aiohttp.ClientSession, cut: str
) -> None:
    cut_off = Script(cut=cut, cut_after=3, interval_ms=20)
    async with FakeModel(cut_off, OK) as model:
        reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == (WHOLE, "upstream_error")
    assert reply.error is not None
    assert reply.error.retryable
    assert len(model.requests) == 1


# U-07


@pytest.mark.parametrize(
    ("finish", "done", "end"),
    [
        ("", True, "stop"),
        ("stop", False, "stop"),
        ("length", True, "length"),
        ("length", False, "length"),
        ("content_filter", True, "content_filter"),
        ("tool_calls", True, "upstream_error"),
        ("", False, "upstream_error"),
    ],
)
async def test_u07_each_end_has_a_declared_meaning(
    session: aiohttp.ClientSession, finish: str, done: bool, end: str
) -> None:
    async with FakeModel(Script(tokens=3, finish=finish, done=done)) as model:
        reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == (WHOLE, end)


@pytest.mark.parametrize(
    "finish", [content("a", "stop"), content("a") + content("", "stop")]
)
@pytest.mark.parametrize("together", [True, False])
async def test_u07_after_the_finish_reason_nobody_waits_long_for_the_rest(
    session: aiohttp.ClientSession, finish: bytes, together: bool
) -> None:
    piece = 0 if together else len(content("a"))
    script = Script(events=finish, cut="stall", piece=piece, interval_ms=100)
    async with FakeModel(script) as model:
        async with asyncio.timeout(5):
            reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == ("a", "stop")


# U-08 (the rest is in tests/unit/test_completion.py)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("piece", [1, 3, 0])
async def test_u08_odd_but_valid_streams_are_read(
    session: aiohttp.ClientSession, line_end: bytes, piece: int
) -> None:
    stream = b"\xef\xbb\xbf: hi\n\nid: 1\nevent: x\nretry: 1\ndata:"
    stream += '{"choices":[\ndata: {"delta":{"content":"coração 😀"}}]}\n\n'.encode()
    stream += b"data: [DONE]\n\n"
    script = Script(events=stream.replace(b"\n", line_end), piece=piece)
    async with FakeModel(script) as model:
        reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == ("coração 😀", "stop")


async def test_u08_an_event_of_10_mb_ends_the_reply(
    session: aiohttp.ClientSession,
) -> None:
    stream = content("Olá") + b"data: " + b"x" * 10_000_000
    async with FakeModel(Script(events=stream, piece=100_000)) as model:
        reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == ("Olá", "upstream_error")


async def test_u08_text_cannot_make_events_of_its_own(
    session: aiohttp.ClientSession,
) -> None:
    text = "a\n\ndata: [DONE]\n\nb\r\0\u2028"
    stream = content(text) + content("c", "stop") + b"data: [DONE]\n\n"
    async with FakeModel(Script(events=stream)) as model:
        reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == (text + "c", "stop")


# U-09, U-12, U-13


async def test_u09_a_reply_without_end_can_be_ended_by_the_caller(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel(Script(tokens=-1)) as model:
        stream = asking(session, model)(conversation("oi"))
        size = 0
        while size < 10_000:
            size += len(await anext(stream))
        await stream.aclose()
        async with asyncio.timeout(1):
            await model.requests[0].closed.wait()


async def test_u12_a_slow_drip_below_the_idle_limit_is_allowed(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel(Script(tokens=4, interval_ms=250)) as model:
        reply = await collect(asking(session, model, idle_seconds=1))
    assert reply.end == "stop"


async def test_u13_a_fast_model_waits_for_a_slow_caller(
    session: aiohttp.ClientSession,
) -> None:
    async with FakeModel(Script(tokens=-1)) as model:
        stream = asking(session, model)(conversation("oi"))
        await anext(stream)
        sent = -1
        async with asyncio.timeout(30):
            while sent != len(model.requests[0].sent):  # until its socket is full
                sent = len(model.requests[0].sent)
                await asyncio.sleep(0.5)
        # What one read brings is bounded, so that the loop is never held for long.
        assert len(await anext(stream)) < 100_000
        await stream.aclose()


# U-10, U-11


@pytest.mark.parametrize(
    "script", ["tokens=0", "tokens=0 finish=length", "tokens=0 finish="]
)
async def test_u10_an_empty_reply_is_an_error(
    session: aiohttp.ClientSession, script: str
) -> None:
    async with FakeModel(Script.parse(script)) as model:
        reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == ("", "upstream_empty")
    assert len(model.requests) == 1


async def test_u11_an_error_in_the_stream_shows_nothing_of_the_servers_words(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with FakeModel(Script(cut="error")) as model:
        responder = OpenAIResponder(
            session, base_url=model.url, model="m", api_key="sk-canary"
        )
        reply = await collect(responder)
    assert reply.end == "upstream_error"
    assert reply.error is not None
    told = "".join(traceback.format_exception(reply.error)) + caplog.text
    assert "upstream words" not in told
    assert "sk-canary" not in told


# U-14


async def test_u14_a_redirect_is_not_followed(session: aiohttp.ClientSession) -> None:
    async with FakeModel() as inside:
        moved = {"Location": str(inside.url / "chat" / "completions")}
        for status in (301, 302, 303, 307, 308):
            async with FakeModel(Script(status=status, headers=moved)) as model:
                reply = await collect(asking(session, model))
            assert reply.end == "upstream_refused"
        assert not inside.requests


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate"])
async def test_u14_nothing_compressed_is_unpacked(
    session: aiohttp.ClientSession, coding: str
) -> None:
    bomb = gzip.compress(b"data: " + b"x" * 50_000_000)
    script = Script(events=bomb, headers={"Content-Encoding": coding})
    async with FakeModel(script) as model:
        assert (await collect(asking(session, model))).end == "upstream_refused"


@pytest.mark.parametrize("content_type", ["application/json", "text/html", ""])
async def test_u14_what_is_no_event_stream_is_refused(
    session: aiohttp.ClientSession, content_type: str
) -> None:
    script = Script(headers={"Content-Type": content_type})
    async with FakeModel(script) as model:
        assert (await collect(asking(session, model))).end == "upstream_refused"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(content("a")), content("a"))


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        HEAD + b"X-Canary: " + b"canary" * 10_000 + b"\r\n\r\n",
        HEAD + b"X: y\r\n" * 1000 + b"\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD + b"Content-Length: canary\r\n\r\n",
        HEAD + b"no colon canary\r\n\r\n",
        CHUNKED + b"canary\r\n",
        CHUNKED + b"ffffffffffffffffffff\r\ncanary\r\n",
        CHUNKED + b"-1\r\ncanary\r\n",
    ],
)  # fmt: skip
async def test_u14_malformed_http_is_an_error_and_never_shown(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, raw: bytes
) -> None:
    caplog.set_level(logging.DEBUG, "viva_server")
    async with FakeModel(Script(raw=raw)) as model:
        reply = await collect(asking(session, model))
    assert reply.text == ""
    assert reply.end in {"upstream_error", "upstream_unavailable"}
    assert reply.error is not None
    told = "".join(traceback.format_exception(reply.error)) + caplog.text
    assert "canary" not in told


@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\nab", b"-1\r\n", b"5;\n\r\n", b""])
async def test_u14_a_malformed_chunk_keeps_the_text_before_it(
    session: aiohttp.ClientSession, rest: bytes
) -> None:
    good = CHUNKED + CHUNK
    script = Script(raw=good + rest, piece=len(good), interval_ms=100)
    async with FakeModel(script) as model:
        async with asyncio.timeout(10):  # not the idle limit of 30 s
            reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == ("a", "upstream_error")
