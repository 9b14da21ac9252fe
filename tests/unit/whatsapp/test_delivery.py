"""A delivery is bounded, whatever its body holds."""

from __future__ import annotations

from typing import Any

from viva_server.whatsapp.ingress.delivery import (
    KEPT_HEADERS,
    MAX_STORED_BYTES,
    Delivery,
    make_delivery,
)


def batch(count: int, chars: int) -> Delivery:
    data: list[Any] = [
        {
            "key": {"remoteJid": "5511988887777@s.whatsapp.net", "id": f"M{number}"},
            "message": {"conversation": "a" * chars},
        }
        for number in range(count)
    ]
    body = {"event": "messages.upsert", "instance": "loja", "data": data}
    headers = dict.fromkeys(KEPT_HEADERS, "h" * 10_000)
    return make_delivery("/x" * 5000, "", headers, body, trusted=True)


def test_the_texts_of_a_small_batch_are_kept_whole() -> None:
    assert batch(3, 50_000).form["texts"] == ["a" * 50_000] * 3


def test_the_texts_of_a_large_batch_are_cut_to_their_beginnings() -> None:
    delivery = batch(40, 50_000)
    assert delivery.form["texts"] == ["a" * 1000] * 40
    assert {item["text"] for item in delivery.form["items"]} == {"a" * 1000}
    assert len(delivery.form_json) < 2**18


def test_a_large_body_leaves_a_hash_and_long_headers_and_tails_are_cut() -> None:
    delivery = batch(40, 50_000)
    assert '"removed":"body"' in delivery.body_json
    assert len(delivery.headers_json) < 2000
    assert len(delivery.tail) <= 1000


def test_a_secret_is_taken_out_of_all_parts_of_a_delivery() -> None:
    secret = "a-secret-of-the-hook"
    delivery = make_delivery(
        f"/call/{secret}",
        "",
        {"User-Agent": secret},
        {"event": "call", "instance": secret},
        trusted=True,
        secrets=(secret,),
    )
    parts = (delivery.form_json, delivery.body_json, delivery.headers_json)
    assert secret not in "".join((*parts, delivery.tail, repr(delivery.form)))


def test_a_body_of_just_the_limit_is_stored_whole() -> None:
    def stored(size: int) -> Delivery:
        body = {"event": "call", "data": "x" * (size - len(empty))}
        return make_delivery("", "", {}, body, trusted=True)

    empty = '{"event":"call","data":""}'
    assert len(stored(MAX_STORED_BYTES).body_json) == MAX_STORED_BYTES
    assert '"removed":"body"' in stored(MAX_STORED_BYTES + 1).body_json


def test_the_texts_of_a_batch_of_just_the_limit_are_kept_whole() -> None:
    assert batch(32, 2**15).form["texts"] == ["a" * 2**15] * 32
    assert batch(32, 2**15 + 1).form["texts"] == ["a" * 1000] * 32


def test_the_size_of_a_delivery_is_that_of_all_its_texts() -> None:
    delivery = batch(3, 100)
    parts = (delivery.body_json, delivery.form_json, delivery.headers_json)
    assert all(len(part) > 2 for part in parts)
    assert delivery.size == sum(map(len, parts))
