"""The web chat as a person uses it, in a real Chromium."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.browser import ChatPage, add_sessions, chat_page, words
from tests.chat_host import eventually
from tests.fakes.model import FakeModel
from tests.fakes.model_answer import ModelRequest
from tests.fakes.script import reply_to
from tests.programs import Program

pytestmark = pytest.mark.asyncio(loop_scope="session")


def asked(model: FakeModel, message: str) -> list[ModelRequest]:
    return [request for request in model.requests if request.message == message]


async def test_the_link_opens_the_chat_and_leaves_the_address(chat: ChatPage) -> None:
    await chat.open("link")
    title = await chat.page.title()
    address = await chat.value("location.href")
    await chat.page.reload()
    await chat.loaded()

    assert title == "Nova conversa · VIVA"
    assert address == f"{chat.origin}/"
    await expect(chat.page.get_by_text("Como posso ajudar?")).to_be_visible()


async def test_nothing_comes_from_another_host(chat: ChatPage) -> None:
    await chat.open("requests")
    await chat.ask("![pixel](https://tracker.example/p.png) model:mode=echo")
    await chat.ended()

    assert chat.requests
    assert {url for url in chat.requests if not url.startswith(chat.origin)} == set()


async def test_without_a_link_the_page_says_how_to_get_in(chat: ChatPage) -> None:
    await chat.page.goto(chat.origin)

    await expect(chat.page.get_by_text("Abra pelo seu link")).to_be_visible()
    await expect(chat.field).to_be_hidden()


async def test_a_reply_grows_on_the_page_until_it_is_whole(
    chat: ChatPage, model: FakeModel
) -> None:
    message = "Conte devagar model:tokens=60,interval_ms=20"
    await chat.open("stream")
    await chat.ask(message)
    await expect(chat.reply()).to_contain_text("3 ")
    growing = words(await chat.reply().inner_text())
    await chat.ended()
    whole = words(await chat.reply().inner_text())

    assert whole == words(reply_to(message))
    assert whole.startswith(growing)
    assert len(growing) < len(whole)
    assert await chat.questions.all_inner_texts() == [message]
    await expect(chat.sessions.first).to_contain_text("Conte devagar")
    await expect(chat.sessions.first).to_contain_text("2 mensagens")


async def test_stop_keeps_what_came_and_another_answer_takes_its_place(
    chat: ChatPage, model: FakeModel
) -> None:
    message = "Sem fim model:tokens=5000,interval_ms=20"
    await chat.open("stop")
    await chat.ask(message)
    await expect(chat.reply()).to_contain_text("5 ")
    await chat.stop.click()
    await chat.ended("partial")
    await expect(chat.page.get_by_text("Você interrompeu a resposta.")).to_be_visible()
    kept = words(await chat.reply().inner_text())
    first = await chat.replies.last.get_attribute("data-message-id")
    await chat.retry.click()
    await expect(chat.replies.last).not_to_have_attribute("data-message-id", first)
    await expect(chat.reply()).to_contain_text("5 ")
    await chat.stop.click()
    await chat.ended("partial")

    assert words(reply_to(message)).startswith(kept)
    assert len(asked(model, message)) == 2
    await expect(chat.replies).to_have_count(1)
    await expect(chat.questions).to_have_text([message])
    # Of an older one it is only said that it was cut.
    await chat.ask("e agora?")
    await chat.ended()
    await expect(chat.retry).to_have_count(0)


async def test_a_failed_reply_is_shown_and_asked_again_without_a_second_question(
    chat: ChatPage,
) -> None:
    await chat.open("failed")
    await chat.ask("falhe model:cut=error,cut_after=0")
    await chat.ended("failed")
    await expect(chat.replies.last.locator(".note")).to_contain_text("Tente de novo")
    first = await chat.replies.last.get_attribute("data-message-id")
    await chat.retry.click()
    await expect(chat.replies.last).not_to_have_attribute("data-message-id", first)
    await chat.ended("failed")
    await chat.page.reload()
    await chat.loaded()

    await expect(chat.replies).to_have_count(1)
    await expect(chat.questions).to_have_count(1)


async def test_sessions_are_listed_opened_made_and_deleted_after_a_question(
    chat: ChatPage, site: Program
) -> None:
    await add_sessions(site.origin, "list", ["primeira"], ["segunda", "mais"])
    await chat.open("list")
    names = chat.page.locator("#sessions .name")
    await expect(names).to_have_text(["segunda", "primeira"])
    await expect(chat.sessions.first).to_contain_text("4 mensagens")
    await expect(chat.questions).to_have_text(["segunda", "mais"])

    await names.last.click()
    await expect(chat.questions).to_have_text(["primeira"])
    await chat.page.locator("#new").click()
    await expect(names).to_have_text(["Nova conversa", "segunda", "primeira"])
    await expect(chat.questions).to_have_count(0)

    await names.nth(2).click()
    await chat.page.get_by_role("button", name="Apagar “primeira”").click()
    dialog = chat.page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Cancelar").click()
    await expect(names).to_have_count(3)
    await chat.page.get_by_role("button", name="Apagar “primeira”").click()
    await dialog.get_by_role("button", name="Apagar").click()

    await expect(names).to_have_text(["Nova conversa", "segunda"])
    await expect(chat.questions).to_have_count(0)


async def test_a_reply_goes_on_while_another_session_is_open(
    chat: ChatPage, site: Program
) -> None:
    message = "Longa model:tokens=100,interval_ms=20"
    await add_sessions(site.origin, "two", ["outra"])
    await chat.open("two")
    await chat.page.locator("#new").click()
    await expect(chat.questions).to_have_count(0)
    await chat.ask(message)
    await expect(chat.reply()).to_contain_text("3 ")
    await chat.sessions.filter(has_text="outra").locator(".open").click()
    await expect(chat.questions).to_have_text(["outra"])
    await chat.sessions.filter(has_text="Longa").locator(".open").click()
    await expect(chat.questions).to_have_text([message])
    await chat.ended()

    assert words(await chat.reply().inner_text()) == words(reply_to(message))


async def test_older_messages_come_on_scroll_and_the_view_stays(
    chat: ChatPage, site: Program
) -> None:
    messages = [f"mensagem {number}" for number in range(35)]
    await add_sessions(site.origin, "older", messages)
    await chat.open("older")
    await expect(chat.questions).to_have_count(30)
    first = chat.questions.filter(has_text="mensagem 5").first
    await first.scroll_into_view_if_needed()
    await expect(chat.questions).to_have_count(35)

    await expect(first).to_be_in_viewport()
    assert await chat.questions.all_inner_texts() == messages
    await expect(chat.page.locator("#older")).to_be_hidden()
    await chat.page.get_by_role("button", name="Ir para o fim").click()
    await expect(chat.questions.last).to_be_in_viewport()


async def test_the_page_speaks_english_to_who_reads_english(
    browser: Browser, site: Program
) -> None:
    for locale, greeting in (
        ("en-GB", "How can I help?"),
        ("pt-PT", "Como posso ajudar?"),
        ("de-DE", "Como posso ajudar?"),
    ):
        async with chat_page(browser, site.origin, locale=locale) as chat:
            await chat.open("locale")
            await expect(chat.page.get_by_text(greeting)).to_be_visible()


async def test_the_keyboard_is_enough(chat: ChatPage, model: FakeModel) -> None:
    await chat.open("keyboard")
    await expect(chat.field).to_be_focused()
    keyboard = chat.page.keyboard
    await keyboard.type("linha um")
    await keyboard.press("Shift+Enter")
    await keyboard.type("linha dois model:tokens=2000,interval_ms=20")
    await keyboard.press("Enter")
    await expect(chat.questions).to_have_text([re.compile("linha um\nlinha dois")])
    await expect(chat.reply()).to_contain_text("3 ")
    await keyboard.press("Tab")
    await expect(chat.stop).to_be_focused()
    await keyboard.press("Enter")
    await chat.ended("partial")


async def test_a_screen_reader_is_told_twice_for_a_reply(chat: ChatPage) -> None:
    await chat.open("reader")
    await chat.page.evaluate(
        "new MutationObserver(() => (window.told ??= []).push(announcer.textContent))"
        ".observe(announcer, { childList: true })"
    )
    await chat.ask("fale model:tokens=30,interval_ms=10")
    await chat.ended()

    told = await eventually(lambda: _told(chat), lambda said: len(said) >= 2)
    assert told[0] == "VIVA está respondendo"
    assert [text.partition(":")[0] for text in told[1:]] == ["VIVA respondeu"]


async def _told(chat: ChatPage) -> Any:
    return await chat.value("window.told ?? []")


async def test_a_message_that_is_too_long_stays_in_the_field(chat: ChatPage) -> None:
    await chat.open("long")
    await chat.ask("x" * 32_001)

    await expect(chat.page.get_by_role("alert")).to_contain_text("32000")
    assert len(await chat.field.input_value()) == 32_001


async def test_on_a_phone_the_sessions_are_behind_a_button(
    browser: Browser, site: Program
) -> None:
    await add_sessions(site.origin, "phone", ["bom dia"])
    size = {"width": 360, "height": 640}
    async with chat_page(browser, site.origin, viewport=size) as chat:
        await chat.open("phone")
        opener = chat.page.get_by_role("button", name="Abrir conversas")
        await expect(chat.page.locator("#new")).to_be_hidden()
        await opener.click()
        await expect(chat.page.locator("#new")).to_be_visible()
        await chat.page.keyboard.press("Escape")
        await expect(chat.page.locator("#new")).to_be_hidden()
        await expect(opener).to_be_focused()
        wide = await chat.value("document.documentElement.scrollWidth")
    assert wide <= 360
