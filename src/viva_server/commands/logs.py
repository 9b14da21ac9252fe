"""The log of our own commands: written by a thread, so that no reader is waited for."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import time
from collections.abc import Iterator
from logging.handlers import QueueHandler, QueueListener

from viva_server.counters import LOG

_STDERR = 2
_MAX_LINES = 10_000
_EXIT_SECONDS = 0.5
_FULL_PIPE_SECONDS = 0.05
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextlib.contextmanager
def buffered_log(level: str, *, max_lines: int = _MAX_LINES) -> Iterator[None]:
    """Write the log of this level and above to stderr while the block runs.

    Lines wait in a buffer; what does not fit is dropped and counted. The end of the
    block takes 0.5 s at most, and what is not written then is lost. Nothing of this is
    for a host: its log is its own.

    Raises:
        ValueError: there is no such level.
    """
    lines: queue.Queue[logging.LogRecord] = queue.Queue(max_lines)
    root = logging.getLogger()
    root.setLevel(level)
    handler = _Handler(lines)
    writer = _Writer(lines)
    writer.start()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        writer.stop()


class _Handler(QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            LOG.dropped_lines += 1  # under the handler's lock


class _Writer(QueueListener):
    """The thread that writes. It may hang in a write for ever; it is a daemon.

    It writes to the descriptor and has no handler: the lock of one, and that of
    sys.stderr, would be held while it hangs, and Python takes both when it ends.
    """

    def __init__(self, lines: queue.Queue[logging.LogRecord]) -> None:
        super().__init__(lines)
        self._lines: queue.Queue[logging.LogRecord | None] = lines  # type: ignore[assignment] # None is its end
        self._formatter = logging.Formatter(_FORMAT)
        self._told = LOG.dropped_lines

    def handle(self, record: logging.LogRecord) -> None:
        text = self._formatter.format(record)
        if (dropped := LOG.dropped_lines) != self._told:
            text += f"\n{dropped - self._told} lines of this log were dropped"
            self._told = dropped
        _write(text.encode("utf-8", "backslashreplace") + b"\n")

    def stop(self) -> None:
        """Write what waits, for 0.5 s at most."""
        if self._thread is None:
            return
        until = time.monotonic() + _EXIT_SECONDS
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_EXIT_SECONDS)
        self._thread.join(max(0.0, until - time.monotonic()))
        self._thread = None


def _write(line: bytes) -> None:
    while line:
        try:
            line = line[os.write(_STDERR, line) :]
        except BlockingIOError:  # somebody has made it non-blocking
            time.sleep(_FULL_PIPE_SECONDS)
        except OSError:
            return  # closed, or its reader has gone
