"""The worker without HTTP, and what the operator does with the dead."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tests.acceptance.whatsapp_site import whatsapp_site
from tests.chat_host import SECRET
from tests.fakes.model import FakeModel
from tests.programs import ROOT, free_port
from tests.waiting import until


@asynccontextmanager
async def command(
    *arguments: str, environment: Mapping[str, str]
) -> AsyncIterator[Process]:
    """Run a command of viva-server; kill what is left of it at the end."""
    kept = {name: value for name in ("PATH", "HOME") if (value := os.environ.get(name))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "viva_server", *arguments),
        cwd=ROOT,
        env={**kept, "VIVA_JWT_SECRET": SECRET, **environment},
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def output(*arguments: str, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a command to its end; gives its status and what it printed."""
    async with command(*arguments, environment=environment) as process:
        out, error = await process.communicate()
        assert process.returncode is not None
        return process.returncode, (out or error).decode()


async def test_a_worker_answers_for_a_server_without_one(database_url: str) -> None:
    async with (
        FakeModel() as model,
        whatsapp_site(database_url, model, viva_worker="0") as site,
    ):
        site.evolution.receive("oi")
        await site.evolution.settled()
        await asyncio.sleep(1.0)
        assert site.evolution.sent == []
        environment = site.environment(free_port())
        async with command("worker", environment=environment) as worker:
            await site.answered()
            worker.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                assert await worker.wait() == 0
        # It leaves nothing behind but the server's own process.
        assert site.rows("SELECT count(*) FROM viva.processes") == [(1,)]


async def test_a_worker_needs_a_database_and_evolution() -> None:
    status, told = await output("worker", environment={})
    assert status == 78
    assert "VIVA_DATABASE_URL" in told
    assert "VIVA_EVOLUTION_URL" in told


async def test_the_dead_are_listed_and_replayed(database_url: str) -> None:
    async with FakeModel() as model, whatsapp_site(database_url, model) as site:
        site.evolution.script("absent")
        site.evolution.receive("oi")
        await until(lambda: site.rows("SELECT state FROM viva.outbox") == [("dead",)])
        environment = site.environment(free_port())
        status, listed = await output("webhook", "dead", environment=environment)
        assert status == 0
        [dead] = [json.loads(line) for line in listed.splitlines()]
        assert (dead["kind"], dead["state"], dead["instance"]) == (
            "send", "dead", "loja",
        )  # fmt: skip
        replaying = ("webhook", "dead", "--replay", dead["id"])
        status, told = await output(*replaying, environment=environment)
        assert (status, told) == (0, f"replayed {dead['id']}\n")
        await site.answered()
        await site.evolution.settled()
        status, told = await output(*replaying, environment=environment)
        assert status == 1
        unknown = ("webhook", "dead", "--replay", "x")
        assert (await output(*unknown, environment=environment))[0] == 1
