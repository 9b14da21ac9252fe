"""Scenarios: processes are killed, frozen, stopped. Each gives its figures."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.fakes.model import FakeModel
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
from tests.faults.crowd import (
    Crowd,
    declared_dead_at,
    judge,
    last_of,
    opened,
    percentile,
    taken_over,
)
from tests.faults.fleet import Fleet, Server
from tests.faults.history import History
from tests.faults.stalling import LONG_CHARS, long_reply, say_long, stall
from tests.faults.talk import dump

Figures = dict[str, Any]

TAKEN_OVER_SECONDS = 10.0
"""Generous, for a busy machine; the campaign gives the real figures."""
SHORT_REPLY = Script(tokens=60, interval_ms=20)
_SIGKILLED = -signal.SIGKILL


async def killed_at_random(
    fleet: Fleet, model: FakeModel, *, kills: int, persons: int = 80
) -> Figures:
    """kill -9 at random times, under `persons` streams on three servers."""
    model.scripts = [Script(tokens=25, interval_ms=80)]
    history, slowest, declared = History(), [], []
    await fleet.start(3)
    async with Crowd(history, lambda: fleet.running, persons) as crowd:
        await crowd.all_have_text()
        for _ in range(kills):
            victim = random.choice(fleet.running)
            await fleet.may_judge(but=victim)
            await asyncio.sleep(random.uniform(0, 0.8))
            owner = victim.owner
            victim.signal(signal.SIGKILL)
            killed_at = time.time()
            assert await victim.exit_code() == _SIGKILLED
            takes_over = asyncio.create_task(taken_over(fleet.dsn, owner))
            await fleet.run(victim)
            slowest.append(await takes_over)
            declared.append(await declared_dead_at(fleet.dsn, owner) - killed_at)
    verdict = await judge(fleet, model, history, least_done=persons)
    return {
        "kills": kills,
        "take_over_p50_s": percentile(slowest, 0.5),
        "take_over_max_s": percentile(slowest, 1.0),
        "declared_dead_p50_s": percentile(declared, 0.5),
        "declared_dead_max_s": percentile(declared, 1.0),
        "reconnects": sum(talk.cuts for talk in crowd.talks),
        "ended": dict(Counter(m.finish_reason for m in dump(fleet.dsn)
                              if m.role == "assistant")),
        **verdict.figures,
    }  # fmt: skip


async def killed_at(
    fleet: Fleet, model: FakeModel, points: Sequence[str], *, persons: int = 10
) -> Figures:
    """kill -9 exactly at each point, one victim for each, all at once."""
    history = History()
    (heir,) = await fleet.start(1)
    await fleet.may_judge()
    victims = []
    for point in points:
        # A close is one commit for many replies, so the first of it has to do.
        passing = 1 if point.startswith("close") else random.randint(2, persons // 2)
        victims += await fleet.start(1, armed=[f"{point}:kill@{passing}"])
    slowest = await asyncio.gather(
        *(_dies(fleet, history, heir, victim, persons) for victim in victims)
    )
    for victim, point in zip(victims, points, strict=True):
        assert f"FAILPOINT {point}" in victim.log, f"{point} was not reached"
    verdict = await judge(fleet, model, history, least_done=len(points))
    return {
        "points": len(points),
        "take_over_max_s": percentile(slowest, 1.0),
        **verdict.figures,
    }


async def _dies(
    fleet: Fleet, history: History, heir: Server, victim: Server, persons: int
) -> float:
    """Talk to a victim until it has died at its point; give the take-over's time."""

    def servers() -> list[Server]:
        return [victim] if victim.is_running else [heir]

    async with Crowd(history, servers, persons, questions=2):
        assert await victim.exit_code() == _SIGKILLED
        return await taken_over(fleet.dsn, victim.owner)


async def killed_while_replacing(
    fleet: Fleet, model: FakeModel, points: Sequence[str]
) -> None:
    """kill -9 while another answer takes a reply's place; asked again elsewhere."""
    model.scripts = [SHORT_REPLY]
    (heir,) = await fleet.start(1)
    await fleet.may_judge()
    victims = []
    for point in points:
        victims += await fleet.start(1, armed=[f"{point}:kill"])
    await asyncio.gather(
        *(
            _replaced(heir, victim, f"person {point}")
            for victim, point in zip(victims, points, strict=True)
        )
    )


