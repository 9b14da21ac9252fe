"""`viva-server serve` with failpoints, and with defects put in on purpose.

    python -m tests.faults.armed append_chunks.after:kill@3 mutant:show_before_commit

A failpoint is a place and a moment, what to do there, and at which passing (1). The
places are wrapped from outside, so the product has no line for them. Each that fires
says so on stderr before it acts: `FAILPOINT <name>`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from aiohttp import web

from tests.faults.mutants import MUTANTS
from viva_server import cli
from viva_server.chat import journal, recovery, service
from viva_server.errors import StoreUnavailableError

P = ParamSpec("P")
T = TypeVar("T")

_PLACES = ("start_reply", "append_chunks", "close_replies", "close_dead")
POINTS = (
    *(f"{place}.{when}" for place in _PLACES for when in ("before", "during", "after")),
    "accepted.written",
    "content.written",
    "done.written",
)

_IN_FLIGHT_SECONDS = 0.0007
"""Into the statement, for `during`: about the middle of a commit."""


class Failpoint:
    """One action at one passing of a point."""

    def __init__(self, spec: str) -> None:
        self.point, _, action = spec.partition(":")
        self._action, _, passing = action.partition("@")
        self._left = int(passing or 1)
        assert self.point in POINTS, self.point

    def __call__(self) -> None:
        self._left -= 1
        if self._left:
            return
        os.write(2, f"FAILPOINT {self.point}\n".encode())
        match self._action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "stall":
                time.sleep(3.0)  # the whole event loop, as a big json.loads would
            case "raise":
                raise StoreUnavailableError("a failpoint", outcome_unknown=True)
            case unknown:
                raise AssertionError(unknown)


_armed: dict[str, list[Failpoint]] = {}


def reach(point: str) -> None:
    for failpoint in _armed.get(point, ()):
        failpoint()


def at(
    place: str, function: Callable[P, Coroutine[Any, Any, T]]
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Give the function with points before, in and after it."""

    @functools.wraps(function)
    async def with_points(*args: P.args, **kwargs: P.kwargs) -> T:
        reach(f"{place}.before")
        if f"{place}.during" in _armed:
            loop = asyncio.get_running_loop()
            loop.call_later(_IN_FLIGHT_SECONDS, reach, f"{place}.during")
        result = await function(*args, **kwargs)
        reach(f"{place}.after")
        return result

    return with_points


def arm(specs: list[str]) -> None:
    """Wrap the places; call once."""
    for spec in specs:
        failpoint = Failpoint(spec)
        _armed.setdefault(failpoint.point, []).append(failpoint)
    for module, place in (
        (service, "start_reply"),
        (journal, "append_chunks"),
        (journal, "close_replies"),
        (recovery, "close_dead"),
    ):
        vars(module)[place] = at(place, getattr(module, place))
    web.StreamResponse.write = _writing(web.StreamResponse.write)  # type: ignore[method-assign,assignment]


def _writing(
    write: Callable[[web.StreamResponse, bytes], Coroutine[Any, Any, None]],
) -> Callable[[web.StreamResponse, bytes], Coroutine[Any, Any, None]]:
    async def write_and_reach(self: web.StreamResponse, data: bytes) -> None:
        await write(self, data)
        for word in ("accepted", "content", "done"):
            if f'data: {{"{word}"'.encode() in data:
                reach(f"{word}.written")

    return write_and_reach


def main(specs: list[str]) -> None:
    arm([spec for spec in specs if not spec.startswith("mutant:")])
    for spec in specs:
        if spec.startswith("mutant:"):
            MUTANTS[spec.removeprefix("mutant:")]()
    sys.argv[1:] = ["serve"]
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1:])
