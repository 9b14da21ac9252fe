"""Persons on WhatsApp, and a model and an Evolution API that fail at random."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from tests.fakes.evolution import FakeEvolution
from tests.fakes.evolution_faults import FAULTS, Fault
from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.whatsapp_checker import Asked, Got, Said

INSTANCES: Final = ("loja", "filial")

_TOKEN: Final = re.compile(r"\bmsg-\d+-[0-9a-f]{6}\b")
_WORDS: Final = ("bom", "dia", "qual", "é", "o", "horário", "de", "amanhã", "preço")

_MODEL_FAULTS: Final = (
    Script(status=500),
    Script(status=503),
    Script(status=429, headers={"Retry-After": "1"}),
    Script(mode="echo", cut="eof", cut_after=3, interval_ms=10),
    Script(mode="echo", cut="rst", cut_after=2, interval_ms=10),
    Script(mode="echo", cut="error", cut_after=4, interval_ms=10),
    Script(mode="echo", cut="garbage", cut_after=1, interval_ms=10),
)

_RETRIED: Final = (
    Fault(429, "Too many requests", headers={"Retry-After": "1"}),
    FAULTS["502"],
    FAULTS["503"],
    FAULTS["500"],
    FAULTS["closed"],
    FAULTS["closed at the check"],
)
_SENT: Final = tuple(
    FAULTS[name]
    for name in (
        "drop after effect",
        "500 of a proxy",
        "timed out",
        "hang after effect",
    )
)
_UNSENT: Final = tuple(FAULTS[name] for name in ("drop", "504", "hang"))


class FaultyModel(FakeModel):
    """Says the user's message after it, slowly; fails at this share of requests."""

    def __init__(self, share: float, chance: random.Random) -> None:
        super().__init__(Script(mode="echo", interval_ms=20))
        self.share = share
        self._chance = chance

    def _next_script(self) -> Script:
        if self._chance.random() < self.share:
            return self._chance.choice(_MODEL_FAULTS)
        return super()._next_script()

    @property
    def questions(self) -> list[Asked]:
        """The messages of persons in each request, the last one's apart."""
        return [_asked(request.body["messages"]) for request in self.requests]


class Shares(NamedTuple):
    """How many of the sends go wrong, by what follows from it."""

    retried: float = 0.05
    sent: float = 0.03
    unsent: float = 0.01


class FaultyEvolution(FakeEvolution):
    """Fails at shares of the sends, until it is told to stop that."""

    def __init__(self, chance: random.Random, shares: Shares, **options: Any) -> None:
        super().__init__(**options)
        self.shares: Shares | None = shares
        self._chance = chance

    def _next_fault(self) -> Fault | None:
        if self.shares is None:
            return None
        kinds = (_RETRIED, _SENT, _UNSENT)
        rest = 1.0 - sum(self.shares)
        [kind] = self._chance.choices((*kinds, None), (*self.shares, rest))
        return None if kind is None else self._chance.choice(kind)

    @property
    def got(self) -> list[Got]:
        """What WhatsApp got."""
        return [Got(s.jid, tokens_of(s.text), s.message_id) for s in self.sent]

    def known_at(self) -> dict[str, float]:
        """Tell since when each person's message was acknowledged by somebody."""
        known: dict[str, float] = {}
        for delivered in self.deliveries:
            if delivered.event == "messages.upsert" and delivered.is_accepted:
                message_id = delivered.body["data"]["key"]["id"]
                first = known.get(message_id, delivered.ended_at)
                known[message_id] = min(first, delivered.ended_at)
        return known


def tokens_of(text: str) -> tuple[str, ...]:
    """Find the names of the messages that a text repeats."""
    return tuple(_TOKEN.findall(text))


def _asked(messages: Sequence[dict[str, str]]) -> Asked:
    users = [tokens_of(m["content"]) for m in messages if m["role"] == "user"]
    earlier = tuple(token for tokens in users[:-1] for token in tokens)
    return Asked(users[-1], earlier)


class Line(NamedTuple):
    """A message to be written, `at` seconds after the begin."""

    at: float
    jid: str
    instance: str
    token: str
    text: str


def lines(
    chance: random.Random, *, messages: int, chats: int, seconds: float
) -> list[Line]:
    """Make the messages of all chats: bursts of one to three, at random times."""
    made = [
        line
        for chat in range(chats)
        for line in _chat(chance, chat, messages // chats, seconds)
    ]
    return sorted(made)


def _chat(
    chance: random.Random, chat: int, messages: int, seconds: float
) -> Iterator[Line]:
    jid = f"5511{910000000 + chat}@s.whatsapp.net"
    instance = INSTANCES[chat % len(INSTANCES)]
    written = 0
    while written < messages:
        at = chance.uniform(0.0, seconds)
        for _ in range(min(chance.randint(1, 3), messages - written)):
            token = f"msg-{chat * 1000 + written}-{chance.randrange(16**6):06x}"
            words = chance.choices(_WORDS, k=chance.randint(3, 15))
            yield Line(at, jid, instance, token, " ".join([token, *words]))
            written += 1
            at += chance.uniform(0.02, 0.6)


class Persons:
    """Write their messages, and remember them."""

    def __init__(self, evolution: FaultyEvolution) -> None:
        self._evolution = evolution
        self._written: list[tuple[Line, str, float]] = []

    async def write(self, all_lines: Sequence[Line]) -> None:
        """Write each line when its time has come."""
        began = time.monotonic()
        for line in all_lines:
            wait = began + line.at - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            at = time.time()
            message_id = self._evolution.receive(
                line.text, jid=line.jid, instance=line.instance, at=at
            )
            self._written.append((line, message_id, at))

    def said(self, found_at: dict[str, float]) -> list[Said]:
        """Tell what was written; `found_at` is when a look for missed ones found it."""
        known = self._evolution.known_at()
        times = [
            [
                moments[message_id]
                for moments in (known, found_at)
                if message_id in moments
            ]
            for _, message_id, _ in self._written
        ]
        return [
            Said(line.token, message_id, line.jid, at, min(told, default=None))
            for (line, message_id, at), told in zip(self._written, times, strict=True)
        ]
