"""However much is dead or waits, an operator is told a bounded part of it."""

from __future__ import annotations

from tests.chat_host import chat_host
from tests.dictation import saying
from tests.operators import BASE, add_dead, add_dead_answers, operator, overview
from tests.people import rows

PAGE = 25
MOST = 1000


async def test_the_dead_come_in_pages_each_once(database_url: str) -> None:
    add_dead(database_url, 19)
    add_dead_answers(database_url, 19)
    async with chat_host(database_url, saying("oi"), worker=False) as host:
        seen: list[str] = []
        query: dict[str, str] = {}
        for size in (PAGE, PAGE, 7):
            page = (await operator(host).get(f"{BASE}/dead", params=query)).json
            assert len(page["items"]) == size
            seen += [item["id"] for item in page["items"]]
            query = {"before": page["next"]}
        assert page["next"] is None
        assert len(set(seen)) == 2 * PAGE + 7
        work = (await overview(operator(host)))["work"]
        assert [work[f"dead_{kind}"] for kind in ("turns", "parts", "news")] == [19] * 3


async def test_each_count_ends_at_a_limit(database_url: str) -> None:
    add_dead(database_url, MOST + 1)
    add_dead_answers(database_url, MOST + 1)
    rows(
        database_url,
        "INSERT INTO viva.outbox (id, turn_id, instance, jid, text)"
        " SELECT gen_random_uuid(), id, instance, jid, '' FROM viva.whatsapp_turns;"
        "UPDATE viva.inbox SET is_pending = true;"
        "INSERT INTO viva.whatsapp_chats (instance, jid, due_at, owner)"
        " SELECT s.name, t.jid, now() + s.due, s.owner FROM viva.whatsapp_turns AS t,"
        " (VALUES ('due', interval '-1 h', NULL), ('later', interval '1 h', NULL),"
        " ('running', NULL, gen_random_uuid())) AS s (name, due, owner)",
    )
    async with chat_host(database_url, saying("oi"), worker=False) as host:
        work = (await overview(operator(host)))["work"]
        del work["turns_due_since"]
        assert work == dict.fromkeys(work, MOST)
