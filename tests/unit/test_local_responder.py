"""The responder that needs no model."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from viva_server.responders import Conversation, ConversationMessage, local_responder
from viva_server.responders.local import answer

BRASILIA = timezone(timedelta(hours=-3))
FRIDAY = datetime(2026, 10, 2, 14, 5, tzinfo=BRASILIA)


def conversation(*texts: str) -> Conversation:
    """The user's and the assistant's messages in turn, the user's last."""
    roles = ("user", "assistant") if len(texts) % 2 else ("assistant", "user")
    return Conversation(
        messages=tuple(
            ConversationMessage("user" if roles[i % 2] == "user" else "assistant", text)
            for i, text in enumerate(texts)
        ),
        session_id="s",
        user_id="u",
        channel="web",
    )


def answered(*texts: str) -> str:
    return answer(conversation(*texts), FRIDAY)


async def test_a_reply_comes_in_several_deltas() -> None:
    deltas = [
        delta
        async for delta in local_responder(
            conversation("teste persistencia"), now=lambda: FRIDAY, pause_seconds=0
        )
    ]
    assert len(deltas) > 10
    assert all(deltas)
    assert "".join(deltas) == answered("teste persistencia")


async def test_the_servers_own_clock_does() -> None:
    stream = local_responder(conversation("que horas são?"))
    assert (await anext(stream)).strip() == "Agora"
    await stream.aclose()


def test_any_message_is_quoted_and_the_way_to_a_model_is_told() -> None:
    text = answered("teste persistencia")
    assert "“teste persistencia”" in text
    for variable in ("VIVA_MODEL_URL", "VIVA_MODEL_NAME", "VIVA_MODEL_API_KEY"):
        assert variable in text
    assert "Nenhum modelo" in text


def test_a_message_in_english_is_answered_in_english() -> None:
    text = answered("what is the best way to learn Rust?")
    assert "No language model is configured" in text
    assert "VIVA_MODEL_URL" in text


@pytest.mark.parametrize(
    ("message", "start"),
    [
        ("Olá!", "Boa tarde!"),
        ("oi, tudo bem?", "Boa tarde!"),
        ("BOM DIA", "Boa tarde!"),
        ("Hello there", "Good afternoon!"),
    ],
)
def test_it_greets_by_the_time_of_day(message: str, start: str) -> None:
    assert answered(message).startswith(start)


@pytest.mark.parametrize(
    ("hour", "greeting"), [(5, "dia"), (12, "tarde"), (23, "noite")]
)
def test_the_day_has_three_parts(hour: int, greeting: str) -> None:
    text = answer(conversation("oi"), FRIDAY.replace(hour=hour))
    assert text.split("!")[0].endswith(greeting)


@pytest.mark.parametrize(
    "question",
    ["o que eu disse?", "O que foi que eu falei?", "Qual foi minha última mensagem?"],
)
def test_it_repeats_what_the_person_said(question: str) -> None:
    text = answered(
        "meu gato se chama Tom", "Que nome!", "ele tem 3 anos", "Ok", question
    )
    assert "1. “meu gato se chama Tom”\n2. “ele tem 3 anos”" in text
    assert "Que nome!" not in text
    assert question not in text


def test_it_repeats_in_english_too() -> None:
    text = answered("my cat is Tom", "Nice!", "what did I say?")
    assert text == "Before this message you said:\n1. “my cat is Tom”"


def test_in_the_first_message_there_is_nothing_to_repeat() -> None:
    assert (
        answered("o que eu disse?") == "Esta é a sua primeira mensagem nesta conversa."
    )


def test_it_counts_messages() -> None:
    text = answered("oi", "olá", "quantas mensagens?")
    assert text == (
        "Vejo 3 mensagens nesta conversa, contando a de agora; as suas são 2."
    )


def test_it_tells_the_time_with_its_zone() -> None:
    assert answered("que horas são?") == (
        "Agora são 14:05 de sexta-feira, 02/10/2026 (UTC-0300)."
    )
    assert answered("what time is it?") == (
        "It is 14:05 on Friday, 2026-10-02 (UTC-0300)."
    )


def test_a_long_message_is_quoted_in_part() -> None:
    assert len(answered("palavra " * 4000)) < 1500


@pytest.mark.parametrize("message", ["", "?", "😀", "{0} {x} %s", "\u202e\u0301"])
def test_every_message_has_an_answer(message: str) -> None:
    assert "VIVA_MODEL_URL" in answered(message)
