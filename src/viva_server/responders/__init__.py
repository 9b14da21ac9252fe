"""Responders: what turns a conversation into the text of a reply."""

from viva_server.responders.local import local_responder
from viva_server.responders.openai import OpenAIResponder, model_session
from viva_server.responders.persona import DEFAULT_SYSTEM_PROMPT, SystemPrompt
from viva_server.responders.protocol import (
    Conversation,
    ConversationMessage,
    EndOfReply,
    Responder,
)

__all__ = (
    "DEFAULT_SYSTEM_PROMPT",
    "Conversation",
    "ConversationMessage",
    "EndOfReply",
    "OpenAIResponder",
    "Responder",
    "SystemPrompt",
    "local_responder",
    "model_session",
)
