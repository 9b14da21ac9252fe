"""One turn of a WhatsApp chat: what has gathered becomes one message and one reply.

What an owner writes touches only chats that are still its own: no row means that
another process has taken them over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from viva_server.chat.admission import Question
from viva_server.chat.reply import Ending, LiveReply
from viva_server.chat.service import ChatService
from viva_server.config import Config
from viva_server.counters import WhatsAppCounters
from viva_server.errors import (
    OverloadedError,
    ReplyInProgressError,
    ReplyPendingError,
    RowError,
    StoreError,
    TooManyRepliesError,
)
from viva_server.store.driver.database import Database
from viva_server.store.health import Health
from viva_server.store.people import Person
from viva_server.values import FinishReason, Status, new_id
from viva_server.whatsapp import rules
from viva_server.whatsapp.conversation.outbox import close_turn_replies
from viva_server.whatsapp.events.addresses import LID
from viva_server.whatsapp.evolution.client import EvolutionClient

logger = logging.getLogger(__name__)

WINDOW_SECONDS: Final = 600.0
"""The time in which the answers of a chat are counted."""

_SOON_SECONDS: Final = 1.0
_ORPHAN_SECONDS: Final = 10.0
"""A reply without an ending is closed by the collector of orphans in that time."""
_TYPING_SECONDS: Final = 10.0


class Claim(NamedTuple):
    """A chat that a process has taken; `jid` is where its replies go."""

    owner: str
    instance: str
    jid: str


class _ChatState(NamedTuple):
    """All that decides what is done in a claimed chat: the row of load_chat."""

    is_paused: bool | None
    paused_by: float | None
    turn_id: str | None
    user_message_id: str | None
    runs: int | None
    reply_status: Status | None
    finish_reason: FinishReason | None
    error_code: str | None
    error_is_final: bool | None
    full_seconds: float | None
    phone_jid: str | None
    lid_chat: str | None


class _Message(NamedTuple):
    """A person's message that wants an answer; times are epoch seconds."""

    message_id: str
    kind: str
    text: str | None
    sent_at: float
    age_seconds: float


class _Turn(NamedTuple):
    """The running turn of a claimed chat."""

    claim: Claim
    id: str
    user_message_id: str
    runs: int


