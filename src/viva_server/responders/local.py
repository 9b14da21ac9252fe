"""A responder that needs no model: it talks about the conversation itself."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import Final

from viva_server.responders.local_texts import ENGLISH, PORTUGUESE, Texts
from viva_server.responders.protocol import Conversation

_WORD: Final = re.compile(r"\S+\s*|\s+")
_QUOTED_CHARS: Final = 280
_RECALLED_MESSAGES: Final = 5

# Words that only one of the two languages has.
_ENGLISH_WORDS: Final = re.compile(
    r"\b(?:the|you|your|what|is|are|was|were|did|said|say|hello|hi|hey|thanks?|please"
    r"|how|many|time|my|with|this|that|can|could|would|tell|about|it|good|morning"
    r"|afternoon|evening|who|why|where|when|which|test|of)\b"
)
_PORTUGUESE_WORDS: Final = re.compile(
    r"\b(?:o|os|uma?|voce|que|qual|e|sao|foi|disse|falei|ola|oi|obrigad[oa]|por|favor"
    r"|como|quant[oa]s|horas?|meu|minha|com|isso|est[ea]|pode|sobre|bom|boa|dia|tarde"
    r"|noite|quem|onde|quando|teste|eu|nao|sim|tudo|bem|de|em)\b"
)

_RECALL: Final = re.compile(
    r"\b(o que (?:foi que )?eu (?:te )?(?:disse|falei|escrevi|perguntei)"
    r"|(?:repita|repete|lembra) (?:d?o que eu|(?:d?as )?minhas mensagens)"
    r"|minha (?:ultima|primeira) mensagem"
    r"|what (?:did i|have i|i) (?:just )?(?:say|said|write|written|wrote|tell|told|ask)"
    r"|repeat what i|my (?:last|first) message)\b"
)
_COUNT: Final = re.compile(r"\b(quantas mensagens|how many messages)\b")
_TIME: Final = re.compile(
    r"\b(que horas?|que dia|a hora|data de hoje|hoje e que dia"
    r"|what time|the time|what day|what date|today s date)\b"
)
_MODEL: Final = re.compile(
    r"\b(modelo|viva model|configur\w+|model|llm|set ?up|ajuda|help|quem e voce"
    r"|who are you|o que voce (?:faz|sabe|pode)|what can you do)\b"
)
_GREETING: Final = re.compile(
    r"^(oi+|ola|opa|bom dia|boa tarde|boa noite|e ai|tudo bem"
    r"|hi|hello|hey|good (?:morning|afternoon|evening))\b"
)


def local_time() -> datetime:
    """Return the time of the server's own zone."""
    return datetime.now().astimezone()


async def local_responder(
    conversation: Conversation,
    *,
    now: Callable[[], datetime] = local_time,
    pause_seconds: float = 0.015,
) -> AsyncGenerator[str, None]:
    """Stream an answer word by word, with a pause between two words.

    It greets, repeats what the person said, counts, tells the time, and says how a
    model is configured. Portuguese, or English for a message in English. `now` returns
    an aware datetime.
    """
    for index, word in enumerate(_WORD.findall(answer(conversation, now()))):
        if index:
            await asyncio.sleep(pause_seconds)
        yield word


def answer(conversation: Conversation, now: datetime) -> str:
    """Return the whole answer to the last message; pure."""
    said = [each.content for each in conversation.messages if each.role == "user"]
    message = said[-1] if said else ""
    plain = _plain(message)
    texts = ENGLISH if _is_english(plain) else PORTUGUESE
    if _RECALL.search(plain):
        return _recall(said[:-1], texts)
    if _COUNT.search(plain):
        return texts.count(len(said), len(conversation.messages))
    if _TIME.search(plain):
        return texts.time(now)
    if _MODEL.search(plain):
        return texts.configuration
    if _GREETING.search(plain):
        return f"{texts.greeting(now)} {texts.introduction}"
    return f"{texts.received(_quote(message))}\n\n{texts.configuration}"


def _recall(earlier: list[str], texts: Texts) -> str:
    if not earlier:
        return texts.nothing_said
    shown = earlier[-_RECALLED_MESSAGES:]
    lines = [f"{number}. {_quote(each)}" for number, each in enumerate(shown, 1)]
    return "\n".join([texts.recalled(len(shown)), *lines])


def _quote(message: str) -> str:
    text = " ".join(message.split())
    if len(text) > _QUOTED_CHARS:
        text = text[:_QUOTED_CHARS].rstrip() + "…"
    return f"“{text}”"


def _plain(message: str) -> str:
    """Return lower case words without accents or punctuation, one space between."""
    decomposed = unicodedata.normalize("NFD", message.casefold())
    letters = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(re.findall(r"[a-z0-9]+", letters))


def _is_english(plain: str) -> bool:
    english = len(_ENGLISH_WORDS.findall(plain))
    return english > len(_PORTUGUESE_WORDS.findall(plain))
