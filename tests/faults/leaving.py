"""Scenarios: clients leave, vanish, do not read, come at once. Each gives figures."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.fakes.model import FakeModel
from tests.fakes.model_answer import ModelRequest
from tests.fakes.script import Script
from tests.faults.client import (
    Stream,
    ask,
    call,
    first_text,
    messages_of,
    read_all,
    resume,
)
from tests.faults.crowd import last_of, opened, percentile
from tests.faults.fleet import Fleet, Server
from tests.faults.stalling import (
    LONG_CHARS,
    long_reply,
    read_slowly,
    say_long,
    stall,
)
from tests.faults.talk import dump, quiet
from tests.postgres import run_sql

Figures = dict[str, Any]

SNAPSHOT_SECONDS = 3.0
"""Generous, for a busy machine; the campaign gives the real figures."""
UPSTREAM_SECONDS = 1.0
_NOTICED_SECONDS = 0.25


def request_of(model: FakeModel, text: str) -> ModelRequest:
    """Give the one request that the model got for this message."""
    (found,) = [r for r in model.requests if r.message == text]
    return found


async def clients_leave(
    fleet: Fleet, model: FakeModel, *, clients: int, grace: float, at_once: int = 20
) -> Figures:
    """Clients leave anywhere, with FIN and RST; the snapshot has what they saw."""
    model.scripts = [Script(tokens=40, interval_ms=15)]
    (server,) = await fleet.start(1, disconnect_grace_seconds=f"{grace:g}")
    late: list[float] = []
    turns = asyncio.Semaphore(at_once)

    async def come_and_go(number: int) -> str:
        async with turns:
            return await _leave(server, number, late)

    ends = Counter(
        await asyncio.gather(*(come_and_go(number) for number in range(clients)))
    )
    left_at = time.monotonic()
    await quiet(fleet.dsn)
    stored = dump(fleet.dsn)
    reasons = Counter(m.finish_reason for m in stored if m.role == "assistant")
    allowed = {"stop", "disconnected"} if grace == 0 else {"stop"}
    assert set(reasons) <= allowed, reasons
    if grace == 0:
        async with asyncio.timeout(5):
            for request in model.requests:
                await request.closed.wait()
        open_after = [request.closed_at or 0 for request in model.requests]
        assert max(open_after) - left_at < _NOTICED_SECONDS + UPSTREAM_SECONDS + 1
    return {
        "clients": clients,
        "grace_s": grace,
        "left": dict(ends),
        "replies_ended": dict(reasons),
        "snapshot_p50_s": percentile(late, 0.5),
        "snapshot_max_s": percentile(late, 1.0),
    }


async def _leave(server: Server, number: int, late: list[float]) -> str:
    """Leave at a random point, then find in the snapshot all that was seen."""
    reset = random.random() < 0.5
    user, text = f"leaver {number}", f"message {number}"
    stream = await ask(server, user, text)
    point = random.choice(["sent", "accepted", "text", "text", "text"])
    if point == "sent":
        await asyncio.sleep(random.uniform(0, 0.02))
    elif point == "accepted":
        async for _ in stream.events():
            break
    else:
        await first_text(stream, random.randint(1, 200))
    stream.leave(reset=reset)
    left_at = time.monotonic()
    if point == "sent":
        return f"{point} {'RST' if reset else 'FIN'}"
    while True:
        messages = await messages_of(server, user)
        if [m["tipo"] for m in messages] == ["usuario", "ia"] and messages[1][
            "conteudo"
        ].startswith(stream.text):
            late.append(time.monotonic() - left_at)
            return f"{point} {'RST' if reset else 'FIN'}"
        assert time.monotonic() - left_at < 5, "the snapshot never had it"
        await asyncio.sleep(0.01)


async def grace_runs_out(
    fleet: Fleet, model: FakeModel, *, clients: int, grace: float
) -> Figures:
    """After the grace the model is left, within a second, and the reply stored."""
    model.scripts = [Script(tokens=2000, interval_ms=20)]
    (server,) = await fleet.start(1, disconnect_grace_seconds=f"{grace:g}")
    names = [f"leaver {n}" for n in range(clients)]
    streams = await opened(server, names, "speak")
    left_at = time.monotonic()
    for number, stream in enumerate(streams):
        stream.leave(reset=number % 2 == 0)
    closings = []
    async with asyncio.timeout(grace + 10):
        for name in names:
            request = request_of(model, f"{name}: speak")
            await request.closed.wait()
            closings.append((request.closed_at or 0) - left_at)
    assert min(closings) > grace - 0.05
    assert max(closings) < grace + _NOTICED_SECONDS + UPSTREAM_SECONDS
    await quiet(fleet.dsn)
    replies = [m for m in dump(fleet.dsn) if m.role == "assistant"]
    assert {(m.status, m.finish_reason) for m in replies} == {
        ("partial", "disconnected")
    }
    return {
        "clients": clients,
        "grace_s": grace,
        "upstream_closed_p50_s": percentile(closings, 0.5),
        "upstream_closed_max_s": percentile(closings, 1.0),
    }


async def one_key_at_once(fleet: Fleet, model: FakeModel, *, clients: int) -> Figures:
    """The same message with one key, at once, over two processes: one model call."""
    model.scripts = [Script(tokens=20, interval_ms=20)]
    servers = await fleet.start(2)
    streams = await asyncio.gather(
        *(
            ask(servers[n % 2], "person", "the same", Idempotency_Key="one")
            for n in range(clients)
        )
    )
    await asyncio.gather(*(read_all(stream) for stream in streams))
    assert {stream.status for stream in streams} == {200}
    assert len({stream.headers["viva-message-id"] for stream in streams}) == 1
    assert len({stream.text for stream in streams}) == 1
    assert all(last_of(stream) is not None for stream in streams)
    assert len(model.requests) == 1
    assert streams[0].text == model.requests[0].text
    other = await call(
        servers[1],
        "POST",
        "/viva/chat",
        user="person",
        body={"mensagem": "another"},
        headers={"Idempotency-Key": "one"},
    )
    assert other.status == 422, other
    assert [m.role for m in dump(fleet.dsn)].count("user") == 1
    return {"posts": clients, "model_calls": len(model.requests)}


async def readers_stall(
    fleet: Fleet,
    model: FakeModel,
    *,
    stalled: int,
    deadline: float,
    armed: tuple[str, ...] = (),
) -> Figures:
    """Readers that do not read are cut; nobody else notices them."""
    model.scripts = [long_reply(), Script(tokens=100_000, interval_ms=20)]
    (server,) = await fleet.start(1, armed=armed, max_reply_chars="1000000")
    message_id = await say_long(server)
    normal = await opened(server, [f"person {n}" for n in range(5)], "speak")
    readers = [asyncio.create_task(read_all(stream)) for stream in normal]
    await asyncio.sleep(1.0)
    before = server.resident_bytes
    stuck = [await stall(server, message_id) for _ in range(stalled)]
    began, peak = time.monotonic(), before
    while _open_to(server, stuck) and time.monotonic() - began < deadline + 10:
        peak = max(peak, server.resident_bytes)
        await asyncio.sleep(0.1)
    took = time.monotonic() - began
    assert not _open_to(server, stuck), "some are not cut"
    for task in readers:
        task.cancel()
    gaps = [
        later.at - earlier.at
        for stream in normal
        for earlier, later in pairwise(stream.shown)
    ]
    assert percentile(gaps, 0.99) < 2.0, "others were held up"
    assert all(not stream.ended for stream in normal)
    per_reader = (peak - before) / stalled
    assert per_reader < 3 * LONG_CHARS, f"{per_reader / 1024:.0f} KiB for each"
    return {
        "stalled": stalled,
        "reply_chars": LONG_CHARS,
        "write_deadline_s": deadline,
        "last_cut_after_s": round(took, 1),
        "kib_per_stalled": round(per_reader / 1024),
        "neighbours_gap_p50_s": percentile(gaps, 0.5),
        "neighbours_gap_p99_s": percentile(gaps, 0.99),
    }


async def reader_is_slow(
    fleet: Fleet, model: FakeModel, *, armed: tuple[str, ...] = ()
) -> Figures:
    """A reader that takes longer than the write deadline for a reply gets all of it."""
    model.scripts = [long_reply()]
    (server,) = await fleet.start(1, armed=armed, max_reply_chars=str(LONG_CHARS))
    message_id = await say_long(server)
    began = time.monotonic()
    received = await read_slowly(server, message_id, bytes_per_second=150_000)
    took = time.monotonic() - began
    assert received.endswith("\r\n0\r\n\r\n"), "the server cut it"
    assert received.count("x") >= LONG_CHARS
    return {"reply_chars": LONG_CHARS, "read_in_s": round(took, 1)}


def _open_to(server: Server, streams: list[Stream]) -> int:
    """Count the connections that the server still holds, by the kernel's table."""
    ports = {stream.local_port for stream in streams}
    found = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if int(local.partition(":")[2], 16) == server.port and state == "01":
            found += int(remote.partition(":")[2], 16) in ports
    return found


