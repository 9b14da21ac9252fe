"""The web chat through reloads, lost networks, killed servers and damaged streams."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import Browser, Route, expect

from tests.browser import ChatPage, chat_page, server, words
from tests.fakes.model import FakeModel
from tests.fakes.script import reply_to
from tests.programs import Program, free_port

pytestmark = pytest.mark.asyncio(loop_scope="session")

STREAM = "**/viva/chat/stream"
RESUME = "**/viva/chat/stream/*"
LOST = re.compile("Conexão perdida")


async def shown(chat: ChatPage) -> str:
    return words(await chat.reply().inner_text())


async def test_a_reload_in_mid_stream_loses_nothing(
    chat: ChatPage, model: FakeModel
) -> None:
    message = "Recarregue model:tokens=150,interval_ms=20"
    await chat.open("reload")
    await chat.ask(message)
    await expect(chat.reply()).to_contain_text("5 ")
    await chat.page.reload()
    await chat.loaded()
    assert words(reply_to(message)).startswith(await shown(chat))
    await chat.ended()

    assert await shown(chat) == words(reply_to(message))
    assert await chat.questions.all_inner_texts() == [message]
    assert [each.message for each in model.requests].count(message) == 1


async def test_a_message_that_never_left_goes_out_after_a_reload(
    chat: ChatPage, model: FakeModel
) -> None:
    message = "Não perca model:tokens=5"
    await chat.open("pending")
    await chat.page.route(STREAM, lambda route: route.abort())
    await chat.ask(message)
    await expect(chat.connection).to_contain_text(LOST)
    await chat.page.unroute(STREAM)
    await chat.page.reload()
    await chat.loaded()
    await chat.ended()

    assert await shown(chat) == words(reply_to(message))
    assert await chat.questions.all_inner_texts() == [message]


async def test_a_message_that_may_be_stored_is_looked_for_and_not_sent_again(
    chat: ChatPage, model: FakeModel
) -> None:
    posts = []

    async def answer_pending(route: Route) -> None:
        posts.append(route.request.url)
        answer = await route.fetch()
        problem = {
            "status": 504,
            "code": "reply_pending",
            "message_id": answer.headers["viva-message-id"],
        }
        await route.fulfill(status=504, json=problem)

    message = "Pode estar lá model:tokens=5"
    await chat.open("pending-reply")
    await chat.page.route(STREAM, answer_pending)
    await chat.ask(message)
    await chat.ended()

    assert await shown(chat) == words(reply_to(message))
    assert len(posts) == 1
    assert [each.message for each in model.requests].count(message) == 1


async def test_a_message_whose_answer_was_lost_is_sent_under_the_same_key(
    chat: ChatPage, model: FakeModel
) -> None:
    keys = []

    async def lose_the_first(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            await route.fetch()
            await route.abort()
        else:
            await route.continue_()

    message = "Uma vez só model:tokens=5"
    await chat.open("key")
    await chat.page.route(STREAM, lose_the_first)
    await chat.ask(message)
    await chat.ended()
    await expect(chat.questions).to_have_text([message])
    await expect(chat.replies.locator(".text")).to_have_text([reply_to(message)])
    await chat.ask("outra")
    await expect(chat.questions).to_have_text([message, "outra"])
    answers = [reply_to(message), reply_to("outra")]
    await expect(chat.replies.locator(".text")).to_have_text(answers)

    assert keys[0] == keys[1] != keys[2]
    assert [each.message for each in model.requests].count(message) == 1


async def test_the_page_says_that_it_is_offline_and_goes_on_when_it_is_back(
    chat: ChatPage,
) -> None:
    message = "Caia model:tokens=150,interval_ms=20"
    await chat.open("offline")
    await chat.ask(message)
    await expect(chat.reply()).to_contain_text("5 ")
    await chat.page.context.set_offline(True)
    await expect(chat.connection).to_contain_text(LOST)
    async with chat.page.expect_request(RESUME) as back:
        await chat.page.context.set_offline(False)
    assert not (await back.value).headers["last-event-id"].endswith(":0")
    await chat.ended()

    await expect(chat.connection).to_be_hidden()
    assert await shown(chat) == words(reply_to(message))


async def test_a_message_that_cannot_be_sent_comes_back_when_it_is_given_up(
    chat: ChatPage,
) -> None:
    await chat.open("given-up")
    await chat.page.route(STREAM, lambda route: route.abort())
    await chat.ask("fica aqui")
    await expect(chat.connection).to_contain_text(LOST)
    await chat.stop.click()

    await expect(chat.field).to_have_value("fica aqui")
    await expect(chat.questions).to_have_count(0)
    await expect(chat.connection).to_be_hidden()


async def test_another_server_goes_on_where_a_killed_one_was(
    browser: Browser, database_url: str, model: FakeModel
) -> None:
    message = "Sobreviva model:tokens=1000,interval_ms=20"
    port = free_port()
    async with (
        server(database_url, model, port=port) as first,
        chat_page(browser, first.origin) as chat,
    ):
        await chat.open()
        await chat.ask(message)
        await expect(chat.reply()).to_contain_text("9 ")
        await first.close()
        await expect(chat.connection).to_contain_text(LOST)
        seen = await shown(chat)
        async with server(database_url, model, port=port):
            await chat.ended("partial")
            await expect(chat.page.get_by_text("o servidor caiu")).to_be_visible()
            whole = await shown(chat)
            await chat.page.reload()
            await chat.loaded()
            stored = await shown(chat)

    assert words(reply_to(message)).startswith(whole)
    assert whole.startswith(seen)
    assert whole == stored


@pytest.mark.parametrize("damage", ["missing", "twice", "changed", "short", "gap"])
async def test_a_stream_that_is_damaged_on_its_way_is_read_again(
    chat: ChatPage, damage: str
) -> None:
    message = f"Estrague {damage} model:tokens=12,interval_ms=30"

    async def spoil(route: Route) -> None:
        response = await route.fetch()
        events = (await response.text()).split("\n\n")
        if damage in {"missing", "gap"}:
            del events[2]
        elif damage == "twice":
            events.insert(2, events[2])
        elif damage == "short":
            del events[-3]
        else:
            head, content = events[2].split('{"content":')
            events[2] = head + '{"content":' + content.swapcase()
        if damage == "gap":
            del events[-2]  # broken before its end, and the gap is noticed all the same
        await route.fulfill(response=response, body="\n\n".join(events))

    await chat.open(f"damaged-{damage}")
    await chat.page.route(STREAM, spoil)
    async with chat.page.expect_request(RESUME) as again:
        await chat.ask(message)
    assert (await again.value).headers["last-event-id"].endswith(":0")
    await chat.ended()

    assert await shown(chat) == words(reply_to(message))


async def test_what_is_damaged_every_time_is_taken_from_the_store(
    chat: ChatPage,
) -> None:
    async def spoil(route: Route) -> None:
        response = await route.fetch()
        body = re.sub('"sha256":"..', '"sha256":"xx', await response.text())
        await route.fulfill(response=response, body=body)

    message = "Sempre model:tokens=5"
    await chat.open("always")
    await chat.page.route(STREAM, spoil)
    await chat.page.route(RESUME, spoil)
    await chat.ask(message)

    await expect(chat.page.get_by_role("alert")).to_contain_text("não chegou inteira")
    assert await shown(chat) == words(reply_to(message))


async def test_a_live_reply_of_another_tab_is_followed_and_the_message_stays(
    browser: Browser, site: Program
) -> None:
    message = "Outra aba model:tokens=200,interval_ms=20"
    async with (
        chat_page(browser, site.origin) as one,
        chat_page(browser, site.origin) as two,
    ):
        await one.open("tabs")
        await two.open("tabs")
        await one.ask(message)
        await expect(one.reply()).to_contain_text("3 ")
        await two.ask("espere")
        await expect(two.page.get_by_role("alert")).to_contain_text("em andamento")
        await expect(two.field).to_have_value("espere")
        await two.ended()
        assert await shown(two) == words(reply_to(message))
        await one.ended()


async def test_a_token_that_has_expired_asks_for_a_new_link(chat: ChatPage) -> None:
    await chat.open("expired")
    body = json.dumps({"code": "unauthorized"})
    await chat.page.route(
        STREAM,
        lambda route: route.fulfill(
            status=401, body=body, content_type="application/problem+json"
        ),
    )
    await chat.ask("oi")

    await expect(chat.page.get_by_text("Abra pelo seu link")).to_be_visible()
