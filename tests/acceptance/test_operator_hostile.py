"""What comes from outside can do nothing to the operator's page."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from tests.browser import server
from tests.chat_host import client
from tests.fakes.model import FakeModel
from tests.operator_page import OperatorPage, operator_page
from tests.postgres import run_sql
from tests.programs import Program

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror=window.hacked=1>"
    "<a href='javascript:window.hacked=1'>x</a>\N{RIGHT-TO-LEFT OVERRIDE}abc"
    "</td></table><style>body{display:none}</style>"
)
HUGE = "x" * 100_000
PHONE = {"width": 390, "height": 780}


async def deliver(site: Program, event: str, message_id: str, instance: str) -> None:
    body = {
        "event": event,
        "instance": instance,
        "data": {
            "key": {
                "id": message_id,
                "remoteJid": f"5511988887777{HOSTILE}@s.whatsapp.net",
                "fromMe": False,
            },
            "pushName": HOSTILE,
            "message": {"conversation": HOSTILE},
        },
    }
    hook = f"{site.origin}/api/v1/webhook/evolution"
    async with client() as session, session.post(hook, json=body) as response:
        assert response.status == 200, await response.text()


TAGS = "[...document.querySelectorAll('main *')].map((e) => e.localName)"
LINKS = "[...document.querySelectorAll('main a')].map((a) => a.getAttribute('href'))"
BIDI = "getComputedStyle(document.querySelector('td bdi')).unicodeBidi"


async def test_hostile_names_are_shown_as_text_and_nothing_else(
    browser: Browser, database_url: str, model: FakeModel
) -> None:
    async with server(database_url, model, VIVA_WEBHOOK_OPEN="1") as site:
        for event, message_id, instance in (
            ("messages.upsert", HOSTILE, HOSTILE),
            ("messages.upsert", HUGE, HUGE),
            (HOSTILE, "M1", "loja"),
            (HUGE, "M2", "loja"),
        ):
            await deliver(site, event, message_id, instance)
        run_sql(database_url, f"UPDATE viva.inbox SET problem = $${HOSTILE}$$")
        async with operator_page(browser, site.origin, viewport=PHONE) as operator:
            await operator.open()
            await check(operator)
            await operator.find(HOSTILE)
            await expect(operator.page.locator("#trace-id")).to_have_text(HOSTILE)
            await expect(operator.steps.first).to_contain_text("<script>")
            await check(operator)


async def check(operator: OperatorPage) -> None:
    """Look whether anything that came from outside is more than text."""
    page = operator.page
    await expect(page.locator("#webhooks-table")).to_contain_text("<script>")
    await expect(operator.dead).to_have_count(4)
    await expect(operator.dead.first).to_contain_text("<script>")
    assert await operator.value("window.hacked") is None
    assert set(await operator.value(TAGS)).isdisjoint({"script", "style"})
    assert {link[:1] for link in await operator.value(LINKS)} == {"#"}
    assert await operator.value(BIDI) == "isolate"
    assert await operator.value("document.documentElement.scrollWidth") <= 390
