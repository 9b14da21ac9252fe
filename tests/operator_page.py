"""The operator's page in a real Chromium, and a database with a day's work in it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Locator, Page, Request, expect

from tests.browser import WAIT_MS
from tests.chat_host import token
from tests.postgres import run_sql

TRACED = "3EB0A9D2C4F1E7B60831"
PHONE = "5511988887777"

_MARK = "/health?of-the-test"


class OperatorPage:
    """The page as an operator sees it; what is wrong behind it is kept in `faults`."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.search = page.get_by_role("textbox", name="Id da mensagem ou telefone")
        self.messages = page.locator("#messages-table tbody tr")
        self.dead = page.locator("#dead-table tbody tr")
        self.steps = page.locator("#timeline li")
        self.told = page.locator("#done")
        self.wrong = page.locator("#notice")
        self.lost = page.locator("#lost")
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog {dialog.message}"))
        page.on("popup", lambda popup: self.faults.append(f"popup {popup.url}"))
        page.on("request", self._keep)

    def _keep(self, request: Request) -> None:
        if not request.url.endswith(_MARK):
            self.requests.append(request.url)

    async def open(self, scope: str | None = "admin") -> None:
        """Come in by a link, and wait for the first look."""
        link = f"{self.origin}/operator/#token={token('ops', scope=scope)}"
        await self.page.goto(link)
        if scope == "admin":
            await self.looked()

    async def looked(self) -> None:
        await expect(self.page.locator("#main")).to_be_visible()

    async def pass_time(self, milliseconds: int) -> None:
        """Let the page's clock, which has to be installed, go on at once.

        What the page asked for meanwhile is in `requests`.
        """
        await self.page.clock.run_for(milliseconds)
        # Asked after all that: when it is answered, the others have been told of.
        await self.value(f"fetch('{_MARK}').then(() => null)")

    async def find(self, wanted: str) -> None:
        await self.search.fill(wanted)
        await self.search.press("Enter")

    def tile(self, target: str) -> Locator:
        """The number in one of the figures at the top."""
        return self.page.locator(f'#tiles [href="#{target}-title"] .number')

    async def value(self, script: str) -> Any:
        return await self.page.evaluate(script)


@asynccontextmanager
async def operator_page(
    browser: Browser, origin: str, **options: Any
) -> AsyncIterator[OperatorPage]:
    """Open an empty tab of an operator in Brazil; nothing may fail in it."""
    options = {"locale": "pt-BR", "timezone_id": "America/Sao_Paulo", **options}
    context = await browser.new_context(**options)
    try:
        operator = OperatorPage(await context.new_page(), origin)
        yield operator
        if sys.exc_info()[0] is None:
            assert operator.faults == []
    finally:
        await context.close()


def fill(url: str) -> None:
    """Put a day's work into a database; no process of the test owns any of it."""
    run_sql(url, _DAY)


