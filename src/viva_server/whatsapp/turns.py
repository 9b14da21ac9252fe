"""One turn of a WhatsApp chat: what has gathered becomes one message and one reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from viva_server.chat.admission import Question
from viva_server.chat.reply import LiveReply
from viva_server.chat.service import ChatService
from viva_server.chat.text import Ending
from viva_server.config import Config
from viva_server.errors import (
    OverloadedError,
    ReplyInProgressError,
    ReplyPendingError,
    StoreError,
    TooManyRepliesError,
)
from viva_server.ids import new_id
from viva_server.store import whatsapp_chats as store
from viva_server.store.db import Database
from viva_server.store.people import Person
from viva_server.store.whatsapp_chats import Chat, ChatState, WaitingMessage
from viva_server.whatsapp import rules
from viva_server.whatsapp.closing import close_turn_replies
from viva_server.whatsapp.counters import WhatsAppCounters
from viva_server.whatsapp.jids import LID

logger = logging.getLogger(__name__)

_SOON_SECONDS = 1.0
_STRAY_SECONDS = 10.0
"""A reply without an ending is closed by the strays' collector in that time."""
_TYPING_SECONDS = 10.0


class Typist(Protocol):
    """Who shows that an answer is being written; `EvolutionClient` is one."""

    async def send_typing(self, instance: str, jid: str, seconds: float) -> None:
        """Show it for some seconds, at best effort."""


