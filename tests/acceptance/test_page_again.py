"""The web chat: another answer, drafts, a second tab, whatever the server says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Route, expect

from tests.browser import ChatPage, add_sessions, chat_page, words
from tests.chat_host import token
from tests.fakes.model import FakeModel
from tests.fakes.script import reply_to
from tests.programs import Program

pytestmark = pytest.mark.asyncio(loop_scope="session")

STREAM = "**/viva/chat/stream"
SNAPSHOT = "**/viva/chat/snapshot*"
ID = "01890000-0000-7000-8000-000000000000"
PROBLEM = "application/problem+json"


@asynccontextmanager
async def second_tab(chat: ChatPage) -> AsyncIterator[ChatPage]:
    """Open another tab of the same browser."""
    other = ChatPage(await chat.page.context.new_page(), chat.origin)
    yield other
    assert other.faults == []


async def id_of(chat: ChatPage) -> str | None:
    return await chat.replies.last.get_attribute("data-message-id")


async def test_the_newest_reply_is_answered_again_in_its_place(
    chat: ChatPage, model: FakeModel
) -> None:
    await chat.open("again")
    await chat.ask("primeira")
    await chat.ended()
    await chat.ask("segunda")
    await chat.ended()
    await expect(chat.again).to_have_count(1)
    old, before = await id_of(chat), len(model.requests)
    await chat.again.focus()
    await chat.page.keyboard.press("Enter")
    await expect(chat.replies.last).not_to_have_attribute("data-message-id", old or "")
    await chat.ended()

    await expect(chat.questions).to_have_text(["primeira", "segunda"])
    await expect(chat.reply()).to_have_text(reply_to("segunda"))
    await expect(chat.sessions.first).to_contain_text("4 mensagens")
    [request] = model.requests[before:]
    assert request.message == "segunda"
    new = await id_of(chat)
    await chat.page.reload()
    await chat.loaded()
    await expect(chat.replies).to_have_count(2)
    assert await id_of(chat) == new


async def test_another_answer_that_is_refused_shows_what_there_is(
    chat: ChatPage,
) -> None:
    """Here the chat went on in another browser meanwhile."""
    await chat.open("moved")
    await chat.ask("primeira")
    await chat.ended()
    first = await id_of(chat)
    await add_message(chat, "moved", "de outro lugar")
    await chat.again.click()

    await expect(chat.page.get_by_role("alert")).to_contain_text("em outro lugar")
    await expect(chat.questions).to_have_text(["primeira", "de outro lugar"])
    assert await chat.replies.first.get_attribute("data-message-id") == first


async def add_message(chat: ChatPage, user: str, message: str) -> None:
    """Ask in the person's newest session, past the page."""
    answer = await chat.page.context.request.post(
        f"{chat.origin}/api/v1/viva/chat",
        headers={"Authorization": f"Bearer {token(f'page {user}')}"},
        data={"mensagem": message},
    )
    assert answer.ok


async def test_any_answer_from_500_on_is_passing(
    chat: ChatPage, model: FakeModel
) -> None:
    message = "Passe model:tokens=5"
    left = [521, 524, 530, 500, 504, 599]

    async def answer(route: Route) -> None:
        if left:
            await route.fulfill(status=left.pop(0), body="<html>proxy</html>")
        else:
            await route.continue_()

    await chat.open("passing")
    await chat.page.route(STREAM, answer)
    await chat.ask(message)
    await expect(chat.replies.last).to_have_attribute("data-status", "waiting")
    while left:
        await expect(chat.connection).to_be_visible()
        await chat.page.get_by_role("button", name="Tentar agora").click()
    await chat.ended()

    await expect(chat.reply()).to_have_text(reply_to(message))
    await expect(chat.questions).to_have_text([message])
    assert [each.message for each in model.requests].count(message) == 1


