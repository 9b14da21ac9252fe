"""Replies as use cases: ask, come back, stop. Every door comes through here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from viva_server.chat.admission import (
    FirstSession,
    Follow,
    InProgress,
    NoMessage,
    NoSession,
    NotNewest,
    OtherBody,
    Question,
    Start,
    Supersede,
    decide,
)
from viva_server.chat.generation import produce
from viva_server.chat.reply import Closing
from viva_server.chat.runtime import Runtime
from viva_server.chat.starting import (
    LOOK_AGAIN_SECONDS,
    Attempt,
    new_turn,
    store_turn,
)
from viva_server.chat.text import Connection, Reader, ReplyText
from viva_server.config import Config
from viva_server.errors import (
    KeyReusedError,
    NotFoundError,
    NotNewestError,
    OverloadedError,
    ReplyInProgressError,
    ReplyPendingError,
    StoppingError,
    StoreError,
    TooManyRepliesError,
    VivaError,
)
from viva_server.ids import new_id
from viva_server.responders import Responder
from viva_server.store import replies as store
from viva_server.store.people import Person
from viva_server.store.replies import NewTurn, OverLimit, Started, TurnState
from viva_server.store.sessions import Message
from viva_server.words import EndRequest

logger = logging.getLogger(__name__)

_LEAVING_SECONDS = 0.35
"""A client that left counts as a reader for 250 ms at most; then a 409 is final."""
_ASK_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A reply and a reader of it; give the reader back with `ChatService.leave`."""

    reader: Reader
    message_id: str
    session_id: str
    user_message_id: str
    offset: int
    is_resumed: bool


