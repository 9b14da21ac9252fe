"""Every example runs as it says: a reply is streamed and stored, SIGTERM ends it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.chat_host import PATIENCE_SECONDS, Person, client
from tests.fakes.model import FakeModel
from tests.fakes.script import Script, reply_to
from tests.postgres import PostgresServer, run_sql
from tests.programs import ROOT, Program, free_port, program
from tests.streams import text_of

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
TESTED = {
    "apprunner.py",
    "embed.py",
    "gunicorn_app.py",
    "host_pool.py",
    "respond_function.py",
    "respond_openai_sdk.py",
    "subapp.py",
    "two_vivas.py",
}


def test_every_example_has_its_test_and_its_line() -> None:
    listed = (ROOT / "examples/README.md").read_text("utf-8")
    assert set(EXAMPLES) == TESTED
    assert [name for name in EXAMPLES if f"]({name})" not in listed] == []


@asynccontextmanager
async def example(
    name: str, database_url: str, **environment: str
) -> AsyncIterator[Program]:
    """Run an example; at the block's end it stops on SIGTERM without a complaint."""
    path = str(Path("examples") / name)
    async with stopping(path, free_port(), database_url, **environment) as running:
        yield running


@asynccontextmanager
async def stopping(
    path: str, port: int, database_url: str, **environment: str
) -> AsyncIterator[Program]:
    environment = {
        "VIVA_DATABASE_URL": database_url,
        "PORT": str(port),
        **environment,
    }
    async with program(path, port=port, environment=environment) as running:
        yield running
        assert await running.stopped() == 0
    assert "Traceback" not in running.output
    assert "Warning" not in running.output


async def ask(person: Person, message: str) -> str:
    """Have a message answered as a stream; give the text once it is found stored."""
    async with person.stream(message) as stream:
        accepted = await stream.event()
        events = await stream.rest()
    assert events[-1].data["done"] is True
    snapshot = await person.snapshot(session_id=accepted.data["session_id"])
    stored = snapshot["messages"][-1]
    assert stored["id"] == accepted.data["message_id"]
    assert stored["status"] == "complete"
    assert stored["conteudo"] == text_of(events)
    return text_of(events)


async def page(person: Person, origin: str) -> str:
    async with person.session.get(origin + "/") as response:
        return await response.text()


async def test_embed(database_url: str) -> None:
    async with example("embed.py", database_url) as running, client() as session:
        ana = Person(session, running.origin + "/api/v1")
        refused = await ana.get("/viva/chat/snapshot")
        ana.headers = {"X-User": "ana"}
        assert await ask(ana, "olá 😀") == "Você disse: olá 😀"
        assert await page(ana, running.origin) == "the host's own page\n"
    assert refused.status == 401


async def test_the_program_in_the_readme(database_url: str, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    [code] = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    port = free_port()
    assert "port=8080" in code
    path = tmp_path / "readme.py"
    path.write_text(code.replace("port=8080", f"port={port}"), "utf-8")
    async with (
        stopping(str(path), port, database_url) as running,
        client() as session,
    ):
        ana = Person(session, running.origin + "/api/v1")
        assert await ask(ana, "oi") == "You said: oi "


async def test_subapp(database_url: str) -> None:
    async with example("subapp.py", database_url) as running, client() as session:
        ana = Person(session, running.origin + "/assistant/api/v1")
        assert "VIVA" in await ask(ana, "bom dia")
        assert await page(ana, running.origin) == "the host's own page\n"


async def test_apprunner(database_url: str) -> None:
    async with example("apprunner.py", database_url) as running, client() as session:
        ana = Person(session, running.origin + "/api/v1")
        assert "VIVA" in await ask(ana, "bom dia")


async def test_two_vivas(postgres: PostgresServer, database_url: str) -> None:
    with postgres.database() as other_url:
        urls = {"SALES_DATABASE_URL": database_url, "SUPPORT_DATABASE_URL": other_url}
        async with (
            example("two_vivas.py", database_url, **urls) as running,
            client() as session,
        ):
            sales = Person(session, running.origin + "/sales")
            support = Person(session, running.origin + "/support")
            assert await ask(sales, "oi") == "O que deseja comprar?"
            assert (await support.snapshot())["session_id"] is None
            assert await ask(support, "oi") == "O que não funciona?"


async def test_host_pool(database_url: str) -> None:
    async with example("host_pool.py", database_url) as running, client() as session:
        ana = Person(session, running.origin + "/help")
        refused = await ana.get("/viva/chat/snapshot")
        ana.headers = {"Cookie": "user=ana"}
        assert await ask(ana, "café") == "café: R$ 4,50"
        assert await ask(ana, "chá") == "chá? Não temos."
        hosts = Person(session, running.origin)
        assert (await hosts.get("/prices")).json == ["pão", "café"]
        sql = (
            "SELECT schemaname FROM pg_tables WHERE tablename IN ('prices', 'messages')"
        )
        found = run_sql(database_url, f"{sql} ORDER BY 1")
    assert refused.status == 401
    assert found == [("public",), ("viva",)]


async def test_respond_function(database_url: str) -> None:
    async with (
        example("respond_function.py", database_url) as running,
        client() as session,
    ):
        ana = Person(session, running.origin + "/api/v1")
        assert await ask(ana, "um dois") == "um… dois… "
        failed = await ana.ask("falhe")
        long = await ana.ask("a " * 41)
    assert (failed.status, failed.json["code"]) == (502, "no_words_left")
    assert (long.json["status"], long.json["finish_reason"]) == ("complete", "length")


async def test_respond_openai_sdk(database_url: str) -> None:
    scripts = (Script(tokens=5), Script(tokens=9, cut="eof", cut_after=2))
    async with FakeModel(*scripts) as model:
        environment = {"OPENAI_BASE_URL": str(model.url), "OPENAI_API_KEY": "k"}
        async with (
            example("respond_openai_sdk.py", database_url, **environment) as running,
            client() as session,
        ):
            ana = Person(session, running.origin + "/api/v1")
            assert await ask(ana, "oi") == reply_to("oi", scripts[0])
            broken = await ana.ask("de novo")
        [first, second] = model.requests
    assert broken.json["resposta"] == reply_to("de novo", scripts[1])
    assert (broken.json["status"], broken.json["finish_reason"]) == (
        "partial",
        "upstream_error",
    )
    assert [m["role"] for m in first.body["messages"]] == ["system", "user"]
    assert len(second.body["messages"]) == 4


@pytest.mark.parametrize("preload", [False, True])
async def test_gunicorn_with_two_workers(database_url: str, *, preload: bool) -> None:
    port = free_port()
    arguments = ["-m", "gunicorn", "examples.gunicorn_app:app", "--workers", "2"]
    arguments += ["--worker-class", "aiohttp.GunicornWebWorker"]
    arguments += ["--bind", f"127.0.0.1:{port}", *(["--preload"] if preload else [])]
    environment = {"VIVA_DATABASE_URL": database_url}
    async with (
        program(*arguments, port=port, environment=environment) as running,
        client() as session,
    ):
        people = [
            Person(session, running.origin + "/api/v1", f"p{number}")
            for number in range(12)
        ]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.output.count("Booting worker") < 2:
                await asyncio.sleep(0.05)
        # Whichever worker a connection meets, a reply is found on it.
        texts = await asyncio.gather(*(ask(each, "bom dia") for each in people))
        processes = run_sql(database_url, "SELECT id FROM viva.processes")
        assert await running.stopped() == 0
    assert len(processes) == 2
    assert all("VIVA" in text for text in texts)
    assert "Traceback" not in running.output
