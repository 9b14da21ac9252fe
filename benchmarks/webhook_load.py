"""Webhooks from many connections, each sent when the last one is acknowledged.

Run as ``python -m benchmarks.webhook_load PORT TAG CONNECTIONS SECONDS``; it prints
its findings as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, cast

from benchmarks.clock import monotonic

_KEY = b"0" * 32
_EVENT: dict[str, Any] = {
    "event": "messages.upsert",
    "instance": "suporte",
    "data": {
        "key": {
            "remoteJid": "5511988887777@s.whatsapp.net",
            "fromMe": False,
            "id": _KEY.decode(),
        },
        "pushName": "Maria Souza",
        "status": "DELIVERY_ACK",
        "message": {
            "conversation": "Bom dia! " * 20,
            "messageContextInfo": {
                "deviceListMetadata": {
                    "senderKeyHash": "xv2sqZkhyVcy7g==",
                    "senderTimestamp": "1760990001",
                    "recipientKeyHash": "cKVGH1IW9cycnA==",
                    "recipientTimestamp": "1760990444",
                },
                "deviceListMetadataVersion": 2,
                "messageSecret": "RN9Q9sYIM5a+qB2U/up9pftqQTLty5dV/TviiH6rpL0=",
            },
        },
        "messageType": "conversation",
        "messageTimestamp": 1760990445,
        "instanceId": "3f1a6c1e-8b0d-4c57-9a3e-2d9f0c6b7a11",
        "source": "ios",
    },
    "destination": "https://bot.example.com/api/v1/webhook/evolution",
    "date_time": "2025-10-20T17:00:45.512Z",
    "sender": "5511999990000@s.whatsapp.net",
    "server_url": "https://evo.example.com",
}


class Run:
    """The findings of all connections."""

    def __init__(self, port: int, tag: str, ends_at: float) -> None:
        body = json.dumps(_EVENT).encode()
        head = (
            "POST /api/v1/webhook/evolution/messages-upsert HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.before, self.after = (head.encode() + body).split(_KEY)
        self.tag = tag
        self.ends_at = ends_at
        self.number = 0
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self.ended = asyncio.Semaphore(0)

    def next_request(self) -> bytes:
        """A webhook with a key of its own."""
        self.number += 1
        key = f"{self.tag}{self.number:x}".rjust(32, "0")[-32:]
        return self.before + key.encode() + self.after


class Connection(asyncio.Protocol):
    """One connection; an answer is taken to arrive in one piece, being short."""

    transport: asyncio.Transport

    def __init__(self, run: Run) -> None:
        self.run = run
        self.sent_at = 0.0
        self.open_request = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        self.sent_at = monotonic()
        self.open_request = True
        self.transport.write(self.run.next_request())

    def data_received(self, data: bytes) -> None:
        # The body's last byte; a head that arrives alone does not end so.
        if not data.endswith(b"}"):
            return
        self.open_request = False
        now = monotonic()
        self.run.seconds.append(now - self.sent_at)
        if b" 200 " not in data[:16] and b'"received"' not in data:
            self.run.failed.append(data[:120].decode(errors="replace"))
        if now < self.run.ends_at:
            self._send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.open_request:
            self.run.failed.append(f"connection lost: {exc}")
        self.run.ended.release()


async def load(port: int, tag: str, connections: int, seconds: float) -> Run:
    """Load for so long; connections that hang end five seconds later."""
    loop = asyncio.get_running_loop()
    run = Run(port, tag, monotonic() + seconds)
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(run), "127.0.0.1", port)
    async with asyncio.timeout(seconds + 5):
        for _ in range(connections):
            await run.ended.acquire()
    return run


def main() -> None:
    """Load as the command line says."""
    import uvloop

    port, tag, connections, text = sys.argv[1:]
    seconds = float(text)
    run = uvloop.run(load(int(port), tag, int(connections), seconds))
    times = sorted(run.seconds)
    found = {
        "acknowledged": len(times) - len(run.failed),
        "per_second": round((len(times) - len(run.failed)) / seconds),
        "p50_ms": round(1000 * times[len(times) // 2], 2),
        "p99_ms": round(1000 * times[len(times) * 99 // 100], 2),
        "max_ms": round(1000 * times[-1], 2),
        "failed": len(run.failed),
        "problems": run.failed[:3],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
