"""What people are told when a reply ends without a word."""

from __future__ import annotations

from typing import NamedTuple


class Failure(NamedTuple):
    """A failure in the user's words (Portuguese), and for programs."""

    code: str
    text: str
    retryable: bool


_TRY_AGAIN = "Não consegui responder agora. Tente de novo em instantes."

_TEXTS = {
    "upstream_timeout": "A resposta demorou demais para começar. Tente de novo.",
    "reply_too_slow": "A resposta demorou demais. Tente de novo.",
    "empty_reply": "O assistente não deu nenhuma resposta. Tente de novo.",
    "crashed": "O servidor foi interrompido antes de responder. Tente de novo.",
    "limit": "A resposta passou do limite permitido.",
    "content_filter": "O assistente não pode responder a esta mensagem.",
    "upstream_rejected": "O assistente está mal configurado. Avise o responsável.",
}

_FINAL = frozenset({"content_filter", "upstream_rejected", "responder_failed"})


def describe_failure(code: str | None) -> Failure:
    """Describe the failure of a stored reply by its `error_code`."""
    code = code or "upstream_error"
    return Failure(code, _TEXTS.get(code, _TRY_AGAIN), code not in _FINAL)
