"""Webhooks full of canaries: every sample, every way of the secret."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt

from tests.secrets_search import Canaries

SAMPLES = sorted(Path(__file__).parents[1].glob("data/evolution/*.json"))
CREDENTIALS = {
    "apikey",
    "apiKey",
    "api_key",
    "instanceToken",
    "token",
    "mediaKey",
    "messageSecret",
    "jpegThumbnail",
    "base64",
    "pairingCode",
    "jwt_key",
}
"""Members of bodies, wherever they stand, that are secrets or bytes of people."""
IN_QR_EVENTS = {"qrcode", "code", "base64"}


def poisoned(value: Any, canaries: Canaries, names: set[str]) -> Any:
    """Put a canary in the place of each secret of a sample."""
    if isinstance(value, list):
        return [poisoned(item, canaries, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _canary_for(name, item, canaries)
        if name in names and not isinstance(item, (dict, list))
        else poisoned(item, canaries, names)
        for name, item in value.items()
    }


def _canary_for(name: str, value: Any, canaries: Canaries) -> Any:
    if value is None or isinstance(value, bool):
        return value
    secret = canaries[f"body {name}"]
    if name in {"jpegThumbnail", "base64", "mediaKey"}:
        return base64.b64encode(secret.encode()).decode()
    return secret


def bytes_in_each_form(secret: str) -> list[Any]:
    """Give the four forms in which Evolution's versions send bytes."""
    raw = secret.encode()
    return [
        base64.b64encode(raw).decode(),
        {"type": "Buffer", "data": list(raw)},
        {str(index): byte for index, byte in enumerate(raw)},
        f"data:image/png;base64,{base64.b64encode(raw).decode()}",
    ]


def bodies_of(canaries: Canaries) -> list[dict[str, Any]]:
    """Give every sample, with canaries, and what no sample shows."""
    bodies: list[dict[str, Any]] = []
    for path in SAMPLES:
        body = json.loads(path.read_text("utf-8"))["body"]
        is_qr = "qrcode" in str(body.get("event", "")).lower()
        names = CREDENTIALS | (IN_QR_EVENTS if is_qr else set())
        bodies.append(poisoned(body, canaries, names))
    password, query = canaries["destination userinfo"], canaries["destination query"]
    destination = f"https://eva:{quote(password)}@host/hook?token={query}"
    for form in bytes_in_each_form(canaries["media bytes"]):
        image = {"jpegThumbnail": form, "mediaKey": form, "fileEncSha256": "AAAA"}
        message = {"imageMessage": image, "base64": form}
        data = {"key": {"id": f"I{len(bodies)}"}, "message": message}
        bodies.append({"event": "messages.upsert", "instance": "loja", "data": data})
    for event in ("new.jwt", "creds.update"):
        token = {"token": canaries["jwt event"], "any": canaries["jwt event"]}
        bodies.append({"event": event, "instance": "loja", "data": token})
    return [{"destination": destination, **body} for body in bodies]


def ways_in(secret: str) -> list[tuple[dict[str, str], str, dict[str, str]]]:
    """Give headers, query and members of the body for each way of the secret."""
    now = int(time.time())
    claims = {"iat": now, "exp": now + 600, "app": "evolution", "action": "webhook"}
    minted = jwt.encode(claims, secret, algorithm="HS256")
    pair = base64.b64encode(f"eva:{secret}".encode()).decode()
    return [
        ({"Authorization": f"Bearer {secret}"}, "", {}),
        ({"Authorization": f"Basic {pair}"}, "", {}),
        ({"apikey": secret}, "", {}),
        ({}, f"?token={quote(secret, safe='')}", {}),
        ({}, f"?token={secret}/messages-upsert", {}),
        ({"Authorization": f"Bearer {minted}"}, "", {}),
        ({}, "", {"apikey": secret}),
    ]
