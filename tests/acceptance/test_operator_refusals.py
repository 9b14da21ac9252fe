"""What is asked for wrongly is refused, with a 5xx only while the database is away."""

from __future__ import annotations

import pytest

from tests.chat_host import Host, chat_host
from tests.dictation import saying
from tests.operators import BASE, operator, overview, search
from tests.postgres import PostgresServer

ID = "0199c3a0-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "_", f"2026_{ID}", f"2026-11-22T14:03:07_{ID}", "infinity_" + ID,
     f"2026-11-22T14:03:07+00:00_{ID}x", f"2026-11-22T14:03:07+00:00_{'z' * 36}",
     "9" * 5_000, f"0001-01-01T00:00:00+14:00_{ID}",
     "\N{ARABIC-INDIC DIGIT TWO}026-11-22T14:03:07+00:00_" + ID],
)  # fmt: skip
async def test_what_is_no_cursor_is_refused(shared: Host, cursor: str) -> None:
    params = {"before": cursor}
    answer = await operator(shared).get(f"{BASE}/dead", params=params)
    assert (answer.status, answer.json["code"]) == (400, "bad_query")


@pytest.mark.parametrize(
    "at",
    ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999Z", "2026-W48-1T00:00Z",
     "20261122T140307+0000", "2026-11-22 14:03:07+00:00:30.5"],
)  # fmt: skip
async def test_a_cursor_may_name_any_time(shared: Host, at: str) -> None:
    params = {"before": f"{at}_{ID}"}
    assert (await operator(shared).get(f"{BASE}/dead", params=params)).status == 200


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/dead/replay", {}, "/ids"),
        ("/dead/replay", {"ids": []}, "/ids"),
        ("/dead/replay", {"ids": [ID] * 101}, "/ids"),
        ("/dead/replay", {"ids": {"0": ID}}, "/ids"),
        ("/dead/replay", {"ids": [ID, "x"]}, "/ids/1"),
        ("/dead/replay", {"ids": [None]}, "/ids/0"),
        ("/messages/search", {}, "/phone"),
        ("/messages/search", {"phone": 5511988887777}, "/phone"),
        ("/messages/search", {"phone": "Maria"}, "/phone"),
        ("/messages/search", {"phone": "1" * 256}, "/phone"),
        ("/messages/search", {"phone": "'; DROP TABLE viva.inbox"}, "/phone"),
    ],
)
async def test_a_body_that_cannot_be_taken_is_refused_by_name(
    shared: Host, path: str, body: object, pointer: str
) -> None:
    answer = await operator(shared).post(BASE + path, body)
    assert answer.status == 422
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]


async def test_a_form_of_another_site_replays_nothing(shared: Host) -> None:
    answer = await operator(shared).request(
        "POST", f"{BASE}/dead/replay", data={"ids": ID}
    )
    assert answer.status == 415


async def test_without_a_database_it_is_503_and_comes_back(
    own_postgres: PostgresServer,
) -> None:
    with own_postgres.database() as url:
        async with chat_host(url, saying("oi")) as host:
            ops = operator(host)
            assert await overview(ops)
            await own_postgres.stop()
            answers = [
                await ops.get(f"{BASE}/overview"),
                await ops.get(f"{BASE}/dead"),
                await ops.post(f"{BASE}/dead/replay", {"ids": [ID]}),
                await search(ops, "5511988887777"),
            ]
            await own_postgres.start()
            for answer in answers:
                assert (answer.status, answer.json["code"]) == (503, "unavailable")
            status = 0
            while status != 200:
                status = (await ops.get(f"{BASE}/overview")).status