class ChatService:
    """Starts, follows and stops replies.

    A reply belongs to this object, never to the caller: a cancelled caller loses its
    reader and nothing else.
    """

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self._config = config
        self._runtime = runtime
        self._database = runtime.database
        self._responder: Responder | None = None
        # Turns that are being stored: they count as live, so that many at once do not
        # pass the limit together.
        self._starting = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, responder: Responder) -> None:
        """Take new messages from now on. The responder stays the caller's."""
        self._responder = responder

    async def ask(
        self,
        question: Question,
        connection: Connection,
        *,
        closing: Closing | None = None,
    ) -> Reading:
        """Store a user's message and start its reply, or find the one it repeats.

        The user's message and the reply's row are committed when this returns. A reply
        that is started here is closed by `closing`, if it is given.

        Raises:
            NotFoundError, NotNewestError, KeyReusedError, ReplyInProgressError,
            TooManyRepliesError, OverloadedError, StoppingError,
            StoreUnavailableError: nothing was started, or the question has a key, by
            which it would be found.
            RowError: the message cannot be stored.
            ReplyPendingError: it may be stored. If it is, and this process lives, its
            reply is generated all the same.
        """
        attempt = Attempt(question)
        work = self._ask(question, attempt, connection, closing)
        task = asyncio.create_task(work)
        self._keep(task)
        try:
            await asyncio.wait({task}, timeout=_ASK_SECONDS)
        except asyncio.CancelledError:
            # The turn goes on being stored; its reader belongs to nobody any more.
            task.add_done_callback(self._leave_unclaimed)
            later = asyncio.get_running_loop().call_later
            later(_ASK_SECONDS, self._give_up, task, attempt)
            raise
        try:
            if not task.done() or task.cancelled():
                raise OverloadedError
            return task.result()
        except (OverloadedError, StoreError, TooManyRepliesError):
            if attempt.is_unanswered and question.key is None:
                raise ReplyPendingError(attempt.message_id) from None
            raise
        finally:
            if not task.done():
                task.add_done_callback(self._leave_unclaimed)
                self._give_up(task, attempt)

    @staticmethod
    def _give_up(task: asyncio.Task[Reading], attempt: Attempt) -> None:
        """Let a task only look whether what it has sent is stored."""
        attempt.is_given_up = True
        if not attempt.is_unanswered:
            task.cancel()

    async def resume(
        self,
        person: Person,
        message_id: str,
        offset: int,
        connection: Connection,
    ) -> Reading:
        """Follow a reply from `offset` characters on, live or long ended.

        An offset that the reply does not have becomes 0.

        Raises:
            NotFoundError: the person has no such reply.
        """
        stored = await store.load_reply(self._database, person, message_id)
        if stored is None:
            raise NotFoundError("message")
        text: ReplyText | None = self._runtime.presence.local.get(message_id)
        if text is None:
            text = self._runtime.remote.open(stored)
        # The client may have seen text elsewhere that has not been taken in here yet;
        # the row was read after the client asked, so it has all that anybody has seen.
        offset = offset if offset <= max(text.length, len(stored.text)) else 0
        self._runtime.counters.resumes += 1
        return Reading(
            reader=self._runtime.presence.attach(text, offset, connection),
            message_id=message_id,
            session_id=stored.session_id,
            user_message_id=stored.user_message_id,
            offset=offset,
            is_resumed=True,
        )

    async def require(self, person: Person, message_id: str) -> None:
        """Raise NotFoundError unless the person has such a reply."""
        if await store.load_reply(self._database, person, message_id) is None:
            raise NotFoundError("message")

    def leave(self, reading: Reading) -> None:
        """Give a reader back. Never waits, so it is safe in a cancelled handler."""
        self._runtime.presence.leave(reading.reader)

    def _leave_unclaimed(self, task: asyncio.Task[Reading]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.leave(task.result())

    async def stop(self, person: Person, message_id: str) -> Message:
        """End a reply and give its message once its text is committed; idempotent.

        Raises:
            NotFoundError: the person has no such reply.
            OverloadedError: its owner is silent, or has not ended it in 10 s.
        """
        async with _deadline():
            while True:
                stored = await store.load_reply(self._database, person, message_id)
                if stored is None:
                    raise NotFoundError("message")
                if stored.status != "streaming":
                    break
                self._require_heard(stored.owner)
                await self._end(message_id, "stopped")
        message = await self._database.fetch_one(
            "load_message", Message, message_id=message_id
        )
        if message is None:
            raise NotFoundError("message")
        return message

    async def join(self) -> None:
        """Wait for the tasks of replies that have ended; cancel what hangs."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    async def _ask(
        self,
        question: Question,
        attempt: Attempt,
        connection: Connection,
        closing: Closing | None,
    ) -> Reading:
        began = monotonic()
        may_still_leave_until = asyncio.get_running_loop().time() + _LEAVING_SECONDS
        while True:
            try:
                reading = await self._found(question, attempt, connection, closing)
                state = None if attempt.is_given_up else await self._look(question)
            except StoreError as error:
                self._runtime.health.failed(began, error)
                if not attempt.is_unanswered:
                    raise
                reading = state = None
            if reading is not None:
                return reading
            if monotonic() > attempt.until:
                raise OverloadedError
            # Stored just now, after an answer that was lost: `_found` goes on with it.
            is_own = state is not None and state.newest_id == attempt.message_id
            if state is None or (is_own and attempt.is_unanswered):
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
                continue
            step = await self._try(question, state, connection, may_still_leave_until)
            if isinstance(step, Start):
                step = await self._start(question, step, attempt, connection, closing)
            if step is not None:
                return step

    async def _look(self, question: Question) -> TurnState:
        if self._runtime.is_stopping:
            raise StoppingError
        [state] = await self._database.fetch(
            "find_turn",
            TurnState,
            channel=question.person.channel,
            person=question.person.id,
            session_id=question.session_id,
            content=question.content,
            key=question.key,
            body_sha256=question.body_sha256,
            replaces=question.replaces,
        )
        return state

    async def _found(
        self,
        question: Question,
        attempt: Attempt,
        connection: Connection,
        closing: Closing | None,
    ) -> Reading | None:
        """Go on with a turn that was stored though its answer was lost."""
        if not attempt.is_unanswered or attempt.turn is None:
            return None
        person = question.person
        stored = await store.load_reply(self._database, person, attempt.message_id)
        if stored is None:
            return None
        if stored.status != "streaming" or stored.owner != self._runtime.ownership.id:
            # Closed meanwhile, for instance since this process was declared dead.
            return await self.resume(person, attempt.message_id, 0, connection)
        turn = replace(
            attempt.turn,
            session_id=stored.session_id,
            user_message_id=stored.user_message_id,
        )
        started = Started(stored.seq, stored.mode)
        return self._produce(turn, started, connection, closing)

    async def _try(
        self,
        question: Question,
        state: TurnState,
        connection: Connection,
        may_still_leave_until: float,
    ) -> Reading | Start | None:
        """Do what the state of the session says; None means look again."""
        match decide(question, state):
            case Follow(message_id):
                return await self._follow(question, message_id, connection)
            case Start() as start:
                return start
            case Supersede(message_id):
                await self._end(message_id, "superseded")
            case InProgress(message_id):
                self._require_heard(state.live_owner)
                await self._wait_for_leaver(message_id, may_still_leave_until)
            case FirstSession():
                await self._database.execute(
                    "add_first_session",
                    session_id=new_id(),
                    channel=question.person.channel,
                    person=question.person.id,
                    mode=question.mode,
                )
            case OtherBody():
                raise KeyReusedError
            case NotNewest():
                raise NotNewestError
            case NoMessage():
                raise NotFoundError("message")
            case NoSession():
                raise NotFoundError("session")
        return None

    async def _follow(
        self, question: Question, message_id: str, connection: Connection
    ) -> Reading | None:
        names_it = question.cursor_id == message_id
        offset = question.cursor_offset if names_it else 0
        try:
            return await self.resume(question.person, message_id, offset, connection)
        except NotFoundError:
            return None  # deleted since the look

    def _require_heard(self, owner: str | None) -> None:
        """Raise OverloadedError while the owner of a live reply is silent.

        If it is dead another process closes the reply soon.
        """
        if self._runtime.ownership.is_silent(owner):
            raise OverloadedError

    async def _wait_for_leaver(self, message_id: str, until: float) -> None:
        """Give a client that is just leaving the time to be noticed."""
        local = self._runtime.presence.local.get(message_id)
        is_read_here = local is not None and self._runtime.presence.look(local)
        if is_read_here or asyncio.get_running_loop().time() > until:
            raise ReplyInProgressError(message_id)
        await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _end(self, message_id: str, request: EndRequest) -> None:
        """Have a live reply ended by its owner; returns when it may have happened."""
        local = self._runtime.presence.local.get(message_id)
        if local is not None:
            local.end(request)
            await local.done.wait()
            return
        await self._database.execute(
            "request_end", message_id=message_id, end_requested=request
        )
        await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _start(
        self,
        question: Question,
        start: Start,
        attempt: Attempt,
        connection: Connection,
        closing: Closing | None,
    ) -> Reading | None:
        live = len(self._runtime.presence.local) + self._starting
        if live >= self._config.live_replies:
            raise OverloadedError
        owner = self._runtime.ownership.id
        turn = new_turn(question, start, attempt.message_id)
        self._starting += 1
        try:
            started = await store_turn(
                self._database,
                owner,
                turn,
                attempt,
                live_limit=self._config.live_replies_per_user,
                health=self._runtime.health,
            )
        finally:
            self._starting -= 1
        if started is None:
            return None
        if isinstance(started, OverLimit):
            raise TooManyRepliesError
        if owner != self._runtime.ownership.id:
            # Declared dead meanwhile: another process closes it.
            attempt.is_unanswered = True
            raise OverloadedError
        return self._produce(turn, started, connection, closing)

    def _produce(
        self,
        turn: NewTurn,
        started: Started,
        connection: Connection,
        closing: Closing | None,
    ) -> Reading:
        """Have the reply of a stored turn generated, and read it."""
        reply = self._runtime.adopt(turn.message_id, started.seq, closing)
        reader = self._runtime.presence.attach(reply, 0, connection)
        assert self._responder is not None, "started before the first message"
        config, database, responder = self._config, self._database, self._responder
        work = produce(config, database, responder, reply, turn, started.mode)
        self._keep(asyncio.create_task(work))
        return Reading(
            reader=reader,
            message_id=turn.message_id,
            session_id=turn.session_id,
            user_message_id=turn.user_message_id,
            offset=0,
            is_resumed=False,
        )

    def _keep(self, task: asyncio.Task[Any]) -> None:
        """Hold a task until it ends, and see that its failure is said."""
        self._tasks.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, VivaError):
            logger.error("A task of the chat failed", exc_info=error)


@contextlib.asynccontextmanager
async def _deadline() -> AsyncIterator[None]:
    """Give up after 10 s what other processes or the database do not let happen."""
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            yield
    except TimeoutError:
        raise OverloadedError from None
