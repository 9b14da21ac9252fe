"""A new version is started process by process, under streams through a proxy."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest

from tests.acceptance.proxy_site import Site, person
from tests.chat_host import PATIENCE_SECONDS, PREFIX, Person
from tests.fakes.script import reply_to
from tests.streams import Stream
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Client:
    """Asks once, and comes back with what it knows until the reply has ended."""

    def __init__(self, person: Person, message: str, *, leaves: bool) -> None:
        self.message = message
        self.text = ""
        self.done: dict[str, Any] | None = None
        self.cuts = 0
        self._person = person
        self._leaves = leaves
        self._message_id = ""
        self._cursor = ""

    async def run(self) -> Client:
        async with asyncio.timeout(4 * PATIENCE_SECONDS):
            while self.done is None:
                try:
                    await self._read()
                except (aiohttp.ClientError, AssertionError):
                    self.cuts += 1
                    await asyncio.sleep(0.2)
        return self

    async def _read(self) -> None:
        async with self._connect() as stream:
            while self.done is None:
                event = await stream.event()
                self._note(event.id, event.data)
                if self._leaves and len(self.text) > 30:
                    self._leaves = False
                    return

    def _connect(self) -> AbstractAsyncContextManager[Stream]:
        if self._message_id:
            return self._person.resume(self._message_id, self._cursor)
        headers = {"Idempotency-Key": self.message}
        return self._person.stream(self.message, headers=headers)

    def _note(self, cursor: str, data: dict[str, Any]) -> None:
        if "accepted" in data:
            self._message_id = data["message_id"]
            assert data["offset"] == len(self.text)
        self._cursor = cursor
        self.text += data.get("content", "")
        self.done = data if "done" in data else None


async def test_every_client_gets_its_whole_reply_through_a_rolling_restart(
    proxy_site: Site,
) -> None:
    began = len(proxy_site.model.requests)
    async with person(proxy_site, "rolling") as ana, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                Client(
                    Person(ana.session, ana.base, f"rolling {number}"),
                    f"rolling {number} model:tokens=60,interval_ms=100",
                    leaves=number % 2 == 0,
                ).run()
            )
            for number in range(9)
        ]
        await until(lambda: len(proxy_site.model.requests) == began + 9)
        for server in proxy_site.fleet.servers:
            server.signal(signal.SIGTERM)
            during = f"during {server.name} model:tokens=20,interval_ms=50"
            late = Person(ana.session, ana.base, f"during {server.name}")
            tasks.append(group.create_task(Client(late, during, leaves=False).run()))
            assert await server.exit_code(60.0) == 0
            await proxy_site.fleet.run(server)

    for client in (task.result() for task in tasks):
        assert client.done is not None
        assert client.done["finish_reason"] == "stop"
        assert client.text == reply_to(client.message)
    asked = [request.message for request in proxy_site.model.requests[began:]]
    assert len(asked) == len(set(asked)) == 12


async def refused(site: Site, user: str) -> list[int]:
    """Ask nine times, look nine times; give the answers that were none."""
    async with person(site, user) as ana:
        asked = [await ana.ask(f"{user} {number}") for number in range(9)]
        looked = [await ana.get("/viva/chat/snapshot") for _ in range(9)]
    return [each.status for each in (*asked, *looked) if each.status != 200]


async def test_a_process_that_drains_refuses_nobody_behind_a_proxy(
    proxy_site: Site,
) -> None:
    server = proxy_site.fleet.servers[0]
    message = "long model:tokens=200,interval_ms=50"
    async with person(proxy_site, "long") as ana:
        direct = Person(ana.session, f"http://127.0.0.1:{server.port}{PREFIX}", "long")
        async with direct.stream(message) as stream:
            await stream.event()
            server.signal(signal.SIGTERM)
            await until(lambda: "Stopping" in server.log)
            none = await refused(proxy_site, "draining")
            is_draining = server.is_running
            events = await stream.rest()
    assert await server.exit_code(60.0) == 0
    await proxy_site.fleet.run(server)

    assert none == []
    assert is_draining
    assert events[-1].data["status"] == "complete"


async def test_a_process_that_is_killed_refuses_nobody_behind_a_proxy(
    proxy_site: Site,
) -> None:
    server = proxy_site.fleet.servers[1]
    await server.kill()
    none = await refused(proxy_site, "killed")
    await proxy_site.fleet.run(server)

    assert none == []


@pytest.mark.timeout(300)
async def test_no_stream_is_refused_while_one_process_after_the_other_is_restarted(
    proxy_site: Site,
) -> None:
    """Streams of 8 s without a key; the next process stops when the last one is up."""
    tasks: list[asyncio.Task[dict[str, Any]]] = []

    async def talk(number: int) -> dict[str, Any]:
        async with person(proxy_site, f"steady {number}") as ana:
            message = f"steady {number} model:tokens=80,interval_ms=100"
            async with ana.stream(message) as stream:  # fails unless it is 200
                return (await stream.rest())[-1].data

    async def keep_coming() -> None:
        while True:
            tasks.append(asyncio.create_task(talk(len(tasks))))
            await asyncio.sleep(0.25)

    coming = asyncio.create_task(keep_coming())
    try:
        await asyncio.sleep(1.0)
        for server in proxy_site.fleet.servers:
            server.signal(signal.SIGTERM)
            assert await server.exit_code(60.0) == 0
            await proxy_site.fleet.run(server)
    finally:
        coming.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)

    wrong = [end for end in ends if isinstance(end, BaseException)]
    assert wrong == [], (len(wrong), len(ends))
    reasons = {
        end["finish_reason"] for end in ends if not isinstance(end, BaseException)
    }
    assert reasons == {"stop"}
