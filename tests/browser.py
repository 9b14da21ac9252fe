"""The web chat in a real Chromium, on a server in a process of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tests.chat_host import Person, client, token
from tests.fakes.model import FakeModel
from tests.programs import Program, free_port, program

WAIT_MS = 30_000
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

expect.set_options(timeout=WAIT_MS)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run Debian's Chromium."""
    path = shutil.which("chromium")
    assert path is not None, "chromium is missing: run .ci/packages.sh"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=FLAGS, chromium_sandbox=False
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def server(
    database_url: str, model: FakeModel, *, port: int = 0, **settings: str
) -> AsyncIterator[Program]:
    """Run `viva-server serve` with a fake model."""
    port = port or free_port()
    environment = {
        "VIVA_DATABASE_URL": database_url,
        "VIVA_PORT": str(port),
        "VIVA_MODEL_URL": str(model.url),
        "VIVA_MODEL_NAME": "fake",
        **settings,
    }
    arguments = ("-m", "viva_server", "serve", "--log-level", "WARNING")
    async with program(*arguments, port=port, environment=environment) as running:
        yield running


class ChatPage:
    """The page as a person sees it; what is wrong behind it is kept in `faults`."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.field = page.get_by_role("textbox")
        self.replies = page.locator(".message.assistant")
        self.questions = page.locator(".message.user .text")
        self.sessions = page.locator("#sessions li")
        self.stop = page.get_by_role("button", name="Parar a resposta")
        self.retry = page.get_by_role("button", name="Tentar de novo")
        self.again = page.get_by_role("button", name="Responder outra vez")
        self.connection = page.locator("#connection")
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog {dialog.message}"))
        page.on("popup", lambda popup: self.faults.append(f"popup {popup.url}"))
        page.on("request", lambda request: self.requests.append(request.url))

    async def open(self, user: str = "ana") -> None:
        """Come in by a link, and wait for the first look."""
        await self.page.goto(f"{self.origin}/#token={token(_own(user))}")
        await self.loaded()

    async def loaded(self) -> None:
        await self.page.locator("#empty:visible, .message").first.wait_for()

    async def ask(self, message: str) -> None:
        await self.field.fill(message)
        await self.field.press("Enter")

    def reply(self, number: int = -1) -> Locator:
        """The text of a reply, the last one by default."""
        return self.replies.nth(number).locator(".text")

    async def ended(self, status: str = "complete") -> None:
        """Wait until the last reply has ended, in this way."""
        await expect(self.replies.last).to_have_attribute("data-status", status)

    async def value(self, script: str) -> Any:
        return await self.page.evaluate(script)


@asynccontextmanager
async def chat_page(
    browser: Browser, origin: str, **options: Any
) -> AsyncIterator[ChatPage]:
    """Open an empty tab of a person in Brazil; at its end nothing may have failed."""
    options = {"locale": "pt-BR", "timezone_id": "America/Sao_Paulo", **options}
    context = await browser.new_context(**options)
    try:
        chat = ChatPage(await context.new_page(), origin)
        yield chat
        if sys.exc_info()[0] is None:
            assert chat.faults == []
    finally:
        await context.close()


def words(text: str) -> str:
    """Give the text as the page shows it: white space is one space."""
    return " ".join(text.split())


async def add_sessions(origin: str, user: str, *sessions: list[str]) -> None:
    """Put sessions with these messages into a person's chat."""
    async with client() as session:
        person = Person(session, f"{origin}/api/v1", _own(user))
        for messages in sessions:
            made = (await person.post("/viva/chat/session/new", {})).json
            for message in messages:
                answer = await person.ask(message, session_id=made["session_id"])
                assert answer.status == 200


def _own(user: str) -> str:
    """Make somebody whom no other test on the same database is."""
    return f"page {user}"