class _TurnLine:
    """What makes a turn a reader: a connection that does not close while it runs."""

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Nothing waits at the other side."""


class Turns:
    """Does the work of claimed chats. Chat service and typist stay the caller's.

    Args:
        typist: shows that an answer is being written; None: nobody does.
        counters: told how each run of a turn ended.
        on_sends: called when something is in the outbox.
        health: says whether the age of a message can be told.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        chat: ChatService,
        *,
        typist: EvolutionClient | None,
        counters: WhatsAppCounters,
        on_sends: Callable[[], None],
        health: Health,
    ) -> None:
        self._health = health
        self._config = config
        self._database = database
        self._chat = chat
        self._typist = typist
        self._counters = counters
        self._on_sends = on_sends
        self._typing: set[asyncio.Task[None]] = set()

    async def work(self, claim: Claim) -> None:
        """Do what a chat needs, then give it back.

        A cancellation leaves the chat to whoever releases its owner or declares it
        dead.
        """
        try:
            again_seconds = await self._work(claim)
        except StoreError as error:
            logger.warning("A WhatsApp turn waits for the database: %s", error)
            again_seconds = _SOON_SECONDS
        except Exception:
            logger.exception("A WhatsApp turn failed")
            again_seconds = _ORPHAN_SECONDS
        while True:
            try:
                await self.release(claim, again_seconds)
            except StoreError:
                await asyncio.sleep(_SOON_SECONDS)
            except Exception:
                # A chat that is kept is answered by nobody until this process ends.
                logger.exception("A WhatsApp chat is not given back")
                await asyncio.sleep(_ORPHAN_SECONDS)
            else:
                return

    async def release(self, claim: Claim, again_seconds: float | None) -> None:
        """Give a chat back; without `again_seconds` only a new message makes it due."""
        await self._database.execute(
            "release_chat", **claim._asdict(), again_seconds=again_seconds
        )

    async def close(self) -> None:
        """Stop showing the typing state."""
        for task in self._typing:
            task.cancel()
        await asyncio.gather(*self._typing, return_exceptions=True)

    async def _work(self, claim: Claim) -> float | None:
        """Do the work; gives in how many seconds there is more, None: not by itself."""
        row = await self._database.fetch_one(
            "load_chat",
            **claim._asdict(),
            answers=self._config.whatsapp_replies_per_10_minutes,
            window_seconds=WINDOW_SECONDS,
        )
        if row is None:
            return None
        state = _ChatState._make(row)
        if state.turn_id is not None:
            seconds = await self._go_on(claim, state, state.turn_id)
            # The claim has taken the time of messages that came while the turn waited.
            return 0.0 if seconds is None else seconds
        if await self._merge(claim, state):
            return 0.0
        return await self._begin(claim, state)

    async def _merge(self, claim: Claim, state: _ChatState) -> bool:
        """Make the chats under a person's lid and phone one, with one session.

        Nothing is done while the lid's chat is worked on or has a turn of its own.
        """
        if claim.jid.endswith(LID) and state.phone_jid:
            lid, jid = claim.jid, state.phone_jid
        elif state.lid_chat:
            lid, jid = state.lid_chat, claim.jid
        else:
            return False
        instance = claim.instance
        async with self._database.transaction() as transaction:
            locked = await transaction.fetch_one(
                "lock_chat", instance=instance, jid=lid
            )
            if locked is None or locked.has_turn:
                return False
            if locked.owner not in {None, claim.owner}:
                return False
            await transaction.execute(
                "move_chat",
                instance=instance,
                lid=lid,
                jid=jid,
                lid_person=rules.person_of(instance, lid),
                person=rules.person_of(instance, jid),
            )
            return True

    async def _begin(self, claim: Claim, state: _ChatState) -> float | None:
        """Begin a turn with all messages that are still to be answered."""
        rows = await self._database.fetch(
            "load_waiting", instance=claim.instance, jid=claim.jid
        )
        waiting = [_Message._make(row) for row in rows]
        max_age = self._config.whatsapp_max_age_seconds
        await self._put_away(claim, [m for m in waiting if m.age_seconds > max_age])
        messages = [m for m in waiting if m.age_seconds <= max_age]
        if state.is_paused and not await self._was_greeting(claim, state, messages):
            await self._skip(claim, messages, "handover")
            return None
        if not messages:
            return None
        if state.full_seconds is not None and state.full_seconds > 0:
            return state.full_seconds
        turn = await self._add_turn(claim, messages)
        return None if turn is None else await self._answer(turn, messages)

    async def _put_away(self, claim: Claim, old: Sequence[_Message]) -> None:
        """Answer no old message; where no age can be told it is a dead letter.

        A dead turn shows in `webhook dead`, and a replay answers it. Nothing is sent
        for it: it may truly be old.
        """
        if not old or self._health.clocks_agree:
            await self._skip(claim, old, "old")
        elif (turn := await self._add_turn(claim, old)) is not None:
            await self._say(turn, None, state="dead", error="clock")
            self._counters.turns["dead"] += 1

    async def _add_turn(
        self, claim: Claim, messages: Sequence[_Message]
    ) -> _Turn | None:
        turn = _Turn(claim, new_id(), new_id(), 0)
        begun = await self._database.fetch_one(
            "add_turn",
            **claim._asdict(),
            turn_id=turn.id,
            user_message_id=turn.user_message_id,
            message_ids=[m.message_id for m in messages],
        )
        return None if begun is None else turn

    async def _skip(self, claim: Claim, messages: Sequence[_Message], why: str) -> None:
        """Say why messages are not answered."""
        if ids := [m.message_id for m in messages]:
            await self._database.execute(
                "skip_messages", **claim._asdict(), message_ids=ids, why_not=why
            )
            self._counters.turns["skipped"] += 1

    async def _was_greeting(
        self, claim: Claim, state: _ChatState, messages: Sequence[_Message]
    ) -> bool:
        """Whether what paused the chat only came before the message that it greeted."""
        paused_by = state.paused_by or 0.0
        if not any(rules.was_greeting(paused_by, m.sent_at) for m in messages):
            return False
        await self._database.execute("end_pause", **claim._asdict())
        return True

    async def _go_on(
        self, claim: Claim, state: _ChatState, turn_id: str
    ) -> float | None:
        """Run a turn again whose last attempt was cut, or give it up."""
        assert state.user_message_id is not None, "a turn has one"
        turn = _Turn(claim, turn_id, state.user_message_id, state.runs or 0)
        if state.reply_status == "streaming":
            return _SOON_SECONDS
        seconds = rules.rerun_seconds(
            turn.runs, state.finish_reason, is_final=bool(state.error_is_final)
        )
        if seconds is None:
            await self._give_up(turn, state.error_code or state.finish_reason)
            return None
        rows = await self._database.fetch("load_turn_messages", turn_id=turn_id)
        return await self._answer(turn, [_Message._make(row) for row in rows])

    async def _answer(self, turn: _Turn, messages: Sequence[_Message]) -> float | None:
        text = rules.join_messages((m.kind, m.text) for m in messages)
        if text is None:
            text = self._config.whatsapp_unsupported_text
            await self._say(turn, text, state="answered", error="unsupported")
            self._counters.turns["fixed_text"] += 1
            return None
        return await self._run(turn, text)

    async def _run(self, turn: _Turn, text: str) -> float | None:
        """Have one reply made; it is closed together with its parts in the outbox."""
        claim = turn.claim
        run = {"owner": claim.owner, "turn_id": turn.id, "reply_id": new_id()}
        row = await self._database.fetch_one("start_run", **run)
        if row is None:
            return None
        self._show_typing(claim)
        question = Question(
            person=Person("whatsapp", rules.person_of(claim.instance, claim.jid)),
            content=text,
            user_message_id=turn.user_message_id,
            message_id=run["reply_id"],
        )
        try:
            ending = await self._read(question)
        except (OverloadedError, ReplyInProgressError, TooManyRepliesError):
            await self._take_back(run)
            return _SOON_SECONDS
        except StoreError as error:
            if not isinstance(error, RowError):  # it may be stored another time
                await self._take_back(run)
            raise
        except ReplyPendingError:
            # If it is stored, it is generated, or closed by the collector of orphans.
            return _ORPHAN_SECONDS
        if ending is None:
            return _ORPHAN_SECONDS
        if rules.is_sent(ending.status, ending.finish_reason):
            self._counters.turns["answered"] += 1
            self._on_sends()
            return None
        seconds = rules.rerun_seconds(
            int(row.runs), ending.finish_reason, is_final=ending.error_is_final
        )
        if seconds is None:
            await self._give_up(turn, ending.error_code or ending.finish_reason)
        else:
            self._counters.turns["again"] += 1
        return seconds

    async def _take_back(self, run: dict[str, str]) -> None:
        """Count no run that could not begin, however long the database is away."""
        while True:
            try:
                await self._database.execute("take_back_run", **run)
            except StoreError:
                await asyncio.sleep(_SOON_SECONDS)
            else:
                return

    async def _read(self, question: Question) -> Ending | None:
        """Ask, and wait for the reply's ending; None: this process gave it up."""
        reading = await self._chat.ask(
            question, _TurnLine(), closing=close_turn_replies
        )
        try:
            reply = reading.reader.reply
            if not isinstance(reply, LiveReply):
                return None  # stored, and closed by another process meanwhile
            await reply.done.wait()
            return reply.ending
        finally:
            self._chat.leave(reading)

    async def _give_up(self, turn: _Turn, error: str | None) -> None:
        """End a turn that no attempt could answer; people get a polite text."""
        logger.error("WhatsApp turn %s is given up: %s", turn.id, error)
        text = rules.FAILURE_TEXT
        await self._say(turn, text, state="dead", error=error or "no_reply")
        self._counters.turns["dead"] += 1

    async def _say(
        self, turn: _Turn, text: str | None, *, state: str, error: str
    ) -> None:
        """End a turn without a reply of the model; `text`, if any, is sent instead."""
        await self._database.fetch_one(
            "end_turn",
            owner=turn.claim.owner,
            turn_id=turn.id,
            state=state,
            error=error,
            outbox_id=new_id(),
            text=text,
        )
        self._on_sends()

    def _show_typing(self, claim: Claim) -> None:
        if self._typist is None:
            return
        showing = self._typist.send_typing(claim.instance, claim.jid, _TYPING_SECONDS)
        task = asyncio.create_task(showing)
        self._typing.add(task)
        task.add_done_callback(self._typing.discard)
