"""The program that unpacks heavy bodies, one after the other, for its server.

It reads frames from stdin and answers on stdout: two lengths, a head in JSON, a body
as it is. It ends with its server, whatever ends that, and never opens anything.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import struct
import sys
import threading
from typing import IO, Any

import msgspec

from viva_server.whatsapp.events.json_values import NotJsonObjectError
from viva_server.whatsapp.ingress.delivery import Delivery
from viva_server.whatsapp.ingress.unpacking import Post, WrongSecretError, unpack

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
    post = msgspec.json.decode(head, type=Post)
    _allow_cpu()
    try:
        if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS:
            raise MemoryError
        delivery = unpack(raw, post)
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
