"""The sentences of the local responder, in Portuguese and English."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """One language; a field with braces is a pattern for the method of its name."""

    greetings: tuple[str, str, str]  # morning, afternoon, evening
    introduction: str
    configuration: str
    nothing_said: str
    weekdays: tuple[str, ...]  # Monday first
    time_pattern: str
    count_pattern: str
    received_pattern: str
    recalled_one: str
    recalled_many: str

    def greeting(self, now: datetime) -> str:
        """Greet as the time of the day asks for."""
        part = 0 if 5 <= now.hour < 12 else 1 if 12 <= now.hour < 18 else 2
        return self.greetings[part]

    def time(self, now: datetime) -> str:
        """Tell time, weekday and date, with the zone."""
        return self.time_pattern.format(
            now=now, weekday=self.weekdays[now.weekday()], zone=now.strftime("%z")
        )

    def count(self, from_user: int, in_all: int) -> str:
        """Say how many messages the conversation has."""
        return self.count_pattern.format(from_user=from_user, in_all=in_all)

    def received(self, quote: str) -> str:
        """Quote the message that has no better answer."""
        return self.received_pattern.format(quote=quote)

    def recalled(self, number: int) -> str:
        """Introduce what the person said before."""
        if number == 1:
            return self.recalled_one
        return self.recalled_many.format(number=number)


PORTUGUESE: Final = Texts(
    greetings=("Bom dia!", "Boa tarde!", "Boa noite!"),
    introduction=(
        "Eu sou a VIVA, respondendo sem modelo de linguagem. Posso repetir o que você "
        "disse, contar as mensagens e dizer as horas. Pergunte “ajuda” para saber "
        "como ligar um modelo."
    ),
    configuration=(
        "Nenhum modelo de linguagem está configurado neste servidor, por isso respondo "
        "apenas sobre a própria conversa: pergunte “o que eu disse?”, “quantas "
        "mensagens?” ou “que horas são?”. Para ligar um modelo compatível com a API da "
        "OpenAI, defina VIVA_MODEL_URL, VIVA_MODEL_NAME e, se ele pedir chave, "
        "VIVA_MODEL_API_KEY, e reinicie o servidor."
    ),
    nothing_said="Esta é a sua primeira mensagem nesta conversa.",
    weekdays=(
        "segunda-feira",
        "terça-feira",
        "quarta-feira",
        "quinta-feira",
        "sexta-feira",
        "sábado",
        "domingo",
    ),
    time_pattern="Agora são {now:%H:%M} de {weekday}, {now:%d/%m/%Y} (UTC{zone}).",
    count_pattern=(
        "Vejo {in_all} mensagens nesta conversa, contando a de agora; as suas "
        "são {from_user}."
    ),
    received_pattern="Recebi a sua mensagem: {quote}. Ela está guardada.",
    recalled_one="Antes desta mensagem, você disse:",
    recalled_many="Antes desta mensagem, você disse (as {number} últimas):",
)

ENGLISH: Final = Texts(
    greetings=("Good morning!", "Good afternoon!", "Good evening!"),
    introduction=(
        "I am VIVA, answering without a language model. I can repeat what you said, "
        "count the messages and tell the time. Ask for “help” to learn how to "
        "connect a model."
    ),
    configuration=(
        "No language model is configured on this server, so I only answer about the "
        "conversation itself: ask “what did I say?”, “how many messages?” or “what "
        "time is it?”. To connect a model with an OpenAI-compatible API, set "
        "VIVA_MODEL_URL, VIVA_MODEL_NAME and, if it wants a key, VIVA_MODEL_API_KEY, "
        "and restart the server."
    ),
    nothing_said="This is your first message in this conversation.",
    weekdays=(
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ),
    time_pattern="It is {now:%H:%M} on {weekday}, {now:%Y-%m-%d} (UTC{zone}).",
    count_pattern=(
        "I see {in_all} messages in this conversation, this one included; "
        "{from_user} of them are yours."
    ),
    received_pattern="I received your message: {quote}. It is stored.",
    recalled_one="Before this message you said:",
    recalled_many="Before this message you said (the last {number}):",
)
