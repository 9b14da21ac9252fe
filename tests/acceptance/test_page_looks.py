"""How the web chat looks, and that everybody can use it: axe-core and screenshots.

With PAGE_SCREENSHOTS set to a folder, the screenshots stay there.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser import ChatPage, add_sessions, chat_page
from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.looks import LOOKS, check
from tests.programs import Program

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUESTION = "Como leio um arquivo grande em Python, linha por linha?"
ANSWER = """Abra o arquivo com `open` e percorra-o: cada volta lê **uma linha**, \
e a memória usada fica pequena.

```python
def linhas_com(palavra: str, caminho: str) -> int:
    with open(caminho, encoding="utf-8") as arquivo:
        return sum(palavra in linha for linha in arquivo)
```

| forma | memória | quando |
|---|---|---|
| `for linha in arquivo` | uma linha | quase sempre |
| `arquivo.read()` | tudo | arquivos pequenos |

- O `with` fecha o arquivo também quando há um erro.
- Diga sempre o `encoding`. Mais em [docs.python.org](https://docs.python.org/3/).
"""


def saying(text: str) -> Script:
    """Make a model's script that says this."""
    chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    events = [json.dumps(chunk), json.dumps(end), "[DONE]"]
    return Script(events="".join(f"data: {each}\n\n" for each in events).encode())


async def test_everybody_can_use_every_state_of_the_page(
    browser: Browser, site: Program, model: FakeModel, look: str, screenshots: Path
) -> None:
    user = f"looks-{look}"
    await add_sessions(
        site.origin, user, ["Receita de pão de queijo"], ["Ideias para domingo", "Mais"]
    )

    def picture(state: str) -> Path:
        return screenshots / f"{look}-{state}.png"

    async with chat_page(browser, site.origin, **LOOKS[look]) as chat:
        await chat.open(user)
        await _open_side(chat)
        await chat.page.locator("#new").click()
        await expect(chat.page.get_by_text("Como posso ajudar?")).to_be_visible()
        await check(chat.page, picture("empty"))
        model.scripts.insert(0, saying(ANSWER))
        await chat.ask(QUESTION)
        await chat.ended()
        await check(chat.page, picture("reply"))
        await chat.ask("Conte até mil model:tokens=1000,interval_ms=50")
        await expect(chat.reply()).to_contain_text("9 ")
        await check(chat.page, picture("streaming"))
        await chat.page.context.set_offline(True)
        await expect(chat.connection).to_be_visible()
        await check(chat.page, picture("offline"))
        await chat.page.context.set_offline(False)
        await expect(chat.connection).to_be_hidden()
        await chat.stop.click()
        await chat.ended("partial")
        await check(chat.page, picture("partial"))
        await _open_side(chat)
        await check(chat.page, picture("side"))
        await chat.sessions.first.hover()
        await chat.sessions.first.locator(".delete").click()
        await check(chat.page, picture("delete"))


async def _open_side(chat: ChatPage) -> None:
    opener = chat.page.get_by_role("button", name="Abrir conversas")
    if await opener.is_visible():
        await opener.click()
        await expect(chat.page.locator("#side")).to_have_css("translate", "0px")


async def test_the_way_in_is_said_to_everybody(
    browser: Browser, site: Program, look: str, screenshots: Path
) -> None:
    async with chat_page(browser, site.origin, **LOOKS[look]) as chat:
        await chat.page.goto(site.origin)
        await expect(chat.page.get_by_text("Abra pelo seu link")).to_be_visible()
        await check(chat.page, screenshots / f"{look}-access.png")


async def test_who_wants_no_motion_gets_none(browser: Browser, site: Program) -> None:
    async with chat_page(browser, site.origin, reduced_motion="reduce") as chat:
        await chat.open("calm")
        await chat.ask("model:tokens=1000,interval_ms=50")
        await expect(chat.reply()).to_contain_text("3 ")
        assert await chat.value("document.getAnimations().length") == 0
        await chat.stop.click()
        await chat.ended("partial")
