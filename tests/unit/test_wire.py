"""Requests are checked member by member; every error has its pointer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from viva_server.api import chat, sessions, wire
from viva_server.api.problems import Problem

ID = "0190a5c4-7d3e-7b1a-9f00-00000000abcd"


def refusal(call: Any, *args: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*args)
    return caught.value


def test_a_message_alone_is_enough() -> None:
    request = chat.read_chat_request({"mensagem": "oi"})

    assert (request.mensagem, request.session_id, request.modo) == ("oi", None, None)
    assert request.contexto_len is None


def test_a_whole_request_is_read_and_unknown_members_are_ignored() -> None:
    body = {
        "mensagem": " oi\n",
        "session_id": ID.upper(),
        "modo": "a" * 32,
        "contexto": [1, {}],
        "prompt_extra": 7,
        "novo": [],
    }

    request = chat.read_chat_request(body)

    assert request.mensagem == " oi\n"
    assert request.session_id == ID
    assert request.contexto_len == 2


@pytest.mark.parametrize(
    "text",
    ["a" * 32_000, "😀" * 32_000, "\u0301", "\u202e", "\u200b", "\x1b[31m", "\ufeff"],
)
def test_every_text_that_is_not_blank_is_taken(text: str) -> None:
    assert chat.read_chat_request({"mensagem": text}).mensagem == text


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/mensagem"]),
        ({"mensagem": None}, ["/mensagem"]),
        ({"mensagem": ""}, ["/mensagem"]),
        ({"mensagem": " \t\n\u3000\u2028"}, ["/mensagem"]),
        ({"mensagem": "a" * 32_001}, ["/mensagem"]),
        ({"mensagem": 1}, ["/mensagem"]),
        ({"mensagem": ["oi"]}, ["/mensagem"]),
        ({"mensagem": "oi", "modo": "a" * 33}, ["/modo"]),
        ({"mensagem": "oi", "modo": False}, ["/modo"]),
        ({"mensagem": "oi", "session_id": 7}, ["/session_id"]),
        ({"mensagem": "oi", "session_id": {}}, ["/session_id"]),
        ({"mensagem": "oi", "contexto": {}}, ["/contexto"]),
        ({"mensagem": "oi", "contexto": "[]"}, ["/contexto"]),
        ({"modo": 1, "contexto": 1}, ["/mensagem", "/modo", "/contexto"]),
    ],
)
def test_all_wrong_members_are_named(body: dict[str, Any], pointers: list[str]) -> None:
    error = refusal(chat.read_chat_request, body)

    assert (error.status, error.code) == (422, "validation_error")
    assert [pointer for pointer, _ in error.errors] == pointers


@pytest.mark.parametrize(
    "text",
    ["", " ", "..", "../..", ID[:-1], f"{ID}0", f"{{{ID}}}", f"urn:uuid:{ID}",
     ID.replace("-", ""), f"{ID}\n", "😀", "' OR 1=1 --", "9" * 40, "a" * 1_000_000,
     "0190a5c4-7d3e-7b1a-9f00-00000000abc\u0661"],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_what_is_no_id_is_as_unknown_as_an_id_of_nobody(text: str) -> None:
    body = {"mensagem": "oi", "session_id": text}

    error = refusal(chat.read_chat_request, body)

    assert (error.status, error.code) == (404, "session_not_found")
    assert error.code == wire.not_found("session").code
    assert error.detail == wire.not_found("session").detail


def test_a_new_session_needs_nothing() -> None:
    assert sessions.read_new_session({}).modo is None
    assert sessions.read_new_session({"modo": "livre"}).modo == "livre"
    assert refusal(sessions.read_new_session, {"modo": 1}).status == 422


def test_answers_have_the_names_of_the_wire() -> None:
    answer = chat.ChatAnswer(
        resposta="oi",
        session_id=ID,
        message_id=ID,
        user_message_id=ID,
        status="complete",
        finish_reason="stop",
    )

    assert msgspec.json.decode(wire.to_json(answer)) == {
        "resposta": "oi",
        "midia": [],
        "session_id": ID,
        "message_id": ID,
        "user_message_id": ID,
        "status": "complete",
        "finish_reason": "stop",
    }


def test_a_snapshot_has_the_names_of_the_wire() -> None:
    message = sessions.MessageItem(
        id=ID,
        seq=1,
        tipo=sessions.tipo_of("user"),
        conteudo="oi",
        modo=None,
        anexos=[],
        meta={"contexto_len": 0},
        status="complete",
        finish_reason=None,
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )

    assert (
        wire.to_json(sessions.Snapshot(session_id=ID, messages=[message]))
        == (
            f'{{"session_id":"{ID}","modo":null,"messages":[{{"id":"{ID}","seq":1,'
            '"tipo":"usuario","conteudo":"oi","modo":null,"anexos":[],'
            '"meta":{"contexto_len":0},"status":"complete","finish_reason":null,'
            '"created_at":"2026-01-02T03:04:05Z"}],"has_more":false,"active_reply":null}'
        ).encode()
    )


def test_no_session_at_all_is_an_empty_snapshot() -> None:
    assert wire.to_json(sessions.Snapshot()) == (
        b'{"session_id":null,"modo":null,"messages":[],"has_more":false,'
        b'"active_reply":null}'
    )


def test_the_shapes_have_a_json_schema() -> None:
    shapes = [
        chat.ChatRequest,
        chat.ChatAnswer,
        sessions.Snapshot,
        sessions.SessionPage,
    ]
    _, schemas = msgspec.json.schema_components(shapes)

    mensagem = schemas["ChatRequest"]["properties"]["mensagem"]
    assert (mensagem["minLength"], mensagem["maxLength"]) == (1, 32_000)
