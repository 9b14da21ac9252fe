"""The operations by which a person talks with the assistant."""

from __future__ import annotations

from typing import Final

from viva_server.api.codes import FAILURES
from viva_server.api.openapi import examples
from viva_server.api.openapi.operation import (
    BODY_CODES,
    EVENT_STREAM,
    Answer,
    Body,
    Operation,
)
from viva_server.api.query import SessionsQuery, SnapshotQuery

_PERSON = ("unauthorized", "unavailable")
_START = (
    *_PERSON,
    *BODY_CODES,
    "bad_idempotency_key",
    "session_not_found",
    "reply_in_progress",
    "idempotency_key_reused",
    "not_storable",
    "too_many_replies",
    "reply_pending",
)

_CHAT_BODY = Body(
    schema="ChatRequest",
    examples={
        "question": examples.CHAT_REQUEST,
        "in a session": {
            "mensagem": "E amanhã?",
            "session_id": examples.SESSION,
            "modo": "curto",
        },
    },
)

_WHICH_SESSION = (
    "Without `session_id` the message goes to the person's newest session, else to a "
    "new one."
)

CHAT: Final = (
    Operation(
        id="ask",
        method="post",
        path="/viva/chat",
        tag="chat",
        summary="Ask, and get the reply in one piece",
        description=f"{_WHICH_SESSION} The reply is stored when the answer comes. One "
        "that broke off with text is 200 with `status` `partial`; a model that failed "
        "without text is 502.",
        access="person",
        headers=("Idempotency-Key", "Last-Event-ID"),
        body=_CHAT_BODY,
        answers=(
            Answer(
                description="The stored reply.",
                schemas=("ChatAnswer",),
                examples={"reply": examples.CHAT_ANSWER},
            ),
        ),
        codes=(*_START, *FAILURES),
    ),
    Operation(
        id="stream",
        method="post",
        path="/viva/chat/stream",
        tag="chat",
        summary="Ask, and get the reply as a stream",
        description=f"{_WHICH_SESSION} Repeated with the same `Idempotency-Key`, or "
        "with the `Last-Event-ID` of the session's newest reply, it goes on with that "
        "reply.",
        access="person",
        headers=("Idempotency-Key", "Last-Event-ID"),
        body=_CHAT_BODY,
        answers=(
            Answer(
                description="The reply, as it is stored.",
                media_type=EVENT_STREAM,
                schemas=("ServerSentEvent",),
                examples={"reply": examples.STREAM, "failure": examples.FAILED_STREAM},
            ),
        ),
        codes=_START,
    ),
    Operation(
        id="resume",
        method="get",
        path="/viva/chat/stream/{message_id}",
        tag="chat",
        summary="Go on with a stream",
        description="From the cursor on, live or long ended, on any process. A cursor "
        "that is unknown or impossible gives `offset` 0.",
        access="person",
        headers=("Last-Event-ID", "after"),
        answers=(
            Answer(
                description="The rest of the reply.",
                media_type=EVENT_STREAM,
                schemas=("ServerSentEvent",),
                examples={"rest": examples.RESUMED_STREAM},
            ),
            Answer(status=204, description="The cursor ends in `:end`: all is there."),
        ),
        codes=(*_PERSON, "message_not_found"),
    ),
    Operation(
        id="again",
        method="post",
        path="/viva/chat/stream/{message_id}/again",
        tag="chat",
        summary="Answer a question again",
        description="A new reply to the same question takes the place of the session's "
        "newest one, and its `seq`. The old one stays stored, with the new one's id in "
        "`meta.replaced_by`, and can be resumed and exported; snapshots and the model "
        "do not see it. Repeated with the same `Idempotency-Key`, which belongs to "
        "this `message_id` alone, it goes on with the new reply.",
        access="person",
        headers=("Idempotency-Key", "Last-Event-ID"),
        answers=(
            Answer(
                description="The new reply, as it is stored.",
                media_type=EVENT_STREAM,
                schemas=("ServerSentEvent",),
                examples={"reply": examples.STREAM, "failure": examples.FAILED_STREAM},
            ),
        ),
        codes=(
            *_PERSON,
            "bad_idempotency_key",
            "message_not_found",
            "reply_in_progress",
            "not_newest",
            "too_many_replies",
        ),
    ),
    Operation(
        id="stop",
        method="post",
        path="/viva/chat/stream/{message_id}/stop",
        tag="chat",
        summary="Stop a reply",
        description="Answered after its text is committed; idempotent.",
        access="person",
        answers=(
            Answer(
                description="The reply's message, as in a snapshot.",
                schemas=("MessageItem",),
                examples={"stopped": examples.STOPPED},
            ),
        ),
        codes=(*_PERSON, "message_not_found"),
    ),
)

SESSIONS: Final = (
    Operation(
        id="snapshot",
        method="get",
        path="/viva/chat/snapshot",
        tag="sessions",
        summary="Show the newest messages of a session",
        description="Oldest first. Without any session: `session_id` null, no "
        "messages.",
        access="person",
        query=SnapshotQuery,
        answers=(
            Answer(
                description="The session as it is stored now.",
                schemas=("Snapshot",),
                examples={"snapshot": examples.SNAPSHOT},
            ),
        ),
        codes=(*_PERSON, "bad_query", "session_not_found"),
        has_head=True,
    ),
    Operation(
        id="list_sessions",
        method="get",
        path="/viva/chat/sessions",
        tag="sessions",
        summary="List the person's sessions",
        description="Newest first: the one that was made, or got a message, last.",
        access="person",
        query=SessionsQuery,
        answers=(
            Answer(
                description="One page.",
                schemas=("SessionPage",),
                examples={"page": examples.SESSIONS},
            ),
        ),
        codes=(*_PERSON, "bad_query"),
        has_head=True,
    ),
    Operation(
        id="add_session",
        method="post",
        path="/viva/chat/session/new",
        tag="sessions",
        summary="Begin a new session",
        access="person",
        body=Body(
            schema="NewSessionRequest",
            examples={"mode": {"modo": "curto"}},
            is_required=False,
        ),
        answers=(
            Answer(
                description="The new session, without messages.",
                schemas=("Snapshot",),
                examples={"session": examples.NEW_SNAPSHOT},
            ),
        ),
        codes=(*_PERSON, *BODY_CODES),
    ),
    Operation(
        id="delete_session",
        method="delete",
        path="/viva/chat/sessions/{session_id}",
        tag="sessions",
        summary="Delete a session",
        description="A live reply in it is stopped first.",
        access="person",
        answers=(Answer(status=204, description="It is gone."),),
        codes=(*_PERSON, "session_not_found"),
    ),
)
