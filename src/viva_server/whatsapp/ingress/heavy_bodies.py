"""Heavy bodies are read in processes of their own, a few at a time.

Not in threads: a decoder holds the interpreter for as long as it decodes, and the
event loop with it (64 MiB: seconds). And what a process took goes back when it ends.

The program of such a process is the second half of this file. It reads frames from
stdin and answers on stdout: two lengths, a head in JSON, a body as it is. It ends with
its server, whatever ends that, and never opens anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import msgspec

from viva_server.errors import OverloadedError, VivaError
from viva_server.whatsapp.events.json_values import NotJsonObjectError
from viva_server.whatsapp.ingress.delivery import (
    KEPT_HEADERS,
    Delivery,
    WebhookRequest,
    WrongSecretError,
    read_delivery,
)

_LARGE_BYTES = 8 * 2**20

# The package without its __init__, which would import the whole server: nearly ten
# times the time, and 40 MiB more.
_PROGRAM = """\
import sys, types
package = types.ModuleType("viva_server")
package.__path__ = [sys.argv[1]]
sys.modules["viva_server"] = package
sys.path[:] = sys.argv[2:]
from viva_server.whatsapp.ingress.heavy_bodies import main
main()
"""


class TooCostlyError(VivaError):
    """The body needs more memory or time than one body may have."""


class HeavyBodyError(VivaError):
    """The process failed or was ended; another attempt may succeed."""


class HeavyBodies:
    """Two processes at most: one for bodies up to 8 MiB, one for larger ones.

    So the largest never hold up photos. Each begins with its first body and takes one
    at a time; that of the large ones ends after each, the other after `idle_seconds`.
    They end with this process, also when it is killed.

    Args:
        wait_seconds: how long a body waits for those before it.
        seconds: how long a body may take.
        idle_seconds: how long a process is kept without work.
    """

    def __init__(
        self,
        *,
        wait_seconds: float = 20.0,
        seconds: float = 60.0,
        idle_seconds: float = 60.0,
    ) -> None:
        self._wait_seconds = wait_seconds
        self._small = _Lane(seconds, idle_seconds)
        self._large = _Lane(seconds, idle_seconds=0)

    async def read(self, raw: bytes | bytearray, request: WebhookRequest) -> Delivery:
        """Do what `delivery.read_delivery` does, elsewhere.

        A cancellation ends the process that works on the body.

        Raises:
            WrongSecretError, NotJsonObjectError: as there.
            TooCostlyError: it would need too much memory or time.
            OverloadedError: too many wait, or this is closed.
            HeavyBodyError: the process cannot be started, failed or took too long.
        """
        lane = self._large if len(raw) > _LARGE_BYTES else self._small
        try:
            head, body = await lane.ask(request, raw, self._wait_seconds)
            return _delivery_of(head, body)
        except TooCostlyError:
            if request.asked:
                raise WrongSecretError from None
            raise

    async def close(self) -> None:
        """End the processes; whoever waits for one gets an error. Idempotent."""
        await asyncio.gather(self._small.close(), self._large.close())


class _Lane:
    """One process at a time, and those who wait for it."""

    def __init__(self, seconds: float, idle_seconds: float) -> None:
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._turn = asyncio.Lock()
        self._process: _Process | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def ask(
        self, request: WebhookRequest, raw: bytes | bytearray, wait_seconds: float
    ) -> tuple[bytes, bytes]:
        await self._take_turn(wait_seconds)
        process = self._process = self._process or _Process()
        asking = asyncio.to_thread(
            process.ask, request, raw, is_last=not self._idle_seconds
        )
        answer = asyncio.ensure_future(asking)
        # The turn ends with the thread, not with a caller that leaves.
        answer.add_done_callback(self._end_turn)
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(answer)
        except TimeoutError:
            process.kill()
            raise HeavyBodyError("it took too long") from None
        except asyncio.CancelledError:
            process.kill()
            raise
        finally:
            # It may hold an exception, and that this frame with the body.
            del answer

    async def close(self) -> None:
        self._is_closed = True
        if self._process is not None:
            self._process.kill()
        async with self._turn:
            self._stop_clock()
            if self._process is not None:
                await asyncio.to_thread(self._process.end)

    async def _take_turn(self, wait_seconds: float) -> None:
        try:
            async with asyncio.timeout(wait_seconds):
                await self._turn.acquire()
        except TimeoutError:
            raise OverloadedError("too many heavy bodies") from None
        self._stop_clock()
        if self._is_closed:
            self._turn.release()
            raise OverloadedError("the server stops")

    def _end_turn(self, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled():
            answer.exception()  # its caller may have left
        assert self._process is not None, "made for the turn"
        if self._process.has_ended:
            self._process = None
        else:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._idle_seconds, self._end_idle)
        self._turn.release()

    def _end_idle(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            asyncio.get_running_loop().run_in_executor(None, process.end)

    def _stop_clock(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


class _Process:
    """One process, begun by its first body, gone for good after `kill` or `end`.

    `ask` and `end` block, and are called one after the other; `kill` at any time.
    """

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._is_killed = False
        self.has_ended = False

    def ask(
        self, request: WebhookRequest, raw: bytes | bytearray, *, is_last: bool
    ) -> tuple[bytes, bytes]:
        """Send a body and return the answer; a failure ends the process."""
        try:
            child = self._start()
            assert child.stdin is not None, "a pipe"
            assert child.stdout is not None, "a pipe"
            write_frame(child.stdin, _sendable(request), raw)
            answer = read_frame(child.stdout)
        except (EOFError, OSError) as error:
            raise _failure(self.end(), error) from None
        except BaseException:
            self.end()
            raise
        if is_last:
            self.end()
        return answer

    def kill(self) -> None:
        """Let `ask` fail at once."""
        with self._starting:
            self._is_killed = True
            if self._child is not None:
                self._child.kill()

    def end(self) -> int:
        """Kill it, and return how it ended: it holds nothing of value."""
        self.has_ended = True
        self.kill()
        if self._child is None:
            return 0
        code = self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):  # what was not written yet
                assert pipe is not None, "a pipe"
                pipe.close()
        return code

    def _start(self) -> subprocess.Popen[bytes]:
        with self._starting:
            if self._is_killed:
                raise HeavyBodyError("it was ended")
            if self._child is None:
                self._child = _spawn()
            return self._child


def _spawn() -> subprocess.Popen[bytes]:
    package = str(Path(__file__).parents[2])
    return subprocess.Popen(  # noqa: S603 - a program of our own
        [sys.executable, "-c", _PROGRAM, package, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C reaches a whole session; this process ends with its server.
        start_new_session=True,
    )


def _sendable(request: WebhookRequest) -> WebhookRequest:
    headers = {name: request.headers.get(name, "") for name in KEPT_HEADERS}
    return replace(request, headers=headers)


def _failure(code: int, error: Exception) -> VivaError:
    if code == -signal.SIGXCPU:
        return TooCostlyError("it takes too long")
    return HeavyBodyError(f"{type(error).__name__}, the process ended with {code}")


def _delivery_of(head: bytes, body: bytes) -> Delivery:
    answer: dict[str, Any] = msgspec.json.decode(head)
    if delivery := answer.get("delivery"):
        return Delivery(**delivery, body_json=body.decode())
    why = answer.get("why", "")
    match answer["failed"]:
        case "secret":
            raise WrongSecretError
        case "json":
            raise NotJsonObjectError(why)
        case "memory":
            raise TooCostlyError("it takes too much memory")
        case _:
            raise HeavyBodyError(why)


MEMORY_BYTES = 2**30
CPU_SECONDS = 25
MAX_CONTAINERS = 4 * 10**6
"""Four times as many as the largest history has; they would not fit into memory."""

_LENGTHS = struct.Struct(">QQ")
_NICE = 5


def write_frame(sink: IO[bytes], head: object, body: bytes | bytearray = b"") -> None:
    """Write a frame; blocks until the other side has read it."""
    encoded = msgspec.json.encode(head)
    sink.write(_LENGTHS.pack(len(encoded), len(body)))
    sink.write(encoded)
    sink.write(body)
    sink.flush()


def read_frame(source: IO[bytes]) -> tuple[bytes, bytes]:
    """Read the head and the body of a frame; blocks until it is there.

    Raises:
        EOFError: the other side has ended.
    """
    head, body = _LENGTHS.unpack(_read(source, _LENGTHS.size))
    return _read(source, head), _read(source, body)


def _read(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise EOFError
    return data


def main() -> None:
    """Answer frames until the server ends."""
    # systemd tells every process of a unit to stop; the server decides when.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_server, daemon=True).start()
    _bound()
    # What is decoded has no cycles, and a collection would look at each value of it.
    gc.disable()
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        while True:
            _answer(source, sink)
    except (EOFError, BrokenPipeError):
        os._exit(0)


def _answer(source: IO[bytes], sink: IO[bytes]) -> None:
    head, raw = read_frame(source)
    request = msgspec.json.decode(head, type=WebhookRequest)
    _allow_cpu()
    try:
        if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS:
            raise MemoryError
        delivery = read_delivery(raw, request)
    except WrongSecretError:
        write_frame(sink, {"failed": "secret"})
    except NotJsonObjectError as error:
        write_frame(sink, {"failed": "json", "why": str(error)})
    except MemoryError:
        write_frame(sink, {"failed": "memory"})
    except Exception as error:
        write_frame(sink, {"failed": "defect", "why": whereabouts(error)})
    else:
        write_frame(sink, _head_of(delivery), delivery.body_json.encode())


def _head_of(delivery: Delivery) -> dict[str, Any]:
    names = set(Delivery.__dataclass_fields__) - {"body_json"}
    return {"delivery": {name: getattr(delivery, name) for name in names}}


def whereabouts(error: BaseException) -> str:
    """Return the kind and place of an error, without its text: that quotes the body."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    kind = type(error).__name__
    if trace is None:
        return kind
    code = trace.tb_frame.f_code
    return f"{kind} in {code.co_name}, line {trace.tb_lineno} of {code.co_filename}"


def _end_with_server() -> None:
    """End when nobody can write to stdin any more, also in the middle of a body."""
    pipe = select.poll()
    pipe.register(0, 0)
    pipe.poll()
    os._exit(0)


def _bound() -> None:
    """Take less than the server does: of the processor, and of memory."""
    os.nice(_NICE)
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_CORE, 0)


def _allow_cpu() -> None:
    """Let one body take `CPU_SECONDS`; SIGXCPU then ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    try:
        resource.setrlimit(kind, (value, hard))
    except (ValueError, OSError):
        return  # a platform without it
