"""How the operator's page looks, and that everybody can use it: axe-core, screenshots.

With PAGE_SCREENSHOTS set to a folder, the screenshots stay there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser import server
from tests.fakes.model import FakeModel
from tests.looks import LOOKS, check
from tests.operator_page import PHONE, TRACED, fill, operator_page
from tests.programs import Program

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_everybody_can_use_every_state_of_the_operators_page(
    browser: Browser,
    database_url: str,
    model: FakeModel,
    look: str,
    screenshots: Path,
) -> None:
    def picture(state: str) -> Path:
        return screenshots / f"operator-{look}-{state}.png"

    fill(database_url)
    async with (
        server(database_url, model) as site,
        operator_page(browser, site.origin, **LOOKS[look]) as operator,
    ):
        page = operator.page
        await operator.open()
        await expect(operator.messages).to_have_count(8)
        await check(page, picture("overview"))
        await operator.find(TRACED)
        await expect(operator.steps.first).to_be_visible()
        await check(page, picture("trace"))
        await operator.find(PHONE)
        await expect(operator.messages).to_have_count(1)
        await check(page, picture("phone"))
        await operator.find("3EB0FFFF")
        await expect(operator.wrong).to_be_visible()
        await operator.dead.first.scroll_into_view_if_needed()
        await check(page, picture("dead"))
        await page.locator("#webhooks").scroll_into_view_if_needed()
        await check(page, picture("webhooks"))
        row = operator.dead.filter(has_text="talvez enviado")
        await row.get_by_role("button", name="Refazer").click()
        await expect(page.get_by_role("dialog")).to_be_visible()
        await check(page, picture("question"))
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Pausar").click()
        await check(page, picture("paused"))
        await page.get_by_role("button", name="Retomar").click()
        await page.context.set_offline(True)
        await expect(operator.lost).to_be_visible()
        await check(page, picture("lost"))


async def test_the_way_in_and_an_empty_page_are_for_everybody(
    browser: Browser, site: Program, look: str, screenshots: Path
) -> None:
    async with operator_page(browser, site.origin, **LOOKS[look]) as operator:
        await operator.page.goto(f"{operator.origin}/operator/")
        await expect(operator.page.get_by_text("Abra pelo seu link")).to_be_visible()
        await check(operator.page, screenshots / f"operator-{look}-access.png")
    async with operator_page(browser, site.origin, **LOOKS[look]) as operator:
        await operator.open(scope=None)
        await expect(operator.page.locator("#access")).to_be_visible()
        await check(operator.page, screenshots / f"operator-{look}-forbidden.png")
    async with operator_page(browser, site.origin, **LOOKS[look]) as operator:
        await operator.open()
        await expect(operator.page.get_by_text("Nada aqui")).to_be_visible()
        await check(operator.page, screenshots / f"operator-{look}-empty.png")


async def test_who_wants_no_motion_gets_none(browser: Browser, site: Program) -> None:
    async with operator_page(browser, site.origin, reduced_motion="reduce") as operator:
        await operator.open()
        assert await operator.value("document.getAnimations().length") == 0
