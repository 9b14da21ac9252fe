"""The end of a turn's reply: its closing and what is sent of it are one statement."""

from __future__ import annotations

from viva_server.ids import new_id
from viva_server.store.replies import ClosedReply
from viva_server.store.statements import Statements
from viva_server.store.whatsapp_chats import Parted, close_turns
from viva_server.whatsapp.rules import FAILURE_TEXT
from viva_server.whatsapp.splitting import split_reply


async def close_turn_replies(
    database: Statements, owner: str, replies: list[ClosedReply]
) -> set[str]:
    """Close replies of turns; a whole one is put into the outbox by the same statement.

    Gives the ids of those that are stored.

    Raises:
        FencedError: another process has declared this owner dead.
    """
    return await close_turns(database, owner, [_parted(reply) for reply in replies])


def _parted(reply: ClosedReply) -> Parted:
    # A reply of blanks alone is none, and Evolution refuses an empty text.
    texts = split_reply(reply.text) or [FAILURE_TEXT]
    parts = texts if reply.status == "complete" else []
    return Parted(reply, [(new_id(), part) for part in parts])
