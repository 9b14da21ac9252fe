"""The three checks that the system before this one failed, as they were written."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.chat_host import HOST, SECRET, Person, client, eventually
from tests.programs import ROOT, free_port, program

STREAM = """curl -sS -N $BASE/api/v1/viva/chat/stream -H "Authorization: Bearer $TOKEN" \
-H "Content-Type: application/json" \
-d '{"mensagem":"teste persistencia","contexto":[]}' | head -n 20"""

SNAPSHOT = """curl -sS $BASE/api/v1/viva/chat/snapshot \
-H "Authorization: Bearer $TOKEN" | jq '.messages | length'"""

WEBHOOK = """curl -sS -X POST $BASE/api/v1/webhook/evolution/messages-upsert \
-H "Content-Type: application/json" -d '{"data": {"key": "dummy"}}'"""


def shell(command: str, **variables: str) -> str:
    """Run a command line; give what it writes to stdout."""
    return subprocess.run(
        ["/bin/sh", "-c", command],
        env={"PATH": os.environ["PATH"], "no_proxy": "*", **variables},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
        text=True,
    ).stdout


def issued(**environment: str) -> str:
    """Have the command print a token."""
    done = subprocess.run(
        [sys.executable, "-m", "viva_server", "token", "--user", "ana"],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    for name in ("curl", "jq", "head"):
        subprocess.run([name, "--version"], check=True, stdout=subprocess.DEVNULL)


async def test_the_three_checks_pass_as_they_were_written(database_url: str) -> None:
    port = free_port()
    environment = {"VIVA_DATABASE_URL": database_url, "VIVA_PORT": str(port)}
    token = issued(VIVA_JWT_SECRET=SECRET, VIVA_DATABASE_URL=database_url)
    variables = {"BASE": f"http://{HOST}:{port}", "TOKEN": token}
    serve = ("-m", "viva_server", "serve")
    async with (
        program(*serve, port=port, environment=environment) as running,
        client() as session,
    ):
        ana = Person(session, running.origin + "/api/v1")
        for run in (1, 2):
            streamed = shell(STREAM, **variables)
            length = shell(SNAPSHOT, **variables)
            snapshot = await ana.snapshot()
            seen = "".join(
                json.loads(line.removeprefix("data: ")).get("content", "")
                for line in streamed.splitlines()
                if line.startswith("data: ")
            )
            # `head` closed the pipe after twenty lines, in mid-stream.
            assert streamed.count("\n") == 20
            assert int(length) == len(snapshot["messages"]) == 2 * run
            user, reply = snapshot["messages"][-2:]
            assert (user["tipo"], user["conteudo"]) == ("usuario", "teste persistencia")
            assert reply["tipo"] == "ia"
            assert seen
            assert reply["conteudo"].startswith(seen)
        await eventually(ana.snapshot, lambda now: now["active_reply"] is None)
        received = json.loads(shell(WEBHOOK, **variables))
        assert await running.stopped() == 0
    assert received == {
        "status": "received",
        "processed": True,
        "event": "messages.upsert",
        "duplicate": False,
    }
    assert "Traceback" not in running.output
