"""The life of a reply, in the order in which it happens; both channels come in here.

`ChatService.ask` looks at what there is and lets `admission` decide what the message
does; a new one is stored together with the row of its reply (`_store_turn`). Then the
conversation is loaded, in a shape that strict servers take (`shaped`), and the
responder's text is fed to the reply until either ends (`generate`). The journal
commits text and end, and gives them to the readers; `done` follows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import groupby, takewhile
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
    title_of,
)
from viva_server.chat.reply import (
    Closing,
    Connection,
    LiveReply,
    Reader,
    ReplyText,
    Storable,
)
from viva_server.chat.runtime import Runtime
from viva_server.config import Config
from viva_server.errors import (
    ConstraintError,
    FencedError,
    KeyReusedError,
    NotFoundError,
    NotNewestError,
    OverloadedError,
    RefusedError,
    ReplyInProgressError,
    ReplyPendingError,
    ResponderError,
    StoppingError,
    StoreError,
    StoreUnavailableError,
    TooManyRepliesError,
    TransientStoreError,
    VivaError,
)
from viva_server.responders.protocol import (
    Conversation,
    ConversationMessage,
    EndOfReply,
    Responder,
)
from viva_server.store import replies as store
from viva_server.store.people import Person
from viva_server.store.replies import (
    NewTurn,
    OverLimit,
    Started,
    TurnState,
    load_history,
    start_reply,
)
from viva_server.store.sessions import Message
from viva_server.values import Channel, EndRequest, new_id

logger = logging.getLogger(__name__)

_ASK_SECONDS = 10.0

_LEAVING_SECONDS = 0.35
"""A client that left counts as a reader for 250 ms at most; then a 409 is final."""

_LOOK_AGAIN_SECONDS = 0.05

_SETTLE_SECONDS = 30.0
"""So long after a start nothing of it takes effect any more.

