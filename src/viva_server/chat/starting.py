"""Storing a person's turn, and finding out whether it was stored."""

from __future__ import annotations

import asyncio
import logging

from viva_server.chat.admission import Question, Start, title_of
from viva_server.errors import (
    ConstraintError,
    FencedError,
    OverloadedError,
    StoreError,
    StoreUnavailableError,
    TransientStoreError,
)
from viva_server.ids import new_id
from viva_server.store.db import Database
from viva_server.store.replies import load_reply
from viva_server.store.turns import NewTurn, OverLimit, Started, start_reply

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 0.05
_SETTLE_SECONDS = 5.0


def new_turn(question: Question, start: Start) -> NewTurn:
    """Give the rows of a turn their ids."""
    return NewTurn(
        person=question.person,
        session_id=start.session_id,
        expected_count=start.expected_count,
        ask=start.user_message_id is None,
        user_message_id=start.user_message_id or question.user_message_id or new_id(),
        message_id=question.message_id or new_id(),
        content=question.content,
        title=title_of(question.content) or None,
        mode=question.mode,
        context_length=question.context_length,
        key=question.key,
        body_sha256=question.body_sha256,
        replaces=start.replaces,
    )


async def store_turn(
    database: Database, owner: str, turn: NewTurn, *, live_limit: int
) -> Started | OverLimit | None:
    """Store a turn and settle a commit whose answer was lost.

    None means that the session has changed since the look: look again.

    Raises:
        OverloadedError: this owner has been declared dead.
        StoreUnavailableError: nothing is known; see `_settle`.
    """
    try:
        return await start_reply(database, owner, turn, live_limit=live_limit)
    except (ConstraintError, TransientStoreError):
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        return None
    except FencedError:
        raise OverloadedError from None
    except StoreUnavailableError as error:
        if not error.outcome_unknown:
            raise
        logger.warning("Reading back whether message %s is stored", turn.message_id)
        return await _settle(database, turn, error)


async def _settle(
    database: Database, turn: NewTurn, unanswered: StoreUnavailableError
) -> Started | None:
    """Read back whether a turn was stored.

    If that cannot be known in time, or the statement takes effect later still, the
    strays' collector (`chat.runtime`) ends the reply that nobody generates.
    """
    until = asyncio.get_running_loop().time() + _SETTLE_SECONDS
    while asyncio.get_running_loop().time() < until:
        try:
            stored = await load_reply(database, turn.person, turn.message_id)
        except StoreError:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            continue
        return None if stored is None else Started(stored.seq, stored.mode)
    raise unanswered