class _TurnLine:
    """What makes a turn a reader: a connection that does not close while it runs."""

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Nothing waits at the other side."""


class _Turn(NamedTuple):
    id: str
    user_message_id: str
    runs: int


class Turns:
    """Does the work of claimed chats. Chat service and typist stay the caller's.

    Args:
        typist: None: the typing state is not shown.
        counters: told how each run of a turn ended.
        on_sends: called when something is in the outbox.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        chat: ChatService,
        *,
        typist: Typist | None,
        counters: WhatsAppCounters,
        on_sends: Callable[[], None],
    ) -> None:
        self._config = config
        self._database = database
        self._chat = chat
        self._typist = typist
        self._counters = counters
        self._on_sends = on_sends
        self._typing: set[asyncio.Task[None]] = set()

    async def work(self, owner: str, chat: Chat) -> None:
        """Do what a chat of this owner needs, then give it back.

        A cancellation leaves the chat to whoever buries or releases this owner.
        """
        try:
            again_seconds = await self._work(owner, chat)
        except StoreError as error:
            logger.warning("A WhatsApp turn waits for the database: %s", error)
            again_seconds = _SOON_SECONDS
        except Exception:
            logger.exception("A WhatsApp turn failed")
            again_seconds = _STRAY_SECONDS
        await self._release(owner, chat, again_seconds)

    async def close(self) -> None:
        """Stop showing the typing state."""
        for task in self._typing:
            task.cancel()
        await asyncio.gather(*self._typing, return_exceptions=True)

    async def _release(
        self, owner: str, chat: Chat, again_seconds: float | None
    ) -> None:
        while True:
            try:
                await store.release_chat(self._database, owner, chat, again_seconds)
            except StoreError:
                await asyncio.sleep(_SOON_SECONDS)
                continue
            return

    async def _work(self, owner: str, chat: Chat) -> float | None:
        """Do the work; gives in how many seconds there is more, None: not by itself."""
        state = await store.load_chat(
            self._database,
            owner,
            chat,
            answers=self._config.whatsapp_replies_per_10_minutes,
        )
        if state is None:
            return None
        if state.turn_id is None and await self._merge(owner, chat, state):
            return 0.0
        messages = await store.load_waiting(self._database, chat, state.turn_id)
        if state.turn_id is None:
            return await self._begin(owner, chat, state, messages)
        seconds = await self._go_on(owner, chat, state, messages)
        # The claim has taken the time of messages that came while the turn waited.
        return 0.0 if seconds is None else seconds

    async def _merge(self, owner: str, chat: Chat, state: ChatState) -> bool:
        """Make the chats under a person's lid and phone one, with one session."""
        if chat.jid.endswith(LID) and state.phone_jid:
            lid_chat, phone_chat = chat, Chat(chat.instance, state.phone_jid)
        elif state.lid_chat:
            lid_chat, phone_chat = Chat(chat.instance, state.lid_chat), chat
        else:
            return False
        people = (rules.person_of(*lid_chat), rules.person_of(*phone_chat))
        return await store.merge_chats(
            self._database, owner, lid_chat, phone_chat, people
        )

    async def _begin(
        self,
        owner: str,
        chat: Chat,
        state: ChatState,
        messages: Sequence[WaitingMessage],
    ) -> float | None:
        """Begin a turn with all messages that are still to be answered."""
        max_age = self._config.whatsapp_max_age_seconds
        old = [m for m in messages if m.age_seconds > max_age]
        messages = [m for m in messages if m.age_seconds <= max_age]
        await self._skip(owner, chat, old, "old")
        if state.is_paused and not await self._was_greeting(
            owner, chat, state, messages
        ):
            await self._skip(owner, chat, messages, "handover")
            return None
        if not messages:
            return None
        if state.full_seconds is not None and state.full_seconds > 0:
            return state.full_seconds
        turn = _Turn(new_id(), new_id(), 0)
        begun = await store.add_turn(
            self._database,
            owner,
            chat,
            turn_id=turn.id,
            user_message_id=turn.user_message_id,
            message_ids=[m.message_id for m in messages],
        )
        return await self._answer(owner, chat, turn, messages) if begun else None

    async def _skip(
        self, owner: str, chat: Chat, messages: Sequence[WaitingMessage], why: str
    ) -> None:
        if ids := [m.message_id for m in messages]:
            await store.skip_messages(self._database, owner, chat, ids, why)
            self._counters.turn("skipped")

    async def _was_greeting(
        self,
        owner: str,
        chat: Chat,
        state: ChatState,
        messages: Sequence[WaitingMessage],
    ) -> bool:
        """Whether what paused the chat only came before the message that it greeted."""
        paused_by = state.paused_by or 0.0
        if not any(rules.was_greeting(paused_by, m.sent_at) for m in messages):
            return False
        await store.end_pause(self._database, owner, chat)
        return True

    async def _go_on(
        self,
        owner: str,
        chat: Chat,
        state: ChatState,
        messages: Sequence[WaitingMessage],
    ) -> float | None:
        """Run a turn again whose last try was cut, or give it up."""
        assert state.turn_id is not None, "it is the running turn"
        assert state.user_message_id is not None, "a turn has one"
        turn = _Turn(state.turn_id, state.user_message_id, state.runs or 0)
        if state.reply_status == "streaming":
            return _SOON_SECONDS
        seconds = rules.rerun_seconds(
            turn.runs, state.finish_reason, is_final=bool(state.error_is_final)
        )
        if seconds is None:
            await self._give_up(owner, turn, state.error_code or state.finish_reason)
            return None
        return await self._answer(owner, chat, turn, messages)

    async def _answer(
        self,
        owner: str,
        chat: Chat,
        turn: _Turn,
        messages: Sequence[WaitingMessage],
    ) -> float | None:
        text = rules.join_messages((m.kind, m.text) for m in messages)
        if text is None:
            text = self._config.whatsapp_unsupported_text
            await self._say(owner, turn, text, state="answered", error="unsupported")
            self._counters.turn("fixed_text")
            return None
        return await self._run(owner, chat, turn, text)

    async def _run(
        self, owner: str, chat: Chat, turn: _Turn, text: str
    ) -> float | None:
        """Have one reply made; it is closed together with its parts in the outbox."""
        reply_id = new_id()
        runs = await store.start_run(self._database, owner, turn.id, reply_id)
        if runs is None:
            return None
        self._show_typing(chat)
        question = Question(
            person=Person("whatsapp", rules.person_of(*chat)),
            content=text,
            user_message_id=turn.user_message_id,
            message_id=reply_id,
        )
        try:
            ending = await self._read(question)
        except (OverloadedError, ReplyInProgressError, TooManyRepliesError):
            await store.take_back_run(self._database, owner, turn.id, reply_id)
            return _SOON_SECONDS
        except ReplyPendingError:
            # If it is stored, it is generated, or closed by the strays' collector.
            return _STRAY_SECONDS
        if ending is None:
            return _STRAY_SECONDS
        if ending.status == "complete":
            self._counters.turn("answered")
            self._on_sends()
            return None
        seconds = rules.rerun_seconds(
            runs, ending.finish_reason, is_final=ending.error_is_final
        )
        if seconds is None:
            code = ending.error_code or ending.finish_reason
            await self._give_up(owner, turn, code)
        else:
            self._counters.turn("again")
        return seconds

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

    async def _give_up(self, owner: str, turn: _Turn, error: str | None) -> None:
        """End a turn that no try could answer; people get a polite text."""
        logger.error("WhatsApp turn %s is given up: %s", turn.id, error)
        text = rules.FAILURE_TEXT
        await self._say(owner, turn, text, state="dead", error=error or "no_reply")
        self._counters.turn("dead")

    async def _say(
        self, owner: str, turn: _Turn, text: str, *, state: str, error: str
    ) -> None:
        await store.end_turn(
            self._database,
            owner,
            turn.id,
            state=state,
            error=error,
            outbox_id=new_id(),
            text=text,
        )
        self._on_sends()

    def _show_typing(self, chat: Chat) -> None:
        if self._typist is None:
            return
        showing = self._typist.send_typing(chat.instance, chat.jid, _TYPING_SECONDS)
        task = asyncio.create_task(showing)
        self._typing.add(task)
        task.add_done_callback(self._typing.discard)
