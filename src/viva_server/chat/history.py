"""What the model sees of a session, in a shape that strict servers take; no I/O.

Many servers refuse (400) a conversation that does not begin with the user, in which one
role speaks twice in a row, or which is too long for the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile

from viva_server.responders.protocol import ConversationMessage
from viva_server.words import Channel

_ASSISTANT_MARK = "[assistente]"


def shaped(
    stored: Sequence[ConversationMessage], channel: Channel
) -> tuple[ConversationMessage, ...]:
    """Make a conversation of stored messages, oldest first, the last a user's.

    It begins with the user, and messages of one role in a row are joined by a blank
    line. What stands before the first user's message is dropped; on WhatsApp, where the
    shop may have written first, it is put in front of it, each line marked.
    """
    opening = list(takewhile(lambda each: each.role == "assistant", stored))
    contents = [
        (role, [each.content for each in run])
        for role, run in groupby(stored[len(opening) :], lambda each: each.role)
    ]
    if opening and contents and channel == "whatsapp":
        contents[0][1][:0] = [_marked(each.content) for each in opening]
    return tuple(ConversationMessage(role, "\n\n".join(c)) for role, c in contents)


def shortening(
    stored: Sequence[ConversationMessage], channel: Channel
) -> Iterator[tuple[ConversationMessage, ...]]:
    """Give the conversation, then shorter ones for a server that refuses it.

    Of the newest half of the messages, then of the question alone; none of them twice.
    """
    given = None
    for count in (len(stored), max(len(stored) // 2, 1), 1):
        conversation = shaped(stored[-count:], channel)
        if conversation != given:
            yield conversation
        given = conversation


def _marked(text: str) -> str:
    lines = (line for line in text.splitlines() if line.strip())
    return "\n".join(f"{_ASSISTANT_MARK} {line}" for line in lines)
