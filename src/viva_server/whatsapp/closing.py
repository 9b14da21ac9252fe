"""The end of a turn's reply: its closing and what is sent of it are one statement."""

from __future__ import annotations

from viva_server.ids import new_id
from viva_server.store.replies import ClosedReply
from viva_server.store.statements import Statements
from viva_server.store.whatsapp_chats import Parted, close_turns
from viva_server.whatsapp.rules import FAILURE_TEXT, is_sent
from viva_server.whatsapp.splitting import split_reply


async def close_turn_replies(
    database: Statements, owner: str, replies: list[ClosedReply]
) -> None:
    """Close replies of turns; the same statement puts what is sent into the outbox.

    Raises:
        FencedError: another process has declared this owner dead.
    """
    await close_turns(database, owner, [_parted(reply) for reply in replies])


def _parted(reply: ClosedReply) -> Parted:
    # A reply of blanks alone is none, and Evolution refuses an empty text.
    texts = split_reply(reply.text) or [FAILURE_TEXT]
    parts = texts if is_sent(reply.status, reply.finish_reason) else []
    return Parted(reply, [(new_id(), part) for part in parts])