_DAY = f"""
CREATE FUNCTION pg_temp.id(kind integer, n integer) RETURNS uuid LANGUAGE sql AS
$$ SELECT CAST('0199c3a0-000' || kind || '-7000-8000-' || lpad(to_hex(n), 12, '0')
    AS uuid) $$;

INSERT INTO viva.processes (id, lock_key, started_at, beat_at, dead_at, version, host,
    pid, readers)
VALUES
    (pg_temp.id(1, 1), 71, now() - interval '3 days', now() + interval '1 day', NULL,
     '0.1.0', 'vps-2', 5120, 3),
    (pg_temp.id(1, 2), 72, now() - interval '5 days', now() - interval '3 hours',
     now() - interval '3 hours', '0.1.0', 'vps-3', 804, 0);

-- The other one beats whenever this server does, or it would be declared dead.
CREATE FUNCTION public.beat_as_well() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE viva.processes SET beats = beats + 1 WHERE lock_key = 71;
    RETURN NULL;
END $$;
CREATE TRIGGER beat_as_well AFTER UPDATE ON viva.processes FOR EACH STATEMENT
    WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION public.beat_as_well();

INSERT INTO viva.sessions (id, channel, person, message_count)
SELECT pg_temp.id(2, n), CASE n % 2 WHEN 0 THEN 'whatsapp' ELSE 'web' END, 'p' || n, 2
FROM generate_series(1, 4) AS n;
INSERT INTO viva.messages (session_id, seq, id, role, content, status, created_at)
SELECT pg_temp.id(2, n), 2, pg_temp.id(3, n), 'assistant', '', 'streaming',
    now() - n * n * interval '4 seconds'
FROM generate_series(1, 4) AS n;
INSERT INTO viva.live_replies (message_id, session_id, channel, person, owner, left_at)
SELECT pg_temp.id(3, n), pg_temp.id(2, n),
    CASE n % 2 WHEN 0 THEN 'whatsapp' ELSE 'web' END, 'p' || n, pg_temp.id(1, 1),
    CASE n WHEN 3 THEN now() - interval '9 seconds' END
FROM generate_series(1, 4) AS n;
INSERT INTO viva.journal (message_id, start, text)
SELECT pg_temp.id(3, n), 0, repeat('x', 217 * n) FROM generate_series(1, 4) AS n;

-- Webhooks of half an hour, busier in its middle.
INSERT INTO viva.inbox (id, dedupe_key, instance, event, is_known, kind, answer,
    trusted, tail, headers, form, body, received_at)
SELECT gen_random_uuid(), sha256(CAST(e.event || m || '-' || n AS bytea)), 'loja',
    e.event, true, 'other', false, true, '', '{{}}', '{{}}', '{{}}',
    now() - m * interval '1 minute' - interval '1 second'
FROM (VALUES ('messages.update', 9), ('messages.upsert', 4), ('send.message', 3),
    ('presence.update', 2), ('contacts.update', 1)) AS e (event, most)
CROSS JOIN generate_series(0, 29) AS m
CROSS JOIN LATERAL generate_series(
    1, CAST(e.most * (1 + sin(m / 4.0) * 0.9) AS integer)) AS n;

-- Messages of eight people, each as far as its place says.
INSERT INTO viva.inbox (id, dedupe_key, instance, event, is_known, kind, answer,
    trusted, chat, message_id, tail, headers, form, body, received_at, deliveries,
    redelivered_at)
SELECT pg_temp.id(4, n), sha256(CAST('message ' || n AS bytea)), 'loja',
    'messages.upsert', true, 'message', true, true,
    (CASE n WHEN 8 THEN '{PHONE}' ELSE '55119' || 61230000 + n * 7919 END)
        || '@s.whatsapp.net',
    CASE n WHEN 8 THEN '{TRACED}' ELSE '3EB0' || lpad(n * 48611 || 'F', 16, '0') END,
    '', '{{}}', '{{}}', '{{}}', now() - (9 - n) * interval '47 seconds',
    CASE n WHEN 8 THEN 2 ELSE 1 END,
    CASE n WHEN 8 THEN ARRAY[now() - interval '45 seconds']
        ELSE CAST('{{}}' AS timestamptz[]) END
FROM generate_series(1, 8) AS n;
INSERT INTO viva.whatsapp_turns (id, instance, jid, user_message_id, reply_id, runs,
    cut_reply_ids, state, error, created_at, ended_at)
SELECT i.id, 'loja', i.chat, i.id, pg_temp.id(6, n), CASE n WHEN 8 THEN 2 ELSE 1 END,
    CASE n WHEN 8 THEN ARRAY[pg_temp.id(6, 0)] ELSE CAST('{{}}' AS uuid[]) END,
    CASE WHEN n = 7 THEN 'running' WHEN n = 2 THEN 'dead' ELSE 'answered' END,
    CASE n WHEN 2 THEN 'upstream_timeout' END,
    i.received_at + interval '2.1 seconds',
    CASE n WHEN 7 THEN NULL ELSE i.received_at + interval '9.4 seconds' END
FROM generate_series(1, 8) AS n JOIN viva.inbox AS i ON i.id = pg_temp.id(4, n)
WHERE n NOT IN (1, 6);
INSERT INTO viva.whatsapp_messages (instance, message_id, jid, inbox_id, kind, text,
    sent_at, why_not, turn_id)
SELECT 'loja', i.message_id, i.chat, i.id, 'text', 'confidencial',
    i.received_at - interval '1.2 seconds', CASE n WHEN 1 THEN 'handover' END,
    CASE WHEN n NOT IN (1, 6) THEN i.id END
FROM generate_series(1, 8) AS n JOIN viva.inbox AS i ON i.id = pg_temp.id(4, n);
INSERT INTO viva.whatsapp_chats (instance, jid, due_at, owner)
SELECT 'loja', chat, CASE n WHEN 6 THEN now() - interval '4 seconds' END,
    CASE n WHEN 7 THEN pg_temp.id(1, 1) END
FROM generate_series(6, 7) AS n JOIN viva.inbox AS i ON i.id = pg_temp.id(4, n);
INSERT INTO viva.sessions (id, channel, person, message_count)
VALUES (pg_temp.id(2, 9), 'whatsapp', 'loja/{PHONE}', 3);
INSERT INTO viva.messages (session_id, seq, id, role, content, status, finish_reason,
    created_at)
SELECT pg_temp.id(2, 9), 2, pg_temp.id(6, 0), 'assistant', 'Olá', 'partial', 'crashed',
    ended_at - interval '7 seconds'
FROM viva.whatsapp_turns WHERE id = pg_temp.id(4, 8)
UNION ALL
SELECT pg_temp.id(2, 9), 3, pg_temp.id(6, 8), 'assistant', repeat('x', 412), 'complete',
    'stop', ended_at - interval '2.2 seconds'
FROM viva.whatsapp_turns WHERE id = pg_temp.id(4, 8);
INSERT INTO viva.outbox (id, turn_id, instance, jid, text, state, error, message_id,
    receipt, receipt_rank, created_at, sent_at, attempts)
SELECT pg_temp.id(7, n), t.id, 'loja', t.jid, 'confidencial',
    CASE n WHEN 3 THEN 'unknown' WHEN 4 THEN 'dead' ELSE 'sent' END,
    CASE n WHEN 3 THEN 'server_error' WHEN 4 THEN 'not_on_whatsapp' END,
    CASE WHEN n NOT IN (3, 4) THEN 'BAE5' || n || 'C0D4F6A1B2' END,
    CASE n WHEN 8 THEN 'READ' WHEN 5 THEN 'DELIVERY_ACK' END,
    CASE n WHEN 8 THEN 4 ELSE 0 END, t.ended_at,
    CASE WHEN n NOT IN (3, 4) THEN t.ended_at + interval '1.9 seconds' END,
    CASE n WHEN 8 THEN jsonb_build_array(
        jsonb_build_object('at', t.ended_at + interval '0.1 seconds', 'outcome',
            'retry', 'reason', 'bad_gateway'),
        jsonb_build_object('at', t.ended_at + interval '1.9 seconds', 'outcome',
            'sent', 'reason', NULL)) ELSE '[]' END
FROM generate_series(1, 8) AS n JOIN viva.whatsapp_turns AS t
    ON t.id = pg_temp.id(4, n) AND t.state = 'answered';
INSERT INTO viva.inbox (id, dedupe_key, instance, event, is_known, kind, answer,
    trusted, chat, message_id, tail, headers, form, body, received_at)
SELECT gen_random_uuid(), sha256(CAST(r.receipt AS bytea)), 'loja', 'messages.update',
    true, 'status', false, true, o.jid, o.message_id, '', '{{}}',
    jsonb_build_object('status_value', r.receipt), '{{}}', o.sent_at + r.after
FROM (VALUES ('DELIVERY_ACK', interval '0.8 seconds'), ('READ', interval '6.3 seconds'))
    AS r (receipt, after)
JOIN viva.outbox AS o ON o.id = pg_temp.id(7, 8);
INSERT INTO viva.inbox (id, dedupe_key, instance, event, is_known, kind, answer,
    trusted, chat, tail, headers, form, body, received_at, problem)
VALUES (pg_temp.id(8, 1), sha256('odd'), 'filial', 'messages.update', true, 'status',
    false, true, '5521977770000@s.whatsapp.net', '', '{{}}', '{{}}', '{{}}',
    now() - interval '26 hours', 'KeyError: ''keyId''');
"""