async def _replaced(heir: Server, victim: Server, user: str) -> None:
    first = await read_all(await ask(heir, user, "a question"))
    old = first.headers["viva-message-id"]
    key = {"Idempotency-Key": "again"}
    path = f"/viva/chat/stream/{old}/again"
    cut = await Stream.open(victim.port, "POST", path, user=user, headers=key)
    await read_all(cut)
    assert await victim.exit_code() == _SIGKILLED
    again = await Stream.open(heir.port, "POST", path, user=user, headers=key)
    assert last_of(await read_all(again)) is not None, f"{again.status} {again.ended}"
    question, reply = await messages_of(heir, user)
    replaced = await read_all(await resume(heir, user, old, f"{old}:0"))
    assert (replaced.text, replaced.ended) == (first.text, "clean")
    assert (question["conteudo"], question["seq"]) == ("a question", 1)
    assert (reply["id"], reply["seq"]) == (again.headers["viva-message-id"], 2)
    assert cut.headers.get("viva-message-id", reply["id"]) == reply["id"] != old
    assert reply["conteudo"] == again.text
    assert again.text.startswith(cut.text), "shown and not kept"


async def killed_while_closing(
    fleet: Fleet, model: FakeModel, moment: str, *, persons: int = 10
) -> Figures:
    """The process that closes a dead one's replies is killed at it."""
    history = History()
    (first,) = await fleet.start(1)
    (second,) = await fleet.start(1, armed=[f"close_dead.{moment}:kill"])
    await fleet.may_judge()
    async with Crowd(history, lambda: fleet.running, persons, questions=1) as crowd:
        await crowd.all_have_text()
        await first.kill()
        assert await second.exit_code() == _SIGKILLED
        await fleet.start(1)
        took = await taken_over(fleet.dsn, first.owner)
        took = max(took, await taken_over(fleet.dsn, second.owner))
    assert "FAILPOINT close_dead" in second.log
    verdict = await judge(fleet, model, history, least_done=1)
    return {"take_over_s": round(took, 2), **verdict.figures}


async def frozen(
    fleet: Fleet,
    model: FakeModel,
    *,
    seconds: float,
    armed: Sequence[str] = (),
    persons: int = 20,
) -> Figures:
    """SIGSTOP for so long that another process closes the replies, then SIGCONT."""
    model.scripts = [Script(tokens=2000, interval_ms=20)]
    first, second = await fleet.start(2, armed=armed)
    history = History()
    names = [f"person {n}" for n in range(persons)]
    streams = await opened(first, names, "speak")
    readers = [asyncio.create_task(read_all(stream)) for stream in streams]
    await asyncio.sleep(0.5)
    first.signal(signal.SIGSTOP)
    closed = await taken_over(fleet.dsn, first.owner)
    await asyncio.sleep(max(0.0, seconds - closed))
    before = sorted(dump(fleet.dsn), key=lambda m: m.id)
    assert {m.finish_reason for m in before if m.role == "assistant"} == {"crashed"}
    first.signal(signal.SIGCONT)
    thawed = time.monotonic()
    async with asyncio.timeout(10):
        await asyncio.gather(*readers)
    cut = max(stream.ended_at for stream in streams) - thawed
    assert all(s.ended == "broken" and last_of(s) is None for s in streams)
    texts = {m.id: m.text for m in before}
    for stream in streams:
        kept = texts[stream.headers["viva-message-id"]]
        assert kept.startswith(stream.text), "shown by a dead process and not kept"
    model.scripts = [Script(tokens=5)]
    served = await _serves_again(first, history)
    after = sorted(dump(fleet.dsn), key=lambda m: m.id)
    assert [m for m in after if m in before] == before, "a dead process wrote"
    upstream = [r.closed_at for r in model.requests[:persons]]
    assert all(at is not None for at in upstream), "the model was not left"
    assert first.log.count("was declared dead") == 1, first.log
    assert second.is_running
    return {
        "streams": persons,
        "closed_by_another_after_s": round(closed, 2),
        "readers_cut_after_thaw_s": round(cut, 2),
        "new_reply_after_thaw_s": round(served - thawed, 2),
    }


