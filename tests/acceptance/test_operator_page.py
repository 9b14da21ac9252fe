"""The operator's page as an operator uses it, in a real Chromium."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, expect

from tests.chat_host import SECRET, token
from tests.operator_page import PHONE, TRACED, OperatorPage, operator_page
from tests.postgres import run_sql
from tests.programs import Program
from viva_server.auth import JwtAuth

pytestmark = pytest.mark.asyncio(loop_scope="session")

OVERVIEW = "**/viva/operator/overview"


async def test_the_link_opens_the_page_and_leaves_the_address(
    operator: OperatorPage,
) -> None:
    await operator.open()
    address = await operator.value("location.href")
    await operator.page.reload()
    await operator.looked()

    assert address == f"{operator.origin}/operator/"
    assert await operator.page.title() == "Operador · VIVA"
    assert await operator.value("sessionStorage.length") == 1


async def test_nothing_comes_from_another_host_and_no_phone_is_in_an_address(
    operator: OperatorPage,
) -> None:
    await operator.open()
    await operator.find(PHONE)
    await expect(operator.messages).to_have_count(1)
    await operator.find(TRACED)
    await expect(operator.steps.first).to_be_visible()

    foreign = {u for u in operator.requests if not u.startswith(operator.origin)}
    assert foreign == set()
    assert not [url for url in operator.requests if re.search(r"\d{8}", url)]


async def test_the_figures_are_those_of_the_database(operator: OperatorPage) -> None:
    await operator.open()
    for target, number in (("waiting", "1"), ("dead", "4"), ("replies", "4")):
        await expect(operator.tile(target)).to_have_text(number)
    # This server's own, and the other that is alive.
    await expect(operator.tile("processes")).to_have_text("2")
    processes = operator.page.locator("#processes-table tbody tr")
    await expect(processes).to_have_count(3)
    await expect(processes.filter(has_text="vps-3")).to_contain_text("caído")
    await expect(processes.filter(has_text="responde a esta")).to_have_count(1)
    replies = operator.page.locator("#replies-table tbody tr")
    await expect(replies.filter(has_text="ninguém há")).to_have_count(1)
    events = operator.page.locator("#webhooks-table tbody tr")
    await expect(events.first).to_contain_text("messages.update")
    await expect(operator.page.locator("#main")).not_to_contain_text("confidencial")


async def test_the_way_of_a_message_is_found_by_its_id(operator: OperatorPage) -> None:
    await operator.open()
    await operator.find(f"  {TRACED} ")
    await expect(operator.page.locator("#trace-id")).to_have_text(TRACED)
    titles = await operator.steps.locator(".title").all_inner_texts()

    assert titles == [
        "Escrita no WhatsApp",
        "Chegou e foi guardada",
        "Chegou de novo",
        "Turno começou",
        "Resposta começou",
        "Resposta começou",
        "Parte na fila de envio",
        "Turno terminou",
        "Pedido à Evolution",
        "Pedido à Evolution",
        "Recibo",
        "Recibo",
    ]
    await expect(operator.steps.nth(4)).to_contain_text("foi cortada · o processo caiu")
    await expect(operator.steps.nth(5)).to_contain_text("ficou inteira · 412")
    await expect(operator.steps.nth(8)).to_contain_text("proxy sem resposta")
    await expect(operator.steps.last).to_contain_text("lida")
    await expect(operator.page.locator("#trace-title")).to_be_focused()


async def test_a_phone_finds_its_messages_and_a_click_their_way(
    operator: OperatorPage,
) -> None:
    await operator.open()
    await expect(operator.messages).to_have_count(8)
    for phone in (PHONE, "11 98888 7777", f"{PHONE}@s.whatsapp.net"):
        await operator.find(phone)
        await expect(operator.page.get_by_text(f"Mensagens de {phone}")).to_have_count(
            2  # beside the list, and told
        )
        await expect(operator.messages).to_have_count(1)
    await operator.messages.first.get_by_role("button").click()
    await expect(operator.page.locator("#trace-id")).to_have_text(TRACED)
    await operator.page.get_by_role("button", name="Voltar").click()
    await expect(operator.messages.first.get_by_role("button")).to_be_focused()
    await operator.page.get_by_role("button", name="Ver as recentes").click()
    await expect(operator.messages).to_have_count(8)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("3EB0FFFF", "Nada se sabe"),
        ("..", "Nada se sabe"),
        ("a/b?c#d", "Nada se sabe"),
        ("\ud83d", "Nada se sabe"),
        ("x@y", "Isto não é um telefone"),
    ],
)
async def test_what_is_not_found_is_said(
    operator: OperatorPage, wanted: str, said: str
) -> None:
    await operator.open()
    if wanted == "\ud83d":
        await operator.value("document.getElementById('wanted').value = '\\ud83d'")
        await operator.search.press("Enter")
    else:
        await operator.find(wanted)
    await expect(operator.wrong).to_contain_text(said)


async def test_a_phone_without_messages_is_told_so(operator: OperatorPage) -> None:
    await operator.open()
    await operator.find("+351 912 345 678")
    await expect(
        operator.page.locator("#messages .empty", has_text="Nenhuma mensagem deste")
    ).to_be_visible()


async def test_without_a_link_the_page_says_how_to_get_in_and_takes_a_token(
    operator: OperatorPage,
) -> None:
    await operator.page.goto(f"{operator.origin}/operator/")
    await expect(operator.page.get_by_text("Abra pelo seu link")).to_be_visible()
    await expect(operator.page.locator("#main")).to_be_hidden()
    field = operator.page.get_by_label("Token")
    await field.fill(f"http://x/operator/#token={token('ops', scope='admin')}")
    await field.press("Enter")
    await operator.looked()


async def test_a_chats_token_is_told_from_one_that_expired(
    operator: OperatorPage,
) -> None:
    await operator.page.clock.install()
    await operator.open(scope=None)
    await expect(
        operator.page.get_by_text("Este token não é de operador")
    ).to_be_visible()
    old = JwtAuth([SECRET]).issue("ops", scope="admin", now=1)
    await operator.page.goto(f"{operator.origin}/operator/#token={old}")
    await expect(operator.page.get_by_text("O acesso expirou")).to_be_visible()
    await expect(operator.page.locator("#access-title")).to_be_focused()
    looks = len(operator.requests)
    await operator.pass_time(4000)
    assert len(operator.requests) == looks  # it does not ask again and again


async def test_what_may_have_arrived_is_sent_again_only_after_a_question(
    operator: OperatorPage, day_url: str
) -> None:
    unknown = "SELECT count(*) FROM viva.outbox WHERE state = 'unknown'"
    await operator.open()
    # All at once is for the three others.
    await expect(operator.page.locator("#replay-all")).to_have_text("Refazer 3")
    row = operator.dead.filter(has_text="talvez enviado")
    await row.get_by_role("button", name="Refazer").click()
    dialog = operator.page.get_by_role("dialog")
    await expect(dialog).to_contain_text("duas vezes")
    await dialog.get_by_role("button", name="Cancelar").click()
    await expect(row).to_be_visible()
    assert run_sql(day_url, unknown) == [(1,)]


async def test_the_keyboard_is_enough(operator: OperatorPage) -> None:
    await operator.open()
    keyboard = operator.page.keyboard
    await operator.page.locator("#pause").focus()
    for _ in range(6):  # the five figures, then the search
        await keyboard.press("Tab")
    await expect(operator.search).to_be_focused()
    await keyboard.type(TRACED)
    await keyboard.press("Enter")
    await expect(operator.page.locator("#trace-title")).to_be_focused()
    await keyboard.press("Tab")
    await keyboard.press("Enter")
    await expect(operator.search).to_be_focused()
    await keyboard.press("Tab")  # the button of the search
    await keyboard.press("Tab")  # the first message
    focused = operator.messages.first.get_by_role("button")
    await expect(focused).to_be_focused()
    # The focus stays where it is while the page looks again.
    async with operator.page.expect_response(OVERVIEW):
        pass
    async with operator.page.expect_response(OVERVIEW):
        pass
    await expect(focused).to_be_focused()


async def test_the_page_speaks_english_to_who_reads_english(
    browser: Browser, day_site: Program
) -> None:
    async with operator_page(browser, day_site.origin, locale="en-GB") as operator:
        await operator.open()
        await expect(operator.page.get_by_text("WhatsApp messages")).to_be_visible()
        await expect(operator.dead.first).to_contain_text("not on WhatsApp")
        assert await operator.page.title() == "Operator · VIVA"


async def test_on_a_phone_nothing_is_wider_than_it(
    browser: Browser, day_site: Program
) -> None:
    size = {"width": 360, "height": 640}
    async with operator_page(browser, day_site.origin, viewport=size) as operator:
        await operator.open()
        await operator.find(TRACED)
        await expect(operator.steps.first).to_be_visible()
        assert await operator.value("document.documentElement.scrollWidth") <= 360


async def test_an_empty_database_says_what_will_be_there(
    browser: Browser, site: Program
) -> None:
    async with operator_page(browser, site.origin) as operator:
        await operator.open()
        for words in ("Nenhuma mensagem ainda", "Nada aqui", "Nenhuma resposta agora"):
            await expect(operator.page.get_by_text(words)).to_be_visible()