async def test_a_draft_is_kept_for_each_session_through_a_reload(
    chat: ChatPage, site: Program
) -> None:
    await add_sessions(site.origin, "drafts", ["primeira"], ["segunda"])
    await chat.open("drafts")
    await chat.field.fill("na segunda")
    names = chat.page.locator("#sessions .name")
    await names.last.click()
    await expect(chat.questions).to_have_text(["primeira"])
    await expect(chat.field).to_have_value("")
    await chat.field.fill("na primeira")
    await chat.page.reload()
    await chat.loaded()
    await expect(chat.field).to_have_value("na segunda")
    await names.last.click()
    await expect(chat.field).to_have_value("na primeira")
    await chat.ask("na primeira")
    await chat.ended()
    await chat.page.reload()
    await chat.loaded()
    await expect(chat.field).to_have_value("")


async def test_a_tab_that_only_shows_a_session_keeps_nothing(
    chat: ChatPage, site: Program
) -> None:
    """What is typed in another tab meanwhile is not seen here yet, and stays."""
    await add_sessions(site.origin, "watching", ["primeira"], ["segunda"])
    await chat.page.add_init_script(
        """globalThis.writes = [];
        for (const name of ["setItem", "removeItem"]) {
          const real = Storage.prototype[name];
          Storage.prototype[name] = function (...values) {
            if (this === localStorage) writes.push(values[0]);
            return real.apply(this, values);
          };
        }"""
    )
    await chat.open("watching")
    await chat.page.locator("#sessions .name").last.click()
    await expect(chat.questions).to_have_text(["primeira"])
    assert await chat.value("writes") == []
    await chat.field.fill("x")
    assert len(await chat.value("writes")) == 1


async def test_what_was_typed_and_sent_survives_an_expired_access(
    chat: ChatPage,
) -> None:
    await chat.open("new-link")
    await chat.page.route(
        STREAM,
        lambda route: route.fulfill(
            status=401, body='{"code":"unauthorized"}', content_type=PROBLEM
        ),
    )
    await chat.ask("enviada model:tokens=5")
    await expect(chat.page.get_by_text("Abra pelo seu link")).to_be_visible()
    # Another tab, since the first may have been closed.
    async with second_tab(chat) as other:
        await other.open("new-link")
        await expect(other.questions).to_have_text(["enviada model:tokens=5"])
        await other.ended()
        await other.field.fill("e um rascunho")
        async with other.page.expect_event("load"):  # a new link loads the page anew
            await other.page.goto(f"{chat.origin}/#token={token('page new-link')}")
        await other.loaded()
        await expect(other.field).to_have_value("e um rascunho")
        await expect(other.questions).to_have_count(1)
    # Nobody else sees it in the same browser.
    async with second_tab(chat) as other:
        await other.open("somebody-else")
        await expect(other.field).to_have_value("")


async def test_a_refused_message_stands_before_what_was_typed_since(
    chat: ChatPage,
) -> None:
    typed = asyncio.Event()

    async def refuse(route: Route) -> None:
        await typed.wait()
        await route.fulfill(status=422, body="{}", content_type=PROBLEM)

    await chat.open("refused")
    await chat.page.route(STREAM, refuse)
    await chat.ask("recusada")
    await chat.field.fill("e mais")
    typed.set()

    await expect(chat.field).to_have_value("recusada\n\ne mais")
    await expect(chat.questions).to_have_count(0)
    await expect(chat.page.get_by_role("alert")).to_contain_text("não aceitou")


async def test_a_second_tab_shows_what_the_first_does(chat: ChatPage) -> None:
    message = "Nas duas model:tokens=100,interval_ms=20"
    async with second_tab(chat) as other:
        await chat.open("two-tabs")
        await other.open("two-tabs")
        await chat.ask(message)
        await expect(other.questions).to_have_text([message])
        await expect(other.reply()).to_contain_text("5 ")
        await other.ended()
        await expect(other.reply()).to_have_text(reply_to(message))
        old = await id_of(other)
        await chat.ended()
        await chat.again.click()
        await expect(other.replies.last).not_to_have_attribute(
            "data-message-id", old or ""
        )
        await other.ended()
        await expect(other.questions).to_have_count(1)
        await chat.page.get_by_role("button", name=re.compile("Apagar")).click()
        await chat.page.locator("#confirm-yes").click()
        await expect(other.page.locator("#empty")).to_be_visible()