async def _serves_again(server: Server, history: History) -> float:
    """Ask until a reply is whole; give the time of that."""
    async with asyncio.timeout(10):
        while True:
            stream = await read_all(await ask(server, "newcomer", "once more"))
            last = last_of(stream)
            if last is not None and last.data.get("status") == "complete":
                return time.monotonic()
            await asyncio.sleep(0.1)


async def goes_on_after(
    fleet: Fleet, model: FakeModel, specs: Sequence[str], *, persons: int = 10
) -> Figures:
    """A process meets faults that kill nobody: every reply is whole, at one go."""
    model.scripts = [SHORT_REPLY]
    history = History()
    (server,) = await fleet.start(1, armed=specs)
    await fleet.start(1)
    await fleet.may_judge()
    async with Crowd(history, lambda: [server], persons, questions=2) as crowd:
        pass
    for spec in specs:
        assert f"FAILPOINT {spec.partition(':')[0]}" in server.log, spec
    verdict = await judge(fleet, model, history, least_done=persons * 2)
    ends = Counter(m.finish_reason for m in dump(fleet.dsn) if m.role == "assistant")
    assert ends == {"stop": persons * 2}, ends
    assert sum(talk.cuts for talk in crowd.talks) == 0
    return {"faults": len(specs), **verdict.figures}


async def told_to_stop(
    fleet: Fleet, model: FakeModel, *, readers: int, stalled: int = 0
) -> Figures:
    """SIGTERM under readers: each gets `done`, the process exits 0 in 6 s."""
    model.scripts = [long_reply(), Script(tokens=100_000, interval_ms=200)]
    (server,) = await fleet.start(1, max_reply_chars=str(LONG_CHARS))
    message_id = await say_long(server)
    streams = []
    for begin in range(0, readers, 100):
        names = [f"person {n}" for n in range(begin, min(begin + 100, readers))]
        streams += await opened(server, names, "speak")
    tasks = [asyncio.create_task(read_all(stream)) for stream in streams]
    stuck = [await stall(server, message_id) for _ in range(stalled)]
    await asyncio.sleep(0.5)
    server.signal(signal.SIGTERM)
    began = time.monotonic()
    code = await server.exit_code(within_seconds=20)
    took = time.monotonic() - began
    await asyncio.gather(*tasks)
    for stream in stuck:
        stream.leave(reset=True)
    ends = Counter(
        (s.ended, last.data.get("status"), last.data.get("finish_reason"))
        for s in streams
        if (last := last_of(s)) is not None
    )
    assert ends == {("clean", "partial", "shutdown"): readers}, ends
    stored = {m.id: m.text for m in dump(fleet.dsn)}
    for stream in streams:
        assert stored[stream.headers["viva-message-id"]] == stream.text
    assert code == 0, server.log[-3000:]
    assert took < 6.0, f"{took:.1f} s"
    return {"readers": readers, "stalled": stalled, "exit_s": round(took, 2)}


async def told_twice_to_stop(fleet: Fleet, model: FakeModel) -> Figures:
    """A long drain lets replies go on and refuses new ones; a second signal ends it."""
    model.scripts = [Script(tokens=1000, interval_ms=20)]
    (server,) = await fleet.start(1, drain_seconds="60")
    (stream,) = await opened(server, ["person"], "speak")
    server.signal(signal.SIGTERM)
    await first_text(stream, len(stream.text) + 20)
    ready = await call(server, "GET", "/ready", user="person")
    refused = await call(
        server, "POST", "/viva/chat", user="other", body={"mensagem": "too late"}
    )
    assert (ready.status, refused.status) == (503, 503)
    assert "retry-after" in refused.headers
    server.signal(signal.SIGTERM)
    began = time.monotonic()
    await read_all(stream)
    code = await server.exit_code(within_seconds=10)
    last = last_of(stream)
    assert last is not None
    assert last.data["finish_reason"] == "shutdown"
    assert code == 0
    return {"exit_after_second_s": round(time.monotonic() - began, 2)}