async def superseded_across(fleet: Fleet, model: FakeModel) -> Figures:
    """409 while it is read, on any process; superseded when nobody reads it."""
    model.scripts = [Script(tokens=2000, interval_ms=20)]
    first, second = await fleet.start(2)
    (stream,) = await opened(first, ["person"], "speak")
    reader = asyncio.create_task(read_all(stream))
    another = {"mensagem": "another"}
    refused = await call(second, "POST", "/viva/chat", user="person", body=another)
    assert refused.status == 409
    assert refused.json["code"] == "reply_in_progress"
    assert refused.json["message_id"] == stream.headers["viva-message-id"]
    reader.cancel()
    stream.leave()
    model.scripts = [Script(tokens=3)]
    began = time.monotonic()
    answered = await read_all(await ask(second, "person", "another"))
    took = time.monotonic() - began
    assert answered.status == 200, answered.shown
    ends = [
        (m.status, m.finish_reason)
        for m in sorted(dump(fleet.dsn), key=lambda m: m.seq)
        if m.role == "assistant"
    ]
    assert ends == [("partial", "superseded"), ("complete", "stop")]
    return {"superseded_and_answered_s": round(took, 2)}


async def stopped_from_elsewhere(fleet: Fleet, model: FakeModel) -> Figures:
    """Stop is answered by any process, after the commit; twice gives the same."""
    model.scripts = [Script(tokens=2000, interval_ms=20)]
    first, second = await fleet.start(2)
    (stream,) = await opened(first, ["person"], "speak")
    reader = asyncio.create_task(read_all(stream))
    path = f"/viva/chat/stream/{stream.headers['viva-message-id']}/stop"
    began = time.monotonic()
    answers = [await call(second, "POST", path, user="person") for _ in range(2)]
    took = time.monotonic() - began
    await reader
    last = last_of(stream)
    assert last is not None
    assert last.data["finish_reason"] == "stopped"
    assert answers[0].json == answers[1].json
    assert answers[0].json["conteudo"] == stream.text
    stranger = await call(second, "POST", path, user="stranger")
    assert stranger.status == 404
    return {"both_stops_s": round(took, 2)}


