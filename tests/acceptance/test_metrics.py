"""The metrics of a running server count what happened."""

from __future__ import annotations

import asyncio
from time import monotonic

from prometheus_client.parser import text_string_to_metric_families

from tests.chat_host import Host, chat_host, eventually
from tests.dictation import Dictation, saying

Told = dict[tuple[str, ...], float]


async def told(host: Host) -> Told:
    answer = await host.ana.get("/metrics")
    assert answer.status == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


async def test_replies_are_counted_by_their_end_with_the_time_to_their_first_text(
    database_url: str,
) -> None:
    async with chat_host(database_url, saying("um", "dois", "")) as host:
        answer = await host.ana.ask("oi")
        async with host.ana.resume(answer.json["message_id"]) as stream:
            await stream.rest()
        seen = await told(host)

    assert seen["viva_replies_ended_total", "stop"] == 1
    assert seen["viva_replies_ended_total", "crashed"] == 0
    assert seen["viva_reply_first_text_seconds_count",] == 1
    assert 0 < seen["viva_reply_first_text_seconds_sum",] < 30
    assert seen["viva_resumes_total",] == 1
    assert seen["viva_live_replies",] == 0


async def test_the_time_to_the_first_text_does_not_grow_with_the_reply(
    database_url: str,
) -> None:
    dictation = Dictation()
    async with chat_host(database_url, dictation) as host:
        asked_at = monotonic()
        async with host.ana.stream("oi") as stream:
            reply = await dictation.begun()
            reply.say("Olá")
            await stream.event()
            await stream.read_text(3)
            seen_at = monotonic()
            await asyncio.sleep(0.2)
            reply.say(", Ana")
            reply.end()
            await stream.rest()
        seen = await told(host)

    assert 0 < seen["viva_reply_first_text_seconds_sum",] <= seen_at - asked_at


async def test_commits_of_the_journal_are_counted_with_their_rows_and_their_lag(
    database_url: str,
) -> None:
    async with chat_host(database_url, saying("um", "dois")) as host:
        await host.ana.ask("oi")
        seen = await told(host)

    commits = seen["viva_journal_commit_seconds_count",]
    assert commits >= 1
    assert seen["viva_journal_batch_rows_count",] == commits
    assert seen["viva_journal_batch_rows_sum",] >= commits
    assert 1 <= seen["viva_journal_lag_seconds_count",] <= commits
    assert seen["viva_journal_lag_seconds_sum",] > 0
    assert seen["viva_journal_stuck_seconds",] == 0


async def test_webhooks_are_counted_by_event_and_by_what_was_answered(
    database_url: str,
) -> None:
    secret = "segredo-do-webhook"
    path = f"/webhook/evolution?token={secret}"
    event = {"event": "connection.update", "instance": "i", "data": {"state": "open"}}
    async with chat_host(database_url, saying(), webhook_secret=(secret,)) as host:
        await host.ana.post(path, event)
        await host.ana.post(path, event)
        await host.ana.post(path, {"event": "of.nobody", "data": {"n": 1}})
        await host.ana.post(path, data=b"{")
        wrong = {"Authorization": "Bearer wrong"}
        await host.ana.post("/webhook/evolution", {}, headers=wrong)
        seen = await told(host)

    assert {
        labels: count
        for (name, *labels_), count in seen.items()
        if name == "viva_webhooks_total" and (labels := tuple(labels_))
    } == {
        ("connection.update", "stored"): 1,
        ("connection.update", "duplicate"): 1,
        ("other", "stored"): 1,
        ("unread", "refused"): 1,
        ("unread", "unauthorized"): 1,
    }


async def test_the_loop_and_the_process_are_watched(database_url: str) -> None:
    async with chat_host(database_url, saying()) as host:
        seen = await eventually(
            lambda: told(host),
            lambda seen: seen["viva_event_loop_lag_seconds_count",] > 0,
        )

    assert seen["process_open_fds",] > 3
    connections = ("viva_pool_idle_connections", "viva_pool_busy_connections")
    assert sum(seen[name,] for name in connections) >= 1
