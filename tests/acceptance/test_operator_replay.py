"""Two servers and a WhatsApp: the operator's page of the one replays for the other."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from tests.acceptance.whatsapp_site import whatsapp_site
from tests.browser import server
from tests.fakes.model import FakeModel
from tests.operator_page import OperatorPage, operator_page
from tests.operators import add_dead
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_dead_answer_is_shown_by_either_process_and_sent_after_a_replay(
    browser: Browser, database_url: str
) -> None:
    async with (
        FakeModel() as model,
        whatsapp_site(database_url, model, servers=2) as site,
    ):
        site.evolution.script("absent", "absent")
        ids = [
            site.evolution.receive("oi", jid=f"551198888777{n}@s.whatsapp.net")
            for n in range(2)
        ]
        dead = "SELECT state FROM viva.outbox"
        await until(lambda: site.rows(dead) == [("dead",)] * 2)
        for sent, running in enumerate(site.servers, start=1):
            async with operator_page(browser, running.origin) as operator:
                await operator.open()
                await expect(operator.tile("processes")).to_have_text("2")
                await expect(operator.messages).to_have_count(2)
                await replay_first(operator, ids)
                await site.answered(sent)
                await expect(operator.dead).to_have_count(2 - sent)
        await site.evolution.settled()
        assert len({each.jid for each in site.evolution.sent}) == 2


async def replay_first(operator: OperatorPage, ids: list[str]) -> None:
    """See why the first of the dead is one, and do it again."""
    row = operator.dead.first
    await expect(row).to_contain_text("não está no WhatsApp")
    await row.get_by_role("button", name="Ver o caminho").click()
    await expect(operator.steps.last).to_contain_text("desistiu")
    assert await operator.page.locator("#trace-id").inner_text() in ids
    await row.get_by_role("button", name="Refazer").click()
    await expect(operator.told).to_have_text("1 item será refeito.")


async def test_all_that_is_surely_dead_is_done_again_at_once(
    browser: Browser, database_url: str
) -> None:
    async with FakeModel() as model, whatsapp_site(database_url, model) as site:
        site.evolution.script("absent", "absent", "absent")
        for n in range(3):
            site.evolution.receive("oi", jid=f"551198888777{n}@s.whatsapp.net")
        dead = "SELECT state FROM viva.outbox"
        await until(lambda: site.rows(dead) == [("dead",)] * 3)
        async with operator_page(browser, site.servers[0].origin) as operator:
            await operator.open()
            await operator.page.get_by_role("button", name="Refazer 3").click()
            dialog = operator.page.get_by_role("dialog")
            await expect(dialog).to_contain_text("Refazer 3 itens?")
            await dialog.get_by_role("button", name="Refazer").click()
            await expect(operator.told).to_have_text("3 itens serão refeitos.")
            await site.answered(3)
            await expect(operator.dead).to_have_count(0)
            await expect(operator.page.get_by_text("Nada aqui")).to_be_visible()


async def test_more_of_the_dead_are_shown_on_demand_and_stay(
    browser: Browser, database_url: str, model: FakeModel
) -> None:
    add_dead(database_url, 30)
    async with (
        server(database_url, model) as running,
        operator_page(browser, running.origin) as operator,
    ):
        await operator.open()
        await expect(operator.dead).to_have_count(25)
        more = operator.page.get_by_role("button", name="Mostrar mais")
        await more.click()
        await expect(more).to_be_hidden()
        for _ in range(2):
            async with operator.page.expect_response("**/operator/overview"):
                pass
        await expect(operator.dead).to_have_count(30)