async def test_a_message_that_the_server_does_not_answer_can_be_taken_back(
    chat: ChatPage,
) -> None:
    await chat.open("hanging")
    never = asyncio.Event()
    await chat.page.route(STREAM, lambda _: never.wait())
    await chat.ask("volte")
    await expect(chat.replies.last).to_have_attribute("data-status", "waiting")
    await chat.stop.click()

    await expect(chat.field).to_have_value("volte")
    await expect(chat.questions).to_have_count(0)
    never.set()


async def test_a_bubble_that_cannot_be_loaded_again_has_a_way_on(
    chat: ChatPage,
) -> None:
    await chat.open("stuck")
    await chat.page.route(
        STREAM, lambda route: route.fulfill(status=422, body="{}", content_type=PROBLEM)
    )
    await chat.page.route(SNAPSHOT, lambda route: route.fulfill(status=500, body=""))
    await chat.ask("presa")
    await chat.ended("failed")
    await expect(chat.field).to_have_value("presa")
    await chat.page.unroute(SNAPSHOT)
    await chat.retry.click()

    await expect(chat.page.locator("#empty")).to_be_visible()
    await expect(chat.field).to_have_value("presa")


async def test_an_event_that_is_no_json_is_read_again(chat: ChatPage) -> None:
    async def spoil(route: Route) -> None:
        response = await route.fetch()
        body = (await response.text()).replace('data: {"content"', "data: {content", 1)
        await route.fulfill(response=response, body=body)

    message = "Sem JSON model:tokens=5"
    await chat.open("no-json")
    await chat.page.route(STREAM, spoil)
    await chat.ask(message)
    await chat.ended()

    await expect(chat.reply()).to_have_text(reply_to(message))


@pytest.mark.parametrize("mark", ["> ", "- ", "1. "])
async def test_a_reply_that_nests_too_deep_is_shown_as_it_is(
    chat: ChatPage, mark: str
) -> None:
    deep = mark * 2048 + "fundo"
    message = {
        "id": ID, "seq": 1, "tipo": "ia", "conteudo": deep, "status": "complete",
        "finish_reason": "stop", "created_at": "2026-12-01T12:00:00Z",
    }  # fmt: skip
    snapshot = {"session_id": ID, "messages": [message], "has_more": False}
    await chat.page.route(
        SNAPSHOT, lambda route: route.fulfill(json={**snapshot, "active_reply": None})
    )
    await chat.open("deep")

    await expect(chat.reply().locator(".plain")).to_contain_text("fundo")
    assert deep in await chat.reply().inner_text()


async def test_a_reply_that_breaks_the_renderer_is_shown_as_it_is(
    browser: Browser, site: Program
) -> None:
    broken = (
        "export const marked = { use() {}, parse() {"
        " throw new RangeError('Maximum call stack size exceeded'); } };"
    )
    async with chat_page(browser, site.origin) as chat:
        await chat.page.route(
            "**/vendor/marked.esm.js",
            lambda route: route.fulfill(body=broken, content_type="text/javascript"),
        )
        await chat.open("broken")
        await chat.ask("*tudo* aqui model:mode=echo")
        await chat.ended()
        await expect(chat.reply()).to_have_text("*tudo* aqui model:mode=echo")


async def test_tex_keeps_its_backslashes(chat: ChatPage) -> None:
    text = (
        "Seja \\(a_1 * b_1 * c < 2\\), e:\n\n\\[\nx = \\frac{1}{2}\n+ y_1\n\\]\n\n"
        "Só um \\( aqui, e \\* ali."
    )
    await chat.open("tex")
    await chat.ask(f"model:mode=echo\n\n{text}")
    await chat.ended()

    shown = words(await chat.reply().inner_text())
    assert words(text).replace("\\*", "*") in shown
    await expect(chat.reply().locator("em, ul, h2")).to_have_count(0)