The server ends a statement after 6 s, and one whose client is gone after 2 s.
"""

# unique_violation, foreign_key_violation: what another transaction did meanwhile.
_CHANGED_MEANWHILE = frozenset({"23505", "23503"})

_HISTORY_AGAIN_SECONDS = 0.5

_ASSISTANT_MARK = "[assistente]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A reply and a reader of it; give the reader back with `ChatService.leave`."""

    reader: Reader
    message_id: str
    session_id: str
    user_message_id: str
    offset: int
    is_resumed: bool


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
        self.until = monotonic() + _SETTLE_SECONDS


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
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
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
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)

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
            started = await self._store_turn(owner, turn, attempt)
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

    async def _store_turn(
        self, owner: str, turn: NewTurn, attempt: Attempt
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
            started = await start_reply(
                self._database,
                owner,
                turn,
                live_limit=self._config.live_replies_per_user,
            )
        except StoreError as error:
            self._runtime.health.failed(began, error)
            is_lost = isinstance(error, StoreUnavailableError) and error.outcome_unknown
            attempt.is_unanswered = was_unanswered or is_lost
            if not (is_lost or _may_pass(error)):
                raise
            logger.debug("Message %s is looked for: %s", turn.message_id, error)
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            return None
        except FencedError:
            attempt.is_unanswered = was_unanswered
            raise OverloadedError from None
        self._runtime.health.stored()
        attempt.is_unanswered = was_unanswered
        return started

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
        work = self._generate(reply, turn, started.mode)
        self._keep(asyncio.create_task(work))
        return Reading(
            reader=reader,
            message_id=turn.message_id,
            session_id=turn.session_id,
            user_message_id=turn.user_message_id,
            offset=0,
            is_resumed=False,
        )

    async def _generate(
        self, reply: LiveReply, turn: NewTurn, mode: str | None
    ) -> None:
        """Generate the reply of a stored turn; it ends whatever happens here."""
        assert self._responder is not None, "started before the first message"
        try:
            stored = await self._load_history(reply, turn)
            conversations = (
                Conversation(
                    messages=messages,
                    session_id=turn.session_id,
                    user_id=turn.person.id,
                    channel=turn.person.channel,
                    modo=mode,
                )
                for messages in shortening(stored, turn.person.channel)
            )
            if reply.end_reason is None:
                seconds = self._config.reply_seconds
                await generate(reply, self._responder, conversations, seconds=seconds)
        finally:
            reply.end("upstream_error", "responder_failed")

    async def _load_history(
        self, reply: LiveReply, turn: NewTurn
    ) -> tuple[ConversationMessage, ...]:
        """Load the conversation, also after the database has been away for a while.

        Empty where the reply has ended meanwhile.
        """
        while reply.end_reason is None:
            try:
                return await load_history(
                    self._database,
                    turn.session_id,
                    before_seq=reply.seq,
                    messages=self._config.history_messages,
                    chars=self._config.history_chars,
                    channel=turn.person.channel,
                )
            except StoreError as error:
                logger.debug("A reply waits for its history: %s", error)
                await asyncio.sleep(_HISTORY_AGAIN_SECONDS)
        return ()

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
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def join(self) -> None:
        """Wait for the tasks of replies that have ended; cancel what hangs."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

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


def _may_pass(error: StoreError) -> bool:
    if isinstance(error, ConstraintError):
        return error.sqlstate in _CHANGED_MEANWHILE
    return isinstance(error, TransientStoreError)


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


def _marked(text: str) -> str:
    lines = (line for line in text.splitlines() if line.strip())
    return "\n".join(f"{_ASSISTANT_MARK} {line}" for line in lines)


async def generate(
    reply: LiveReply,
    responder: Responder,
    conversations: Iterable[Conversation],
    *,
    seconds: float,
) -> None:
    """Feed a reply from its responder until either ends; the responder is closed then.

    The first conversation counts; the next one is tried where the model's server
    refuses it (400) without a word of text.

    Asks for the reply's end before it returns, also when it is cancelled. The reply's
    closing does not wait for the responder's: one that refuses to be cancelled holds
    this task only.
    """
    reply.on_end = _canceller()
    try:
        async with asyncio.timeout(seconds):
            await _feed(reply, responder, conversations)
    except TimeoutError:
        reply.end("limit", "reply_too_slow")
    except asyncio.CancelledError:
        if reply.end_reason is None:
            raise
    finally:
        reply.on_end = None
        reply.end("upstream_error", "responder_failed")


def _canceller() -> Callable[[], None]:
    """Make what cancels the running task, but not from within itself."""
    task = asyncio.current_task()
    assert task is not None, "called by a coroutine"

    def cancel() -> None:
        if asyncio.current_task() is not task:
            task.cancel()

    return cancel


async def _feed(
    reply: LiveReply, responder: Responder, conversations: Iterable[Conversation]
) -> None:
    """Feed the reply and ask for the end that the responder came to."""
    storable = Storable()
    try:
        await _pull_accepted(reply, responder, conversations, storable)
    except EndOfReply as end:
        reply.feed(storable.flush())
        reply.end(end.finish_reason, usage=end.usage)
    except ResponderError as error:
        reply.feed(storable.flush())
        reply.end("upstream_error", error.code, is_final=not error.retryable)
    except Exception:
        logger.exception("The responder of message %s failed", reply.message_id)
        reply.feed(storable.flush())
        reply.end("upstream_error", "responder_failed")
    else:
        reply.feed(storable.flush())
        reply.end("stop")


async def _pull_accepted(
    reply: LiveReply,
    responder: Responder,
    conversations: Iterable[Conversation],
    storable: Storable,
) -> None:
    refused: RefusedError | None = None
    for conversation in conversations:
        if refused is not None:
            logger.warning(
                "Asking the model again with %d messages", len(conversation.messages)
            )
        try:
            return await _pull(reply, responder, conversation, storable)
        except RefusedError as error:
            if error.status != HTTPStatus.BAD_REQUEST or reply.has_text:
                raise
            refused = error
    assert refused is not None, "there is a conversation"
    raise refused


async def _pull(
    reply: LiveReply,
    responder: Responder,
    conversation: Conversation,
    storable: Storable,
) -> None:
    deltas = responder(conversation)
    try:
        async for delta in deltas:
            reply.feed(storable.feed(delta))
            if reply.end_reason is not None:
                return
            if reply.is_full:
                await reply.room()
    finally:
        # An iterator of a host need not be a generator.
        if (close := getattr(deltas, "aclose", None)) is not None:
            await close()
