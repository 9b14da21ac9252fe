"""When the operator's page looks again, and what it shows when answers come late."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from playwright.async_api import Route, expect

from tests.operator_page import PHONE, TRACED, OperatorPage
from tests.postgres import run_sql

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOOK_MS = 3000  # EVERY_MS of web/operator/refresh.js
OVERVIEW = "**/viva/operator/overview"
TRACE = "**/whatsapp/trace/*"


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def clock(operator: OperatorPage) -> None:
    """The page's clock goes on by itself, and at once where a test says so."""
    await operator.page.clock.install()


async def test_it_looks_again_by_itself_but_not_while_it_is_paused(
    operator: OperatorPage, day_url: str
) -> None:
    await operator.open()
    process = operator.page.locator("#processes-table tr", has_text="vps-new")
    run_sql(
        day_url,
        "INSERT INTO viva.processes (id, lock_key, beat_at, host) VALUES"
        " (gen_random_uuid(), 9, now() + interval '1 day', 'vps-new')",
    )
    try:
        await operator.pass_time(LOOK_MS)
        await expect(process).to_be_visible()
        await operator.page.get_by_role("button", name="Pausar").click()
        await expect(operator.page.locator("#freshness")).to_contain_text("Pausado")
        looks = len(operator.requests)
        await operator.pass_time(4000)
        assert len(operator.requests) == looks
    finally:
        run_sql(day_url, "DELETE FROM viva.processes WHERE host = 'vps-new'")
    await operator.page.get_by_role("button", name="Retomar").click()
    await expect(process).to_be_hidden()


@pytest.mark.parametrize("moment", ["between two looks", "within one"])
async def test_nobody_is_asked_while_the_page_is_hidden(
    operator: OperatorPage, moment: str
) -> None:
    async def answer_late(route: Route) -> None:
        await asyncio.sleep(0.5)
        await route.continue_()

    await operator.open()
    if moment == "within one":
        await operator.page.route(OVERVIEW, answer_late)
        async with operator.page.expect_request(OVERVIEW):
            await operator.pass_time(LOOK_MS)
    hide = (
        "Object.defineProperty(document, 'hidden', {{ get: () => {}, "
        "configurable: true }}); document.dispatchEvent(new Event('visibilitychange'))"
    )
    await operator.value(hide.format("true"))
    await operator.pass_time(1000)
    looks = len(operator.requests)
    await operator.pass_time(4000)
    assert len(operator.requests) == looks
    async with operator.page.expect_request(OVERVIEW):
        await operator.value(hide.format("false"))


async def test_what_is_old_is_said_to_be_old_until_the_server_is_back(
    operator: OperatorPage,
) -> None:
    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, headers={"Retry-After": "1"}, body="{}")

    await operator.open()
    await operator.page.route(OVERVIEW, lambda route: route.abort())
    await operator.pass_time(LOOK_MS)
    await expect(operator.lost).to_contain_text("O servidor não responde")
    await expect(operator.page.locator("#freshness")).to_contain_text("Parado há")
    await expect(operator.messages).to_have_count(8)  # it stays
    await operator.page.unroute(OVERVIEW)
    await operator.page.route(OVERVIEW, refuse)
    await operator.pass_time(LOOK_MS)
    await expect(operator.lost).to_contain_text("O banco de dados não responde")
    await operator.page.unroute(OVERVIEW)
    await operator.page.get_by_role("button", name="Tentar agora").click()
    await expect(operator.lost).to_be_hidden()
    await expect(operator.page.locator("#announcer")).to_have_text(
        "Conexão restabelecida."
    )


class Held:
    """Answers that the test lets through, one after the other, as they were asked."""

    def __init__(self) -> None:
        self._routes: asyncio.Queue[Route] = asyncio.Queue()

    async def take(self, route: Route) -> None:
        self._routes.put_nowait(route)

    async def asked(self) -> Route:
        """Wait until the page has asked."""
        async with asyncio.timeout(30):
            return await self._routes.get()


@pytest.mark.parametrize("answer", ["comes", "is refused"])
async def test_a_pause_within_a_look_is_a_pause_from_then_on(
    operator: OperatorPage, answer: str
) -> None:
    held = Held()
    await operator.open()
    await operator.page.route(OVERVIEW, held.take)
    await operator.pass_time(LOOK_MS)
    route = await held.asked()
    await operator.page.get_by_role("button", name="Pausar").click()
    if answer == "comes":
        async with operator.page.expect_response("**/viva/operator/dead"):
            await route.continue_()
    else:
        await route.fulfill(status=503, body="{}")
    looks = len(operator.requests)
    await operator.pass_time(4000)
    assert len(operator.requests) == looks
    await expect(operator.page.locator("#freshness")).to_contain_text("Pausado")
    await expect(operator.lost).to_be_hidden()


async def test_a_paused_page_looks_no_more_when_it_is_seen_again(
    operator: OperatorPage,
) -> None:
    await operator.open()
    await operator.page.get_by_role("button", name="Pausar").click()
    await operator.pass_time(500)
    looks = len(operator.requests)
    await operator.value("document.dispatchEvent(new Event('visibilitychange'))")
    await operator.pass_time(500)
    assert len(operator.requests) == looks


