"""`doctor` finds what is wrong, in one line each, and tells no secret."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psycopg2
import pytest

from tests.acceptance.bouncer import pgbouncer
from tests.acceptance.test_commands import SECRET, free_port, run, serving
from tests.fakes.evolution import FakeEvolution
from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.postgres import PostgresServer, data_folder, run_sql

_PASSWORD = "sesame"


def examine(**settings: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Run doctor; give its exit code and of each check the word and the detail."""
    result = run("doctor", settings=settings)
    assert result.stderr == "", result.stderr
    assert "Traceback" not in result.stdout
    found = {}
    for line in result.stdout.splitlines():
        word, name, detail = line[:4], line[6:22], line[24:]
        found[name.strip()] = (word.strip(), detail)
    assert all(word in {"ok", "warn", "FAIL"} for word, _ in found.values())
    failed = any(word == "FAIL" for word, _ in found.values())
    assert result.returncode == int(failed), result.stdout
    return result.returncode, found


def given(database_url: str, **more: str) -> dict[str, str]:
    return {"VIVA_DATABASE_URL": database_url, "VIVA_JWT_SECRET": SECRET, **more}


@pytest.mark.durable
async def test_where_all_is_well_it_ends_with_0(own_postgres: PostgresServer) -> None:
    with own_postgres.database() as url:
        status, found = examine(**given(url, VIVA_WEBHOOK_SECRET="w" * 16))

    assert status == 0
    assert {name for name, (word, _) in found.items() if word != "ok"} == {"evolution"}
    assert found["database"][1].startswith("PostgreSQL ")
    assert set(found) == {
        "settings", "http parser", "open files", "data folder", "database",
        "durability", "schema", "pooler", "full_page_writes", "connections", "clock",
        "model", "webhook", "evolution",
    }  # fmt: skip


def test_a_server_that_may_lose_commits_is_named(database_url: str) -> None:
    status, found = examine(**given(database_url))

    assert status == 1
    assert found["durability"][0] == found["full_page_writes"][0] == "FAIL"
    assert "fsync is off" in found["durability"][1]


def test_settings_that_cannot_be_used_are_a_line_each() -> None:
    result = run("doctor", settings={"VIVA_PORT": "x", "VIVA_LIVE_REPLIES": "y"})

    assert result.returncode == 1
    assert result.stdout.count("FAIL  settings") == 2


def test_a_database_that_is_away_is_named_without_its_password() -> None:
    url = f"postgresql://nobody:{_PASSWORD}@127.0.0.1:{free_port()}/x"
    _, found = examine(**given(url))

    assert found["database"][0] == "FAIL"
    assert _PASSWORD not in str(found)


def test_a_missing_schema_fails_unless_serve_brings_it(database_url: str) -> None:
    run_sql(database_url, "DROP SCHEMA viva CASCADE")

    assert examine(**given(database_url))[1]["schema"][0] == "warn"
    word, detail = examine(**given(database_url, VIVA_AUTO_MIGRATE="0"))[1]["schema"]
    assert (word, "run viva-server migrate" in detail) == ("FAIL", True)


def test_a_server_without_room_for_connections_is_named(database_url: str) -> None:
    connections = [psycopg2.connect(database_url) for _ in range(85)]
    try:
        word, detail = examine(**given(database_url))[1]["connections"]
    finally:
        for connection in connections:
            connection.close()

    assert (word, "are free" in detail) == ("warn", True)


@pytest.mark.parametrize(("mode", "word"), [("transaction", "FAIL"), ("session", "ok")])
def test_a_pooler_that_takes_session_locks_away_is_found(
    database_url: str, mode: str, word: str
) -> None:
    with pgbouncer(database_url, mode) as url:
        found = examine(**given(url))[1]

    assert found["pooler"][0] == word


def told(status: int, error: object) -> Script:
    """A refusal with its reason."""
    body = json.dumps({"error": error}).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
    return Script(raw=head.encode() + body)


REASONED = (
    b'data: {"choices":[{"delta":{"reasoning":"hm"}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n'
)


