"""An erasure finds a person in all that Evolution delivered, and keeps the others'."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.people import (
    LID,
    PHONE,
    add_sessions,
    add_turns,
    dump,
    erase,
    receive,
    rows,
    webhook,
    written,
)
from tests.postgres import run_sql
from tests.unit.whatsapp.samples import NOW, SAMPLES, tail_of
from viva_server.store import erasure as module
from viva_server.store.driver.database import Database
from viva_server.store.driver.link import Result
from viva_server.store.erasure import Erasure
from viva_server.store.people import whatsapp_subject, with_addresses
from viva_server.whatsapp.ingress.delivery import make_delivery

_JID = f"{PHONE}@s.whatsapp.net"
_OTHER = "5511900000000@s.whatsapp.net"
_CANARY = "canary"
_CONTENTS = "SELECT encode(dedupe_key, 'hex'), CAST(i AS text) FROM viva.inbox AS i"


def of_a_person() -> list[Any]:
    """Make deliveries of all kinds that name a person on WhatsApp."""
    group = "120363041234567890@g.us"
    batch = [
        {"key": {"remoteJid": jid, "id": jid}, "message": {"conversation": text}}
        for jid, text in ((_OTHER, "x"), (_JID, _CANARY))
    ]
    return [
        written(_CANARY, number=1),
        written(_CANARY, number=2, chat=f"{LID}@lid", remoteJidAlt=_JID),
        written(_CANARY, number=3, chat=f"{LID}@lid"),
        written(
            _CANARY, number=4, chat=group, participant=f"{PHONE}:12@s.whatsapp.net"
        ),
        webhook("messages.set", batch),
        webhook(
            "messages.update", {"keyId": "M1", "remoteJid": _JID, "status": "READ"}
        ),
        webhook("contacts.upsert", [{"remoteJid": f"{LID}@lid", "pushName": _CANARY}]),
        webhook("presence.update", {"id": _JID, "presences": {_JID: {}}}),
    ]


def of_others() -> list[Any]:
    return [
        written(f"ask {PHONE} about it", number=5, chat=_OTHER),
        written("of another instance", number=6, instance="outra"),
        written("a longer number", number=7, chat=f"9{PHONE}@s.whatsapp.net"),
        webhook("connection.update", {"state": "open"}),
    ]


async def test_deliveries_that_name_the_person_are_emptied(
    database: Database, database_url: str
) -> None:
    await receive(database, [*of_a_person(), *of_others()])
    add_sessions(
        database_url, f"loja/{PHONE}", channel="whatsapp", text=f"session {_CANARY}"
    )
    before = set(rows(database_url, _CONTENTS))

    counts = await erase(database, whatsapp_subject(f"loja/{PHONE}"))

    assert counts["deliveries"] == len(of_a_person())
    text = dump(database_url)
    assert _CANARY not in text
    assert LID not in text
    after = set(rows(database_url, f"{_CONTENTS} WHERE kind <> 'emptied'"))
    assert {key for key, _ in after} == {each.dedupe_key for each in of_others()}
    assert after <= before


async def test_a_late_redelivery_does_not_bring_it_back(
    database: Database, database_url: str
) -> None:
    await receive(database, of_a_person())
    await erase(database, whatsapp_subject(f"loja/{PHONE}"))

    assert await receive(database, of_a_person()) == [False] * len(of_a_person())

    text = dump(database_url)
    assert _CANARY not in text
    assert PHONE not in text
    assert await receive(database, [written("I am back", number=99)]) == [True]


async def test_a_late_redelivery_is_none_that_has_an_effect_for_the_first_time(
    database: Database, database_url: str
) -> None:
    untrusted = replace(written(_CANARY), trusted=False)
    await receive(database, [untrusted])
    await erase(database, whatsapp_subject(f"loja/{PHONE}"))

    found = rows(database_url, "SELECT kind, answer, trusted FROM viva.inbox")
    assert found == [("emptied", False, True)]


async def test_a_redelivery_at_the_same_moment_does_not_bring_it_back(
    database: Database, database_url: str
) -> None:
    await receive(database, of_a_person())
    subject = whatsapp_subject(f"loja/{PHONE}")

    async def redeliver() -> None:
        for _ in range(20):
            await receive(database, of_a_person())

    await asyncio.gather(redeliver(), redeliver(), erase(database, subject))

    assert _CANARY not in dump(database_url)


async def test_what_is_pending_or_put_aside_of_the_person_is_not_applied_any_more(
    database: Database, database_url: str
) -> None:
    own = {"key": {"remoteJid": _JID, "fromMe": True, "id": "own"}}
    own |= {"message": {"conversation": _CANARY}}
    await receive(database, [webhook("messages.upsert", own)])
    run_sql(database_url, f"UPDATE viva.inbox SET problem = '{_CANARY} {PHONE}'")
    [pending] = await database.fetch("load_pending", rows=10)

    await erase(database, whatsapp_subject(f"loja/{PHONE}"))
    # A process that had read it before cannot pause the chat any more.
    await database.execute(
        "apply_handover", inbox_id=pending.id, instance="loja", jid=_JID,
        spoken_at=NOW, handover_seconds=9e9, greeting_seconds=3,
    )  # fmt: skip

    assert await database.fetch("load_pending", rows=10) == []
    assert PHONE not in dump(database_url)


async def test_what_the_person_said_in_a_group_is_not_in_the_queue_any_more(
    database: Database, database_url: str
) -> None:
    group = "120363041234567890@g.us"
    await receive(
        database,
        [
            written(_CANARY, number=1, chat=group, participant=_JID),
            written("of another", number=2, chat=group, participant=_OTHER),
        ],
    )
    run_sql(database_url, f"UPDATE viva.whatsapp_messages SET text = '{_CANARY}'"
            " WHERE message_id = 'M1'")  # fmt: skip

    await erase(database, whatsapp_subject(f"loja/{PHONE}"))

    assert _CANARY not in dump(database_url)
    assert rows(database_url, "SELECT message_id FROM viva.whatsapp_messages") == [
        ("M2",)
    ]


class Dying(Database):
    """A database whose user is killed after so many statements."""

    left = 10**9

    async def _run_query(self, name: str, parameters: dict[str, object]) -> Result:
        self.left -= 1
        if self.left < 0:
            raise InterruptedError
        return await super()._run_query(name, parameters)


async def test_an_erasure_of_the_queue_that_is_cut_anywhere_is_finished_by_the_next(
    database: Database, database_url: str
) -> None:
    dying = Dying(database_url)
    await dying.open()
    subject = whatsapp_subject(f"loja/{PHONE}")
    try:
        for steps in range(1, 60):
            run_sql(database_url, "TRUNCATE viva.inbox, viva.whatsapp_turns CASCADE")
            await receive(database, of_a_person())
            add_turns(database_url, _CANARY + PHONE)
            await receive(database, [written("waits", number=100)])
            dying.left = steps
            with suppress(InterruptedError):
                await erase(dying, subject)
            await erase(database, subject)
            text = dump(database_url)
            assert LID not in text, steps
            assert PHONE not in text, steps
            if dying.left > 0:
                return
    finally:
        await dying.close()
    raise AssertionError("it never came to its end")


async def test_no_sample_of_evolution_keeps_a_person(
    database: Database, database_url: str
) -> None:
    await receive(
        database,
        [
            make_delivery(
                tail_of(sample), "", sample["headers"], sample["body"], trusted=True,
                now=NOW,
            )
            for sample in SAMPLES.values()
        ],
    )  # fmt: skip
    instances = rows(database_url, "SELECT DISTINCT instance FROM viva.inbox")
    for [instance] in instances:
        if instance:
            await erase(database, whatsapp_subject(f"{instance}/{PHONE}"))

    left = rows(
        database_url,
        "SELECT event, chat, answer FROM viva.inbox WHERE instance <> ''"
        f" AND CAST(body AS text) || CAST(form AS text) LIKE '%{PHONE}%'",
    )
    # Another person's message that waits for an answer is that person's.
    assert all(answer and chat != _JID for _, chat, answer in left), left


async def test_a_second_run_finds_the_lids_that_a_cut_one_had_left(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STRETCH", 1)
    await receive(database, of_a_person())
    subject = await with_addresses(database, whatsapp_subject(f"loja/{PHONE}"))
    for steps in range(1, 25):

        def cut(_: int, erasure: list[int] = [steps]) -> None:  # noqa: B006
            erasure[0] -= 1
            if erasure[0] == 0:
                raise InterruptedError

        run_sql(database_url, "DELETE FROM viva.inbox")
        await receive(database, of_a_person())
        try:
            await Erasure(database, subject, advance=cut).run()
        except InterruptedError:
            await erase(database, whatsapp_subject(f"loja/{PHONE}"))
        text = dump(database_url)
        assert _CANARY not in text, steps
        assert LID not in text, steps
