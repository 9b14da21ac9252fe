"""What a new message does: start a reply, follow one, or be refused. No I/O."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from viva_server.store.people import Person
from viva_server.store.replies import TurnState


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A user's message as it came in, with all that makes it a repetition of another.

    `cursor_id` is the message that a `Last-Event-ID` names, where it does not end in
    `:end`. A caller that may ask again for the same message chooses the ids: with a
    `user_message_id` that is the session's newest, only a new reply is made. With
    `replaces` that reply's question is asked again; see `again`.
    """

    person: Person
    content: str = ""
    session_id: str | None = None
    mode: str | None = None
    context_length: int | None = None
    key: str | None = None
    cursor_id: str | None = None
    cursor_offset: int = 0
    user_message_id: str | None = None
    message_id: str | None = None
    replaces: str | None = None

    @classmethod
    def again(
        cls,
        person: Person,
        message_id: str,
        *,
        key: str | None,
        cursor_id: str | None = None,
        cursor_offset: int = 0,
    ) -> Question:
        """Ask for another reply in the place of `message_id`, the session's newest.

        The key is scoped to that reply: no key of a message has a line break in it.
        """
        return cls(
            person=person,
            key=None if key is None else f"again {message_id}\n{key}",
            cursor_id=cursor_id,
            cursor_offset=cursor_offset,
            replaces=message_id,
        )

    @property
    def body_sha256(self) -> bytes:
        """Hash of what has to be equal under one Idempotency-Key."""
        parts = (self.content, self.session_id or "", self.mode or "")
        # Each part with its length: no two bodies give the same bytes.
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Follow:
    """The reply exists already: read it."""

    message_id: str


@dataclass(frozen=True, slots=True)
class Start:
    """A new reply; `user_message_id` is set where the stored question is answered.

    `replaces` is the reply whose place it takes.
    """

    session_id: str
    expected_count: int
    user_message_id: str | None
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class FirstSession:
    """The person has no session yet: make one and look again."""


@dataclass(frozen=True, slots=True)
class Supersede:
    """Nobody reads the live reply any more: end it and look again."""

    message_id: str


@dataclass(frozen=True, slots=True)
class InProgress:
    """Somebody reads the live reply of the session."""

    message_id: str


@dataclass(frozen=True, slots=True)
class NoMessage:
    """The person has no such reply."""


@dataclass(frozen=True, slots=True)
class NotNewest:
    """The reply that is to be replaced is not its session's newest one."""


@dataclass(frozen=True, slots=True)
class OtherBody:
    """The key belongs to another body."""


@dataclass(frozen=True, slots=True)
class NoSession:
    """The person has no such session."""


Decision = (
    Follow
    | Start
    | FirstSession
    | Supersede
    | InProgress
    | NoMessage
    | NotNewest
    | OtherBody
    | NoSession
)


def decide(question: Question, state: TurnState) -> Decision:
    """Apply the rules in their order: key, cursor, retry of a failed one, one live."""
    if state.key_message_id is not None:
        return Follow(state.key_message_id) if state.same_body else OtherBody()
    if state.session_id is None:
        if question.replaces is not None:
            return NoMessage()
        return FirstSession() if question.session_id is None else NoSession()
    if question.replaces not in {None, state.newest_id}:
        return NotNewest()
    if _names_newest(question, state):
        assert state.newest_id is not None, "the cursor equals it"
        return Follow(state.newest_id)
    if state.live_id is not None:
        return (
            InProgress(state.live_id)
            if state.live_is_read
            else Supersede(state.live_id)
        )
    assert state.message_count is not None, "the session has a count"
    return Start(
        state.session_id,
        state.message_count,
        state.user_message_id if _is_retry(question, state) else None,
        question.replaces,
    )


def _is_retry(question: Question, state: TurnState) -> bool:
    if question.replaces is not None:
        return True
    if question.user_message_id is not None:
        return question.user_message_id == state.user_message_id
    return state.newest_status == "failed" and bool(state.same_text)


def _names_newest(question: Question, state: TurnState) -> bool:
    return (
        question.cursor_id is not None
        and question.cursor_id == state.newest_id
        and state.newest_role == "assistant"
        and bool(state.same_text)
    )


def title_of(content: str) -> str:
    """Give the first words of a message, for the list of sessions."""
    words = " ".join(content.split())
    if len(words) <= _TITLE_CHARS:
        return words
    return words[: _TITLE_CHARS - 1].rsplit(" ", 1)[0] + "…"


_TITLE_CHARS = 60
