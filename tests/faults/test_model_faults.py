"""Faults of the model's server, U-01 to U-14 of the fault matrix."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import ssl
import traceback
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from yarl import URL

from tests.fakes.client import asking, collect, conversation
from tests.fakes.model import FakeModel
from tests.fakes.script import Script, reply_to
from viva_server.responders import OpenAIResponder, model_session

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


DONE = b"data: [DONE]\n\n"


def reasoning(text: str) -> bytes:
    return event({"choices": [{"delta": {"reasoning_content": text}}]})


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


@pytest.mark.parametrize(
    "sign", [b": wait\n\n", b"data: {}\n\n", reasoning("x")], ids=str
)
async def test_u02_u03_a_sign_of_life_begins_both_limits_anew(
    session: aiohttp.ClientSession, sign: bytes
) -> None:
    size = len(sign)
    first = sign * 12
    events = first + content("a") + b"\n" * (-len(content("a")) % size) + first + DONE
    script = Script(events=events, piece=size, interval_ms=100)
    async with FakeModel(script) as model:
        responder = asking(session, model, first_token_seconds=1, idle_seconds=1)
        reply = await collect(responder)
    assert (reply.text, reply.end) == ("a", "stop")


async def test_u02_signs_of_life_without_text_end_at_last(
    session: aiohttp.ClientSession,
) -> None:
    script = Script(events=b": wait\n\n" * 5, piece=8, interval_ms=20, cut="stall")
    async with FakeModel(script) as model:
        reply = await collect(asking(session, model, first_token_seconds=0.4))
    assert (reply.text, reply.end) == ("", "upstream_timeout")
    assert len(model.requests) == 1


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


@pytest.mark.parametrize(
    "headers", [{"retry-after-ms": "700", "Retry-After": "9"}, {"Retry-After": "0.7"}]
)
async def test_u04_part_of_a_second_is_waited_as_asked(
    session: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    async with FakeModel(Script(status=429, headers=headers), OK) as model:
        async with asyncio.timeout(5):
            assert (await collect(asking(session, model))).text == WHOLE
        first, second = model.requests
    assert second.started_at - first.started_at >= 0.7


@pytest.mark.parametrize("name", ["type", "code"])
@pytest.mark.parametrize("status", [400, 402, 403, 429, 500])
async def test_u04_a_quota_that_is_used_up_is_final(
    session: aiohttp.ClientSession, name: str, status: int
) -> None:
    body = json.dumps({"error": {"message": "x", name: "insufficient_quota"}}).encode()
    head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    async with FakeModel(Script(raw=head + body)) as model:
        reply = await collect(asking(session, model))
        assert len(model.requests) == 1
    assert reply.end == "insufficient_quota"
    assert reply.error is not None
    assert not reply.error.retryable


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


@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 503, 520, 524, 529])
async def test_u05_what_may_pass_is_tried_again(
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


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 204, 205, 302, 307])
async def test_u05_what_another_attempt_cannot_change_is_not_tried_again(
    session: aiohttp.ClientSession, status: int
) -> None:
    async with FakeModel(Script(status=status)) as model:
        reply = await collect(asking(session, model))
    assert reply.end == "upstream_refused"
    assert reply.error is not None
    assert not reply.error.retryable
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "HTTP 401"),
        (b"Unauthorized", "HTTP 401: Unauthorized"),
        (b"<html><body>secret page</body></html>", "HTTP 401"),
        (b'{"error": "model not found"}', "HTTP 401: model not found"),
        (b'[{"error": {"message": "Gemini says"}}]', "HTTP 401: Gemini says"),
        (
            b'{"error": {"message": "Incorrect key: sk-canary***1 (custom-canary)"}}',
            "HTTP 401: Incorrect key: …***1 (…)",
        ),
        (b"a\r\n\x1b[31mb " + b"word " * 200, "HTTP 401: a [31mb word word"),
        (b"you wrote: o meu segredo", "HTTP 401: you wrote: …"),
    ],
)
async def test_u05_the_log_tells_the_operator_why(
    session: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
    body: bytes,
    told: str,
) -> None:
    head = b"HTTP/1.1 401 X\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with FakeModel(Script(raw=head + body)) as model:
        responder = asking(
            session, model, api_key="sk-canary", headers={"api-key": "custom-canary"}
        )
        reply = await collect(responder, conversation("o meu segredo"))
    assert reply.end == "upstream_refused"
    [record] = caplog.records
    assert told in record.getMessage()
    assert len(record.getMessage()) < 400
    for secret in ("canary", "\x1b", "segredo", "secret page"):
        assert secret not in record.getMessage()


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
        ("tool_calls", True, "stop"),
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
        async with asyncio.timeout(20):
            reply = await collect(asking(session, model, end_seconds=0.3))
    assert (reply.text, reply.end) == ("a", "stop")


async def test_u07_comments_behind_the_finish_reason_do_not_prolong_it(
    session: aiohttp.ClientSession,
) -> None:
    finish = content("a", "stop")
    script = Script(
        events=finish + (b": wait\n" * len(finish))[: 200 * len(finish)],
        piece=len(finish),
        interval_ms=20,
        cut="stall",
    )
    async with FakeModel(script) as model:
        async with asyncio.timeout(20):
            reply = await collect(asking(session, model, end_seconds=0.3))
        assert model.requests[0].ended != "complete"
    assert (reply.text, reply.end) == ("a", "stop")


async def test_u07_the_wait_for_the_end_takes_the_place_of_the_idle_limit(
    session: aiohttp.ClientSession,
) -> None:
    first = content("a", "stop")
    script = Script(events=first + DONE, piece=len(first), interval_ms=600)
    async with FakeModel(script) as model:
        reply = await collect(asking(session, model, idle_seconds=0.2))
    assert (reply.text, reply.end) == ("a", "stop")


async def test_u07_where_text_followed_a_reason_silence_is_a_cut(
    session: aiohttp.ClientSession,
) -> None:
    script = Script(events=content("a", "stop") + content("b", "stop"), cut="stall")
    async with FakeModel(script) as model:
        responder = asking(session, model, idle_seconds=0.3, end_seconds=30)
        reply = await collect(responder)
    assert (reply.text, reply.end) == ("ab", "upstream_timeout")


@pytest.mark.parametrize("cut", ["rst", "fin"])
async def test_u07_a_break_behind_the_finish_reason_is_an_end(
    session: aiohttp.ClientSession, cut: str
) -> None:
    script = Script(events=content("a", "stop"), cut=cut, interval_ms=50)
    async with FakeModel(script) as model:
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
    ("script", "end"),
    [
        ("tokens=0", "upstream_empty"),
        ("tokens=0 finish=", "upstream_empty"),
        ("tokens=0 finish=tool_calls", "upstream_empty"),
        ("tokens=0 finish=length", "length"),
        ("tokens=0 finish=content_filter", "content_filter"),
    ],
)
async def test_u10_an_empty_reply_is_not_asked_for_again(
    session: aiohttp.ClientSession, script: str, end: str
) -> None:
    async with FakeModel(Script.parse(script)) as model:
        reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == ("", end)
    assert len(model.requests) == 1


async def test_u11_only_the_log_says_what_the_server_said(
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
    told = "".join(traceback.format_exception(reply.error))
    assert "upstream words" not in told
    assert "upstream words" in caplog.text
    assert "sk-canary" not in told + caplog.text


# U-14


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_u14_a_redirect_to_another_origin_is_not_followed(
    session: aiohttp.ClientSession, status: int
) -> None:
    async with FakeModel() as inside:
        moved = {"Location": str(inside.url / "chat" / "completions")}
        async with FakeModel(Script(status=status, headers=moved)) as model:
            reply = await collect(asking(session, model))
        assert reply.end == "upstream_refused"
        assert not inside.requests


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/v2/chat/completions?a=1", "/v2/chat/completions?a=1"),
        ("../chat/completions", "/v1/chat/completions"),
        ("{origin}/v3/chat/completions", "/v3/chat/completions"),
    ],
)
async def test_u14_a_redirect_within_the_origin_is_followed(
    session: aiohttp.ClientSession, status: int, location: str, path: str
) -> None:
    moved = Script(status=status)
    async with FakeModel(moved, OK) as model:
        location = location.format(origin=model.url.origin())
        moved.headers["Location"] = location
        reply = await collect(
            OpenAIResponder(session, base_url=model.url, model="m", api_key="sk-test")
        )
    assert (reply.text, reply.end) == (WHOLE, "stop")
    first, second = model.requests
    assert second.path == path
    assert second.body == first.body
    assert second.headers["authorization"] == "Bearer sk-test"


@pytest.mark.parametrize(
    "location", ["", "http://[", "ftp://x/", "{itself}", "//h:99999/"]
)
async def test_u14_a_redirect_that_leads_nowhere_ends(
    session: aiohttp.ClientSession, location: str
) -> None:
    moved = Script(status=307)
    async with FakeModel(moved) as model:
        itself = model.url / "chat" / "completions"
        moved.headers["Location"] = location.format(itself=itself)
        assert (await collect(asking(session, model))).end == "upstream_refused"
        assert len(model.requests) <= 5


WHOLE_STREAM = content("Olá ") + content("mundo") + content("", "stop") + DONE


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("piece", [0, 1, 7])
@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(WHOLE_STREAM)),
        ("GZIP", gzip.compress(WHOLE_STREAM)),
        ("x-gzip", gzip.compress(WHOLE_STREAM)),
        ("identity, gzip", gzip.compress(WHOLE_STREAM)),
        ("gzip", gzip.compress(WHOLE_STREAM[:40]) + gzip.compress(WHOLE_STREAM[40:])),
        ("gzip", gzip.compress(WHOLE_STREAM) + b"\0\0\0"),
        ("gzip", gzip.compress(WHOLE_STREAM)[:-6]),
        ("gzip", WHOLE_STREAM),
        ("deflate", zlib.compress(WHOLE_STREAM)),
        ("deflate", raw_deflate(WHOLE_STREAM)),
        *((word, WHOLE_STREAM) for word in ("identity", "none", "", "utf-8", "x")),
    ],
)  # fmt: skip
async def test_u14_a_packed_stream_is_read(
    session: aiohttp.ClientSession, coding: str, packed: bytes, piece: int
) -> None:
    script = Script(events=packed, piece=piece, headers={"Content-Encoding": coding})
    async with FakeModel(script) as model:
        reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == ("Olá mundo", "stop")


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip, br"])
async def test_u14_what_cannot_be_unpacked_is_refused(
    session: aiohttp.ClientSession, coding: str
) -> None:
    packed = gzip.compress(WHOLE_STREAM)
    script = Script(events=packed, headers={"Content-Encoding": coding})
    async with FakeModel(script) as model:
        reply = await collect(asking(session, model))
        assert len(model.requests) == 1
    assert reply.end == "upstream_refused"
    assert reply.error is not None
    assert coding in reply.error.detail or coding.split(", ")[1] in reply.error.detail


async def test_u14_a_broken_packing_is_a_cut(session: aiohttp.ClientSession) -> None:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    start = packer.compress(content("Olá")) + packer.flush(zlib.Z_SYNC_FLUSH)
    packed = start + b"\xff" * 50
    script = Script(
        events=packed,
        piece=len(start),
        interval_ms=50,
        headers={"Content-Encoding": "gzip"},
    )
    async with FakeModel(script) as model:
        reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == ("Olá", "upstream_error")


@pytest.mark.parametrize(
    "event", [b"data: " + b"x" * 10**8, (b": " + b"x" * 998 + b"\n") * 10**5]
)
async def test_u14_what_is_packed_small_never_becomes_large(
    session: aiohttp.ClientSession, event: bytes
) -> None:
    script = Script(
        events=gzip.compress(event, 1), headers={"Content-Encoding": "gzip"}
    )
    del event
    tracemalloc.start()
    try:
        async with FakeModel(script, script, script) as model:
            reply = await collect(asking(session, model))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reply.end == "upstream_error"
    assert peak < 80_000_000


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain; charset=latin-1", "x", ""]
)
async def test_u14_a_stream_is_known_by_its_bytes(
    session: aiohttp.ClientSession, content_type: str
) -> None:
    script = Script(tokens=3, headers={"Content-Type": content_type})
    async with FakeModel(script) as model:
        assert (await collect(asking(session, model))).text == WHOLE


@pytest.mark.parametrize("status", [200, 201, 202, 206, 299])
async def test_u14_any_2xx_with_a_body_is_an_answer(
    session: aiohttp.ClientSession, status: int
) -> None:
    raw = b"HTTP/1.1 %d X\r\n\r\n" % status + WHOLE_STREAM
    async with FakeModel(Script(raw=raw)) as model:
        assert (await collect(asking(session, model))).text == "Olá mundo"


async def test_u14_a_page_is_refused_at_once(session: aiohttp.ClientSession) -> None:
    script = Script(events=b"<!doctype html><title>Portal</title>")
    async with FakeModel(script) as model:
        reply = await collect(asking(session, model))
        assert len(model.requests) == 1
    assert reply.end == "upstream_refused"


@pytest.mark.parametrize(
    "fields",
    [
        b"X-Policy: " + b"x" * 2**16 + b"\r\n",
        b"".join(b"X-%d: y\r\n" % number for number in range(500)),
        b"Server: a\r\nServer: b\r\nDate: x\r\nX-Name: caf\xe9\r\n",
        b"Set-Cookie: a=b; Domain=evil\r\nContent-Type: text/event-stream\r\n",
    ],
)
async def test_u14_large_and_odd_header_fields_are_read(
    session: aiohttp.ClientSession, fields: bytes
) -> None:
    async with FakeModel(Script(raw=HEAD + fields + b"\r\n" + WHOLE_STREAM)) as model:
        reply = await collect(asking(session, model))
    assert (reply.text, reply.end) == ("Olá mundo", "stop")


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(content("a")), content("a"))


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        HEAD + b"X-Canary: " + b"canary" * 20_000 + b"\r\n\r\n",
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
