"""What a reply that wants harm can do to the web chat: nothing."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser import ChatPage, words
from tests.fakes.script import reply_to

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = """model:mode=echo
<script>window.hacked = 1</script>
<img src=x onerror="window.hacked = 1"> <svg onload="window.hacked=1">
<style>body { display: none }</style> <iframe src="https://evil.example"></iframe>
<a href="javascript:window.hacked=1" onclick="window.hacked=1">raw</a>

![alt" onerror="x](https://evil.example/pixel.png) ![data](data:image/svg+xml,x)
[script](javascript:window.hacked=1) [vb](vbscript:x) [data](data:text/html,x)
[hidden](&#106;avascript:alert(1)) [tab](java&Tab;script:alert(1))
[here](/api/v1/health) [good](https://example.org/a?b=c&d) <mail@example.org>
www.example.com

<form action="https://evil.example"><input name="token"></form>
\N{RIGHT-TO-LEFT OVERRIDE}abc <base href="https://evil.example">
<meta http-equiv="refresh" content="0;https://evil.example">

`<b>` and **strong**
"""


async def test_a_hostile_reply_can_do_nothing(chat: ChatPage) -> None:
    await chat.open("hostile")
    await chat.ask(HOSTILE)
    await chat.ended()
    body = chat.reply()
    links = await body.locator("a").evaluate_all(
        "(all) => all.map((a) => [a.href, a.target, a.rel])"
    )
    everything = body.locator("*")
    tags = await everything.evaluate_all("(all) => all.map((e) => e.localName)")
    attributes = await everything.evaluate_all(
        "(all) => all.flatMap((e) => e.getAttributeNames())"
    )

    assert await chat.value("window.hacked") is None
    assert {tuple(link[1:]) for link in links} == {("_blank", "noopener noreferrer")}
    assert {link[0] for link in links} == {
        "https://evil.example/pixel.png",  # a link instead of the image
        "https://example.org/a?b=c&d",
        "mailto:mail@example.org",
        "http://www.example.com/",
    }
    assert set(tags) <= {"p", "a", "br", "code", "strong"}
    assert set(attributes) <= {"href", "target", "rel", "title"}
    await expect(body).to_contain_text("<script>window.hacked")
    await expect(body.locator("code")).to_have_text("<b>")


async def test_marks_of_direction_end_with_their_block(chat: ChatPage) -> None:
    message = "\N{RIGHT-TO-LEFT OVERRIDE}abc\n\nafter model:mode=echo"
    await chat.open("direction")
    await chat.ask(message)
    await chat.ended()
    script = "(e) => getComputedStyle(e).unicodeBidi"
    second = chat.reply().locator("p").nth(1)

    for place in (second, chat.questions.last):
        assert await place.evaluate(script) == "plaintext"
    # The first letter of the second paragraph is where it is without the mark.
    left = await second.evaluate(
        "(e) => { const r = document.createRange(); r.setStart(e.firstChild, 0);"
        " r.setEnd(e.firstChild, 1);"
        " return r.getBoundingClientRect().left - e.getBoundingClientRect().left }"
    )
    assert left < 2


async def test_a_reply_of_100_kb_is_shown_whole(chat: ChatPage) -> None:
    message = "enorme model:tokens=9900"
    await chat.open("large")
    await chat.ask(message)
    await chat.ended()

    text = reply_to(message)
    assert len(text.encode()) > 90_000
    assert words(await chat.reply().inner_text()) == words(text)
