"""A stream's bytes on the wire: its chunks, its size in the access log, HTTP/1.0."""

from __future__ import annotations

import asyncio
import json
import logging

import h11
import pytest

from tests.chat_host import HOST, PATIENCE_SECONDS, Host, chat_host, serving, settings
from tests.dictation import Dictated, Dictation
from tests.streams import parse_events, text_of
from viva_server import SERVICES, create_app

pytestmark = pytest.mark.both_loops

# Events of one, two, three and four hexadecimal digits.
TEXTS = ("Olá", " 😀", "x" * 150, "\u2028" * 60, "y" * 300, "ã" * 4000, ".")


async def read_dictated(
    host: Host, dictation: Dictation, version: str, *texts: str
) -> bytes:
    """Ask, dictate each text when the one before has come, read to the close."""
    reader, writer = await asyncio.open_connection(
        HOST, int(host.origin.rpartition(":")[2])
    )
    body = json.dumps({"mensagem": "oi"})
    fields = {**host.ana.headers, "Host": "x", "Content-Type": "application/json"}
    fields |= {"Content-Length": str(len(body)), "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(
        f"POST /api/v1/viva/chat/stream HTTP/{version}\r\n{head}\r\n{body}".encode()
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        raw = await reader.readuntil(b'"offset":0}\n\n')
        reply = await dictation.begun()
        for text in texts:
            reply.say(text)
            raw += await reader.readuntil(b'"}\n\n')
        reply.end()
        raw += await reader.read()
    writer.close()
    return raw


def read_strictly(raw: bytes) -> list[bytes]:
    """Give the chunks of a response, as h11 reads them."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    chunks = [b""]
    response = client.next_event()
    assert isinstance(response, h11.Response)
    while isinstance(event := client.next_event(), h11.Data):
        chunks[-1] += event.data
        if event.chunk_end:
            chunks.append(b"")
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data == (b"", False)
    return chunks[:-1]


def logged_bytes(caplog: pytest.LogCaptureFixture) -> int:
    [line] = [r.getMessage() for r in caplog.records if r.name.endswith("access")]
    [size] = [word for word in line.split() if word.endswith("B")]
    return int(size[:-1])


async def test_each_event_is_one_chunk_for_a_strict_parser(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "viva_server.access")
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        raw = await read_dictated(host, dictation, "1.1", *TEXTS)
    chunks = read_strictly(raw)
    events = [event for chunk in chunks for event in parse_events(chunk)]
    assert len(chunks) == len(events) == len(TEXTS) + 2
    assert text_of(events) == "".join(TEXTS)
    assert logged_bytes(caplog) == len(raw)


async def test_a_client_of_http_1_0_gets_events_without_chunks(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "viva_server.access")
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        raw = await read_dictated(host, dictation, "1.0", *TEXTS)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert text_of(parse_events(body)) == "".join(TEXTS)
    assert logged_bytes(caplog) == len(raw)


async def test_text_for_a_client_that_has_just_left_is_stored_in_silence(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the end of its connection and the presence's next look."""
    dictation = Dictation()
    app = create_app(settings(database_url), respond=dictation)
    async with serving(app) as host, host.ana.stream("oi") as stream:
        accepted = await stream.event()
        reply: Dictated = await dictation.begun()
        [live] = app[SERVICES].runtime.presence.local.values()
        [reader] = live.readers
        reader.connection.abort()
        written = reader.last_write
        live.feed("um")
        live.flush()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not live.length:
                await asyncio.sleep(0)
        assert reader.last_write == written
        reply.end()
        snapshot = await host.ana.snapshot()
    assert snapshot["messages"][-1]["id"] == accepted.data["message_id"]
    assert snapshot["messages"][-1]["conteudo"] == "um"
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
