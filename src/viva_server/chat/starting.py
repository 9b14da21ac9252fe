"""Storing a person's turn, and whether it may be stored without an answer."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

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
from viva_server.store.driver.database import Database
from viva_server.store.health import Health
from viva_server.store.replies import NewTurn, OverLimit, Started, start_reply

logger = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 0.05

SETTLE_SECONDS = 30.0
"""So long after a start nothing of it takes effect any more.

The server ends a statement after 6 s, and one whose client is gone after 2 s.
"""

# unique_violation, foreign_key_violation: what another transaction did meanwhile.
_CHANGED_MEANWHILE = frozenset({"23505", "23503"})


class Attempt:
    """One message on its way into the database, under one id however often it is sent.

    `is_unanswered`: `turn` was sent and nobody knows yet whether it is stored. Its row
    may appear until `until` (monotonic). `is_given_up`: the caller was told so.
    """

    def __init__(self, question: Question) -> None:
        self.message_id = question.message_id or new_id()
        self.is_unanswered = False
        self.is_given_up = False
        self.until = float("inf")
        self.turn: NewTurn | None = None

    def sent(self, turn: NewTurn) -> None:
        """Note that a start goes out now."""
        self.turn = turn
        self.is_unanswered = True
        self.until = monotonic() + SETTLE_SECONDS


def new_turn(question: Question, start: Start, message_id: str) -> NewTurn:
    """Give the rows of a turn their ids."""
    return NewTurn(
        person=question.person,
        session_id=start.session_id,
        expected_count=start.expected_count,
        ask=start.user_message_id is None,
        user_message_id=start.user_message_id or question.user_message_id or new_id(),
        message_id=message_id,
        content=question.content,
        title=title_of(question.content) or None,
        mode=question.mode,
        context_length=question.context_length,
        key=question.key,
        body_sha256=question.body_sha256,
        replaces=start.replaces,
    )


async def store_turn(
    database: Database,
    owner: str,
    turn: NewTurn,
    attempt: Attempt,
    *,
    live_limit: int,
    health: Health,
) -> Started | OverLimit | None:
    """Store a turn; None: look again, since the session has changed since the look.

    That is also so where the answer was lost: `attempt` says it then, for good.

    Raises:
        OverloadedError: this owner has been declared dead; nothing is stored.
        RowError: the message cannot be stored, whenever it is tried.
        StoreUnavailableError: nothing is stored.
    """
    was_unanswered = attempt.is_unanswered
    attempt.sent(turn)
    began = monotonic()
    try:
        started = await start_reply(database, owner, turn, live_limit=live_limit)
    except StoreError as error:
        health.failed(began, error)
        is_lost = isinstance(error, StoreUnavailableError) and error.outcome_unknown
        attempt.is_unanswered = was_unanswered or is_lost
        if not (is_lost or _may_pass(error)):
            raise
        logger.debug("Message %s is looked for: %s", turn.message_id, error)
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
        return None
    except FencedError:
        attempt.is_unanswered = was_unanswered
        raise OverloadedError from None
    health.stored()
    attempt.is_unanswered = was_unanswered
    return started


def _may_pass(error: StoreError) -> bool:
    if isinstance(error, ConstraintError):
        return error.sqlstate in _CHANGED_MEANWHILE
    return isinstance(error, TransientStoreError)
