"""What is stored holds no secret and no media, and still tells what was there."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from tests.unit.whatsapp.samples import NOW, SAMPLES, tail_of
from viva_server.whatsapp.ingress.delivery import make_delivery
from viva_server.whatsapp.ingress.secrets import REMOVED, _known_name, redact

CANARY = "canary-5f2c9e"
BYTES = bytes(range(256)) * 2
MARK = {
    "removed": "bytes",
    "size": len(BYTES),
    "sha256": hashlib.sha256(BYTES).hexdigest(),
}


@pytest.mark.parametrize(
    ("event", "body"),
    [
        ("call", {"apikey": CANARY}),
        ("call", {"apiKey": CANARY, "api_key": CANARY, "instanceToken": CANARY}),
        ("error", {"data": {"api_key": CANARY}}),
        ("n8n.bot", {"inputs": {"apiKey": [CANARY]}}),
        ("call", {"data": {"Authorization": {"basic": CANARY}, "password": CANARY}}),
        ("call", {"destination": f"https://user:{CANARY}@host/hook"}),
        ("call", {"destination": f"https://host/hook?token={CANARY}#{CANARY}"}),
        ("call", {"destination": f"user:{CANARY}@host/hook"}),
        ("call", {"destination": f"https://[{CANARY}"}),
        ("call", {"server_url": f"https://{CANARY}@host"}),
        ("qrcode.updated", {"data": {"qrcode": {"code": CANARY, "base64": CANARY}}}),
        ("qrcode.updated", {"data": {"qrcode": {"pairingCode": CANARY}}}),
        ("instance.create", {"data": {"qrcode": {"code": CANARY}}}),
        ("QRCode", {"data": {"qrcode": CANARY, "code": CANARY}}),
        ("QRCODE_UPDATED", {"data": {"code": CANARY}}),
        ("connection.update", {"data": {"qrcode": CANARY}}),
        ("new.jwt", {"data": {"jwt": CANARY, "owner": CANARY}}),
        ("new.jwt", {"data": CANARY}),
        ("creds.update", {"data": {"anything": CANARY}}),
        ("messages.edited", {"data": {"appStateSyncKeyShare": {"keys": [CANARY]}}}),
        ("messages.upsert", {"data": {"message": {"x": {"mediaKey": CANARY}}}}),
        ("messages.upsert", {"data": [{"x": {"messageSecret": CANARY}}]}),
    ],
)
def test_a_credential_is_taken_out(event: str, body: dict[str, Any]) -> None:
    assert CANARY not in json.dumps(redact(body, event))


@pytest.mark.parametrize(
    "value",
    [
        {"base64": base64.b64encode(BYTES).decode()},
        {"jpegThumbnail": base64.b64encode(BYTES).decode()},
        {"JPEGThumbnail": base64.b64encode(BYTES).decode()},
        {"x": {"type": "Buffer", "data": list(BYTES)}},
        {"x": {"type": "Buffer", "data": base64.b64encode(BYTES).decode()}},
        {"x": {str(index): byte for index, byte in enumerate(BYTES)}},
        {"x": "data:image/jpeg;base64," + base64.b64encode(BYTES).decode()},
    ],
)
def test_bytes_leave_their_size_and_hash(value: dict[str, Any]) -> None:
    assert list(redact(value, "messages.upsert").values()) == [MARK]


@pytest.mark.parametrize(
    "value",
    [
        {"conversation": "data: 5"},
        {"x": {"type": "Buffer"}},
        {"x": {"type": "Buffer", "data": [1, 999]}},
        {"x": {"0": 1, "1": 2}},
        {"x": {"0": 1, "1": 2, "2": 3, "4": 4}},
        {"x": {"0": "a", "1": "b", "2": "c", "3": "d"}},
        {"apikey": None, "base64": None, "mediaKey": None},
        {"a": [1, 2.5, True, None, "é"]},
    ],
)
def test_what_is_no_secret_and_no_bytes_stays(value: dict[str, Any]) -> None:
    assert redact(value, "messages.upsert") == value


def test_names_that_begin_alike_or_are_long_are_judged_each_by_itself() -> None:
    long = "x" * 100_000
    body = {"api": "a", "apikeys": "b", "Apikey": CANARY, "apikey": CANARY}
    body |= {long: "c", long + "Token": CANARY}
    known = _known_name.cache_info().currsize
    assert redact(dict.fromkeys((long, long + "Token"), None), "call")
    assert _known_name.cache_info().currsize == known, "it holds no body"
    values = list(redact(body, "call").values())
    assert values == ["a", "b", REMOVED, REMOVED, "c", REMOVED]


def test_numbers_and_depths_that_a_jsonb_column_cannot_hold_are_replaced() -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    stored = redact({"b": float("inf"), "c": 10**400, "d": deep}, "call")
    assert stored["b"] is None
    assert stored["c"] is None
    assert "(nested too deep)" in json.dumps(stored["d"])


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_of_a_sample_that_is_stored_is_secret(name: str) -> None:
    sample = SAMPLES[name]
    stored = make_delivery(
        tail_of(sample),
        "token=" + CANARY,
        {**sample["headers"], "Authorization": CANARY, "apikey": CANARY},
        sample["body"],
        trusted=True,
        now=NOW,
    )
    text = stored.body_json + stored.form_json + stored.headers_json + stored.tail
    secrets = [CANARY, *_secrets_of(sample["body"])]
    assert [secret for secret in secrets if secret in text] == []
    assert "/9j/" not in text


def _secrets_of(value: Any) -> list[str]:
    names = {"apikey", "apiKey", "instanceToken", "qrcode", "code", "mediaKey"}
    names |= {"base64", "jpegThumbnail", "thumbnail", "messageSecret"}
    found = []
    if isinstance(value, list):
        found = [secret for item in value for secret in _secrets_of(item)]
    if isinstance(value, dict):
        found = [s for item in value.values() for s in _secrets_of(item)]
        found += [v for k, v in value.items() if k in names and isinstance(v, str)]
    return found
