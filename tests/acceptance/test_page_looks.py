"""How the web chat looks, and that everybody can use it: axe-core and screenshots.

With PAGE_SCREENSHOTS set to a folder, the screenshots stay there.
"""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.browser import ChatPage, add_sessions, chat_page
from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.programs import Program

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
DESKTOP = {"width": 1180, "height": 760}
PHONE = {"width": 390, "height": 780}
LOOKS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "has_touch": True, "device_scale_factor": 1.5},
    "phone-dark": {"viewport": PHONE, "has_touch": True, "color_scheme": "dark"},
}
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


@pytest.fixture(params=LOOKS)
def look(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("PAGE_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def check(chat: ChatPage, picture: Path) -> None:
    """Take a picture; axe-core must find nothing."""
    animations = "document.getAnimations().forEach((each) => each.finish?.())"
    await chat.value(f"try {{ {animations} }} catch {{}}")
    await chat.page.screenshot(path=picture)
    await chat.page.evaluate(AXE)
    found = await chat.value("axe.run({ resultTypes: ['violations'] })")
    assert found["violations"] == [], json.dumps(found["violations"], indent=1)
    assert found["passes"]


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
        await check(chat, picture("empty"))
        model.scripts.insert(0, saying(ANSWER))
        await chat.ask(QUESTION)
        await chat.ended()
        await check(chat, picture("reply"))
        await chat.ask("Conte até mil model:tokens=1000,interval_ms=50")
        await expect(chat.reply()).to_contain_text("9 ")
        await check(chat, picture("streaming"))
        await chat.page.context.set_offline(True)
        await expect(chat.connection).to_be_visible()
        await check(chat, picture("offline"))
        await chat.page.context.set_offline(False)
        await expect(chat.connection).to_be_hidden()
        await chat.stop.click()
        await chat.ended("partial")
        await check(chat, picture("partial"))
        await _open_side(chat)
        await check(chat, picture("side"))
        await chat.sessions.first.hover()
        await chat.sessions.first.locator(".delete").click()
        await check(chat, picture("delete"))


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
        await check(chat, screenshots / f"{look}-access.png")


async def test_who_wants_no_motion_gets_none(browser: Browser, site: Program) -> None:
    async with chat_page(browser, site.origin, reduced_motion="reduce") as chat:
        await chat.open("calm")
        await chat.ask("model:tokens=1000,interval_ms=50")
        await expect(chat.reply()).to_contain_text("3 ")
        assert await chat.value("document.getAnimations().length") == 0
        await chat.stop.click()
        await chat.ended("partial")