async def read_from_afar(fleet: Fleet, model: FakeModel) -> Figures:
    """A far reader keeps a reply alive beyond its grace; then the grace runs."""
    model.scripts = [Script(tokens=2000, interval_ms=20)]
    first, second = await fleet.start(2, disconnect_grace_seconds="1")
    (near,) = await opened(first, ["person"], "speak")
    message_id = near.headers["viva-message-id"]
    far = await resume(second, "person", message_id, f"{message_id}:0")
    await first_text(far)
    near.leave()
    await first_text(far, len(far.text) + 1000)  # 20 ms a token: over 2 s
    assert run_sql(fleet.dsn, "SELECT 1 FROM viva.live_replies")
    far.leave()
    left_at = time.monotonic()
    request = request_of(model, "person: speak")
    async with asyncio.timeout(10):
        await request.closed.wait()
    took = (request.closed_at or 0) - left_at
    assert 0.9 < took < 1 + _NOTICED_SECONDS + UPSTREAM_SECONDS + 0.5
    await quiet(fleet.dsn)
    (reply,) = [m for m in dump(fleet.dsn) if m.role == "assistant"]
    assert reply.finish_reason == "disconnected"
    assert reply.text.startswith(far.text)
    return {"upstream_closed_after_far_reader_s": round(took, 2)}
