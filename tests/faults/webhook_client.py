"""A client that posts webhooks by connections that stay open, and counts answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import quantiles

from tests.raw_http import connect, read_answer

HOOK_SECRET = "a-secret-of-the-webhook"
_MOST_TRIES = 100


def message(token: str, chat: int) -> bytes:
    """Make a webhook with a person's message, as the wire has it."""
    body = {
        "event": "messages.upsert",
        "instance": "loja",
        "data": {
            "key": {
                "remoteJid": f"5511{910000000 + chat}@s.whatsapp.net",
                "fromMe": False,
                "id": f"3EB0{token.replace('-', '').upper()}",
            },
            "pushName": "Ana",
            "message": {"conversation": f"{token} qual é o preço?"},
            "messageType": "conversation",
            "messageTimestamp": int(time.time()),
            "instanceId": "8d9a5b7e-0000-4000-8000-000000000001",
            "source": "android",
        },
        "destination": "https://chat.example.com/api/v1/webhook/evolution",
        "date_time": "2026-11-23T09:00:00.000Z",
        "sender": "5511900000000@s.whatsapp.net",
        "server_url": "http://localhost:8080",
        "apikey": None,
    }
    raw = json.dumps(body).encode()
    head = (
        "POST /api/v1/webhook/evolution HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {HOOK_SECRET}\r\nUser-Agent: axios/1.7.9\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


def tokens() -> Iterator[str]:
    """Name messages, each another name."""
    for number in itertools.count(1):
        yield f"msg-{number}-{number % 16**6:06x}"


@dataclass(slots=True)
class Answers:
    """What the webhooks got: seconds until each 200, and how many of each status."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    without_retry_after: int = 0

    def percentile_ms(self, percent: int) -> float:
        return round(1000 * quantiles(self.seconds, n=100)[percent - 1], 1)


class Poster:
    """One connection that stays open; a refused webhook is posted again."""

    def __init__(self, port: int, answers: Answers) -> None:
        self._port = port
        self._answers = answers
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, request: bytes, since: float) -> None:
        """Post until it is taken; `since` is when it was due, of the monotonic clock.

        Raises:
            AssertionError: it is not taken after very many tries.
        """
        for _ in range(_MOST_TRIES):
            status, again_seconds = await self._once(request)
            self._answers.statuses[status] += 1
            if status == 200:
                self._answers.seconds.append(time.monotonic() - since)
                return
            await asyncio.sleep(again_seconds)
        raise AssertionError("a webhook was never taken")

    async def _once(self, request: bytes) -> tuple[int, float]:
        if self._streams is None:
            self._streams = await connect(self._port)
        reader, writer = self._streams
        writer.write(request)
        answer = await read_answer(reader)
        if answer is None or answer.headers.get("connection") == "close":
            self.close()
        if answer is None:
            return 0, 0.1
        if answer.status != 200 and "retry-after" not in answer.headers:
            self._answers.without_retry_after += 1
        return answer.status, float(answer.headers.get("retry-after", "1"))

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