async def test_however_often_it_is_asked_to_look_it_looks_once_at_a_time(
    operator: OperatorPage,
) -> None:
    held = Held()
    await operator.open()
    await operator.page.route(OVERVIEW, held.take)
    await operator.pass_time(LOOK_MS)
    route = await held.asked()
    looks = len(operator.requests)
    for _ in range(3):
        await operator.value("document.dispatchEvent(new Event('visibilitychange'))")
    await operator.pass_time(4000)
    assert len(operator.requests) == looks
    async with operator.page.expect_response(OVERVIEW):
        await route.continue_()
    await operator.pass_time(LOOK_MS)
    await held.asked()


async def test_it_asks_again_when_it_was_told_to_and_not_before(
    operator: OperatorPage,
) -> None:
    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, headers={"Retry-After": "60"}, body="{}")

    await operator.open()
    await operator.page.route(OVERVIEW, refuse)
    await operator.pass_time(LOOK_MS)
    await expect(operator.lost).to_contain_text("60 s")
    looks = len(operator.requests)
    await operator.pass_time(3000)
    assert len(operator.requests) == looks
    async with operator.page.expect_request(OVERVIEW):
        await operator.value("dispatchEvent(new Event('online'))")


async def test_a_trace_that_did_not_change_is_not_drawn_again(
    operator: OperatorPage, day_url: str
) -> None:
    drawn = "document.querySelector('#timeline li').wasDrawn"
    await operator.open()
    await operator.find(TRACED)
    await expect(operator.steps.first).to_be_visible()
    await operator.value(f"{drawn} = true")
    for _ in range(2):
        async with operator.page.expect_response(TRACE):
            await operator.pass_time(LOOK_MS)
    assert await operator.value(drawn)
    edited = "UPDATE viva.whatsapp_messages SET edited_at = {} WHERE message_id = '{}'"
    run_sql(day_url, edited.format("now()", TRACED))
    try:
        await operator.pass_time(LOOK_MS)
        await expect(operator.steps.filter(has_text="Editada")).to_be_visible()
    finally:
        run_sql(day_url, edited.format("NULL", TRACED))


@pytest.mark.parametrize("status", [404, 503])
async def test_a_trace_that_was_erased_stays_and_is_no_fault_of_the_server(
    operator: OperatorPage, status: int
) -> None:
    async def refuse(route: Route) -> None:
        await route.fulfill(status=status, body="{}")

    await operator.open()
    await operator.find(TRACED)
    await expect(operator.steps.first).to_be_visible()
    await operator.page.route(TRACE, refuse)
    async with operator.page.expect_response(TRACE):
        await operator.pass_time(LOOK_MS)
    if status == 503:
        await expect(operator.lost).to_be_visible()
    else:
        async with operator.page.expect_response(TRACE):
            await operator.pass_time(LOOK_MS)
        await expect(operator.lost).to_be_hidden()
    await expect(operator.steps.first).to_be_visible()


async def test_an_older_answer_does_not_take_the_place_of_a_newer_one(
    operator: OperatorPage,
) -> None:
    held = Held()
    await operator.open()
    await expect(operator.messages).to_have_count(8)
    await operator.page.route("**/operator/messages/search", held.take)
    for phone in ("+351 912 345 678", PHONE):
        await operator.find(phone)
    older, newer = await held.asked(), await held.asked()
    caption = operator.page.locator("#list-caption")
    await newer.continue_()
    await expect(caption).to_have_text(f"Mensagens de {PHONE}")
    async with operator.page.expect_response("**/operator/messages/search"):
        await older.continue_()
    await operator.pass_time(300)
    await expect(caption).to_have_text(f"Mensagens de {PHONE}")
    await expect(operator.messages).to_have_count(1)


async def test_a_trace_that_comes_after_another_or_after_the_way_back_is_not_shown(
    operator: OperatorPage,
) -> None:
    held = Held()
    await operator.open()
    await expect(operator.messages).to_have_count(8)
    buttons = operator.messages.get_by_role("button")
    ids = [await buttons.nth(n).get_attribute("data-id") for n in range(3)]
    await operator.page.route(TRACE, held.take)
    for message_id in ids[:2]:
        await operator.find(str(message_id))
    older, newer = await held.asked(), await held.asked()
    shown = operator.page.locator("#trace-id")
    await newer.continue_()
    await expect(shown).to_have_text(str(ids[1]))
    await older.continue_()
    await operator.pass_time(300)
    await expect(shown).to_have_text(str(ids[1]))
    await operator.page.unroute(TRACE)
    late = f"**/whatsapp/trace/{ids[2]}"
    await operator.page.route(late, held.take)
    await operator.find(str(ids[2]))
    route = await held.asked()
    await operator.page.get_by_role("button", name="Voltar").click()
    async with operator.page.expect_response(late):
        await route.continue_()
    await operator.pass_time(300)
    await expect(operator.page.locator("#list")).to_be_visible()
    await expect(operator.page.locator("#trace")).to_be_hidden()


async def test_a_look_at_a_trace_that_was_left_does_not_draw_into_another(
    operator: OperatorPage,
) -> None:
    held = Held()
    await operator.open()
    buttons = operator.messages.get_by_role("button")
    other = str(await buttons.nth(3).get_attribute("data-id"))
    await operator.find(TRACED)
    await expect(operator.steps).to_have_count(12)
    await operator.page.route(f"**/whatsapp/trace/{TRACED}", held.take)
    route = await held.asked()
    await operator.find(other)
    await expect(operator.page.locator("#trace-id")).to_have_text(other)
    steps = await operator.steps.count()
    assert steps != 12
    async with operator.page.expect_response(OVERVIEW):
        await route.continue_()
    await expect(operator.steps).to_have_count(steps)
