"""Responders: what turns a conversation into the text of a reply."""

from viva_server.responders.protocol import (
    Conversation,
    ConversationMessage,
    EndOfReply,
    Responder,
)

__all__ = ("Conversation", "ConversationMessage", "EndOfReply", "Responder")
