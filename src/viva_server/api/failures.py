"""What people are told when a reply ends without a word."""

from __future__ import annotations

from typing import NamedTuple

from viva_server.chat.reply import Ending


class Failure(NamedTuple):
    """A failure in the user's words (Portuguese), and for programs."""

    code: str
    text: str
    retryable: bool


_TRY_AGAIN = "Não consegui responder agora. Tente de novo em instantes."

_TEXTS = {
    "upstream_timeout": "A resposta demorou demais para começar. Tente de novo.",
    "reply_too_slow": "A resposta demorou demais. Tente de novo.",
    "upstream_empty": "O assistente não deu nenhuma resposta. Tente de novo.",
    "crashed": "O servidor foi interrompido antes de responder. Tente de novo.",
    "limit": "A resposta passou do limite permitido.",
    "content_filter": "O assistente não pode responder a esta mensagem.",
    "length": "A resposta passou do limite do modelo.",
    "insufficient_quota": "O assistente está sem saldo. Avise o responsável.",
    "upstream_refused": "O assistente está mal configurado. Avise o responsável.",
}


def describe_failure(ending: Ending) -> Failure:
    """Describe the ending of a stored reply that failed."""
    code = ending.error_code or ending.finish_reason
    return Failure(code, _TEXTS.get(code, _TRY_AGAIN), not ending.error_is_final)