@pytest.mark.parametrize(
    ("script", "word", "says"),
    [
        (Script(tokens=1), "ok", "answers as m (stop); its habits: nothing unusual"),
        (Script(events=REASONED), "ok", "its habits: no [DONE]; reasoning beside"),
        (Script(tokens=1, finish="length"), "ok", "(length)"),
        (told(401, {"message": f"bad {_PASSWORD}"}), "FAIL", "HTTP 401 (bad …)"),
        (told(404, "no such model"), "FAIL", "no such model): see VIVA_MODEL_NAME"),
        (told(503, {"message": "Loading"}), "FAIL", "(HTTP 503 Loading)"),
        (told(429, {"code": "insufficient_quota"}), "FAIL", "quota is used up"),
        (Script(tokens=0), "FAIL", "no text"),
    ],
)
async def test_the_model_is_asked_a_question(
    script: Script, word: str, says: str
) -> None:
    async with FakeModel(script) as model:
        settings = {
            "VIVA_MODEL_URL": str(model.url),
            "VIVA_MODEL_NAME": "m",
            "VIVA_MODEL_API_KEY": _PASSWORD,
            "VIVA_MODEL_PARAMS": '{"max_tokens": 20}',
        }
        found = await asyncio.to_thread(examine_without_database, **settings)
        assert model.requests[0].headers["authorization"] == f"Bearer {_PASSWORD}"
        assert model.requests[0].body["max_tokens"] == 20

    assert found["model"][0] == word
    assert says in found["model"][1]
    assert _PASSWORD not in str(found)


async def test_offline_nobody_is_asked(tmp_path: Path) -> None:
    async with FakeModel() as model:
        settings = {"VIVA_MODEL_URL": str(model.url), "VIVA_MODEL_NAME": "m"}
        result = await asyncio.to_thread(
            run,
            *("doctor", "--offline"),
            settings={"VIVA_DATA_DIR": str(tmp_path / "none"), **settings},
        )
        assert not model.requests
    assert " model " not in result.stdout
    assert " webhook " in result.stdout


def examine_without_database(**settings: str) -> dict[str, tuple[str, str]]:
    with data_folder() as folder:
        return examine(VIVA_DATA_DIR=str(folder / "none"), **settings)[1]


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://127.0.0.1:1/v1", "k"),
        ("http://does-not-exist.invalid/v1", "k"),
        (f"http://me:{_PASSWORD}@127.0.0.1:1/v1", "k"),
        ("http://127.0.0.1:1/v1", f"{_PASSWORD}\nX: y"),
    ],
)
def test_a_model_that_cannot_be_asked_fails(url: str, key: str) -> None:
    found = examine_without_database(
        VIVA_MODEL_URL=url, VIVA_MODEL_NAME="m", VIVA_MODEL_API_KEY=key
    )

    assert found["model"][0] == "FAIL"
    assert _PASSWORD not in str(found)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "warn"),
        ({"VIVA_WEBHOOK_OPEN": "1"}, "warn"),
        ({"VIVA_WEBHOOK_SECRET": "w" * 16}, "ok"),
        (
            {
                "VIVA_EVOLUTION_URL": "http://127.0.0.1:1",
                "VIVA_EVOLUTION_API_KEY": "k",
            },
            "FAIL",
        ),
    ],
)
def test_a_webhook_without_a_secret_is_named(
    settings: dict[str, str], word: str
) -> None:
    assert examine_without_database(**settings)["webhook"][0] == word


async def test_evolution_and_the_webhook_of_each_instance_are_examined() -> None:
    async with FakeEvolution(only=["loja"]) as evolution:
        url = "http://127.0.0.1:9/api/v1/webhook/evolution"
        evolution.settings["loja"] = {"url": url, "enabled": True, "events": []}
        found = await asyncio.to_thread(
            examine_without_database,
            VIVA_EVOLUTION_URL=evolution.url,
            VIVA_EVOLUTION_API_KEY=evolution.api_key,
            VIVA_WEBHOOK_SECRET="w" * 16,
        )

    assert found["evolution"][0] == "ok", found
    assert found["webhook loja"][0] == "FAIL", found
    assert evolution.api_key not in str(found)


def test_a_data_folder_that_is_open_to_others_is_named() -> None:
    with data_folder() as folder:
        data = folder / "data"
        data.mkdir()
        data.chmod(0o755)
        secret = data / "jwt-secret"
        secret.write_text("x" * 64)
        secret.chmod(0o644)
        word, detail = examine(VIVA_DATA_DIR=str(data))[1]["data folder"]

    assert word == "FAIL"
    assert detail.count("chmod") == 2


def test_a_prompt_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    found = examine_without_database(VIVA_SYSTEM_PROMPT_FILE=str(tmp_path / "none"))

    assert found["system prompt"][0] == "FAIL"


def test_the_embedded_database_is_examined_beside_its_server_and_alone() -> None:
    with data_folder() as folder:
        data = {"VIVA_DATA_DIR": str(folder / "data")}
        assert "embedded" in examine(**data)[1]["database"][1]
        assert not (folder / "data").exists()
        with serving(**data):
            beside = examine(**data)
        alone = examine(**data)

    assert beside[0] == alone[0] == 0
    assert beside[1]["durability"][0] == alone[1]["durability"][0] == "ok"
