"""The checker finds what it looks for: a good run is valid, each defect is seen."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.checker import check
from tests.faults.crowd import Crowd
from tests.faults.dying import frozen
from tests.faults.fleet import Fleet, Server
from tests.faults.history import Event, History, Kind, Stored
from tests.faults.talk import close_history, quiet
from tests.faults.toy import Toy

DEFECTS = {
    "accepted goes out before the commit": "I1a",
    "done goes out before the commit": "I1",
    "text is shown before its commit": "I3",
    "the last chunk is not in the closed reply": "I3",
    "a broken answer counts as whole": "I3",
    "an event is lost at the client": "I3r",
    "a resume repeats": "I3r",
    "a resume leaves a gap": "I3r",
    "a dead process writes on": "I4",
    "seq comes from a sequence": "I4",
    "the commit is retried blindly": "I1b",
    "keys of all are one": "I6",
    "two runs at once": "I16",
    "done comes twice": "I7",
    "a cut stream ends cleanly": "I7",
    "a snapshot forgets whose it is": "I10",
}


def run_toy(defect: str = "") -> History:
    toy = Toy(defect)
    toy.ask("ana", "first")
    toy.look("ana")
    toy.ask("bruno", "second", crash_at=3)
    toy.look("bruno")
    toy.look("ana")
    return toy.finish()


def test_a_run_that_keeps_every_promise_is_valid() -> None:
    verdict = check(run_toy())
    assert (verdict.word, verdict.broken) == ("valid", [])


def test_a_run_in_which_nothing_was_done_is_unknown() -> None:
    assert check(History()).word == "unknown"


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_makes_the_run_invalid_by_its_invariant(defect: str) -> None:
    verdict = check(run_toy(defect))
    assert verdict.word == "invalid"
    assert DEFECTS[defect] in {broken.invariant for broken in verdict.broken}


class Cuts:
    """A toy's run, and faults that two processes met; seconds since its begin."""

    def __init__(self) -> None:
        self.history = run_toy()
        self._faults = 0
        self.fault(0, 0, "start")
        for server in ("one", "two"):
            self.note(1, server, "ev", "ready", is_ready=True)

    def note(self, at: float, by: str, kind: Kind, what: str, **facts: object) -> None:
        self.history.events.append(
            Event(len(self.history.events), at, by, kind, what, facts)
        )

    def fault(self, begin: float, end: float, effect: str, *on: str) -> None:
        """Note a fault; one without processes is one for all."""
        facts = {"number": self._faults, "name": effect, "effect": effect}
        facts |= {"on": on or ("one", "two"), "is_alone": bool(on)}
        self._faults += 1
        self.note(begin, "nemesis", "invoke", "fault", **facts)
        self.note(end, "nemesis", "ok", "fault", **facts)

    def dies(self, at: float, pid: int = 7) -> None:
        """Process one, with this pid, is declared dead, and a reply of it closed."""
        self.note(at, "one", "ev", "dead", process="row", pid=pid)
        self.reply("crashed")
        self.history.owners = {"the reply": "row"}

    def kill(self, at: float, closed: float | None, pid: int = 7) -> None:
        self.fault(at - 0.1, at + 1, "killed", "one")
        self.note(at, "one", "invoke", "kill", pid=pid)
        if closed is not None:
            self.note(closed, "one", "ok", "kill", pid=pid)

    def reply(self, finish_reason: str) -> None:
        self.history.stored += [
            Stored(
                person="carla",
                session_id="session of carla",
                seq=seq,
                id=message_id,
                role=role,
                text="",
                status="failed" if role == "assistant" else "complete",
                finish_reason=finish_reason if role == "assistant" else None,
            )
            for seq, (message_id, role) in enumerate(
                (("the question", "user"), ("the reply", "assistant")), 1
            )
        ]
        self.note(0, "carla", "invoke", "chat", person="carla", text="")

    def ready(self, at: float, *, is_ready: bool) -> None:
        self.note(at, "one", "ev", "ready", is_ready=is_ready)

    def judge(self) -> list[str]:
        self.note(300, "nemesis", "info", "end")
        self.history.events.sort(key=lambda event: event.at)
        return [f"{each.invariant}" for each in check(self.history).broken]


ALLOWED: dict[str, list[tuple[Any, ...]]] = {
    "alone silent for 15 s": [("fault", 100, 118, "silent", "one"), ("dies", 115.1)],
    "alone reset for 1.5 s": [("fault", 100, 103, "reset", "one"), ("dies", 101.7)],
    "silent, then reset": [
        ("fault", 100, 110, "silent", "one"),
        ("fault", 110, 120, "reset", "one"),
        ("dies", 111.6),
    ],
    "killed": [("kill", 100, 101.9), ("dies", 101.8)],
    "killed 10 s after a fault": [("fault", 80, 90, "reset"), ("kill", 100, 106.9)],
    "killed while all are cut": [("fault", 95, 105, "reset"), ("kill", 100, 121.9)],
    "a fault soon after a kill": [("kill", 100, 118), ("fault", 101, 102, "reset")],
    "not ready in a fault, and 2 s after it": [
        ("fault", 100, 110, "reset"),
        ("ready", 101, False),
        ("ready", 112, True),
    ],
}

BREACHES: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "silent for 14 s": (
        "F1",
        [("fault", 100, 118, "silent", "one"), ("dies", 114)],
    ),
    "reset for 0.9 s": ("F1", [("fault", 100, 103, "reset", "one"), ("dies", 100.9)]),
    "all were silent": ("F1", [("fault", 100, 120, "silent"), ("dies", 116)]),
    "all were reset": ("F1", [("fault", 100, 103, "reset"), ("dies", 102)]),
    "the other was silent": (
        "F1",
        [("fault", 100, 118, "silent", "two"), ("dies", 115.1)],
    ),
    "dead after it came back": (
        "F1",
        [("fault", 100, 118, "silent", "one"), ("dies", 119)],
    ),
    "dead for nothing": ("F1", [("dies", 100)]),
    "dead before it was killed": ("F1", [("dies", 99), ("kill", 100, 101)]),
    "another process was killed": ("F1", [("kill", 100, 101), ("dies", 101, 8)]),
    "crashed, and nobody died": ("F1", [("reply", "crashed")]),
    "closed after 2.6 s": ("F2", [("kill", 100, 102.6)]),
    "never closed": ("F2", [("kill", 100, None)]),
    "closed 17.6 s after a fault": (
        "F2",
        [("fault", 80, 90, "reset"), ("kill", 100, 107.6)],
    ),
    "a fault 16 s before": ("F2", [("fault", 80, 84, "reset"), ("kill", 100, 107)]),
    "ready 3 s after": (
        "F3",
        [("fault", 100, 110, "reset"), ("ready", 101, False), ("ready", 113, True)],
    ),
    "never ready again": (
        "F3",
        [("fault", 100, 110, "reset"), ("ready", 101, False)],
    ),
    "not ready when nothing happens": (
        "F3",
        [("fault", 100, 110, "reset"), ("ready", 120, False), ("ready", 123, True)],
    ),
    "the model is blamed": ("F4", [("reply", "upstream_error")]),
}


def cuts(steps: Sequence[tuple[Any, ...]]) -> Cuts:
    made = Cuts()
    for name, *arguments in steps:
        if name == "ready":
            made.ready(arguments[0], is_ready=arguments[1])
        else:
            getattr(made, name)(*arguments)
    return made


@pytest.mark.parametrize("name", ALLOWED)
def test_what_a_fault_may_cost_is_valid(name: str) -> None:
    assert cuts(ALLOWED[name]).judge() == []


@pytest.mark.parametrize("name", BREACHES)
def test_what_a_fault_must_not_cost_is_found(name: str) -> None:
    invariant, steps = BREACHES[name]
    assert cuts(steps).judge() == [invariant]


@pytest.mark.parametrize(
    ("what", "facts", "is_broken"),
    [
        ("closed", {"connection": 99, "how": "refused", "status": 500}, True),
        ("closed", {"connection": 99, "how": "refused", "status": 503}, False),
        ("chat", {"why": "time"}, True),
    ],
)
def test_a_request_that_is_not_answered_as_promised_is_found(
    what: str, facts: dict[str, object], is_broken: bool
) -> None:
    made = Cuts()
    made.note(120, "a client", "info", what, **facts)
    assert made.judge() == ["F4"] * is_broken


@pytest.mark.parametrize(
    ("mutant", "invariant"),
    [
        ("show_before_commit", "I3"),
        ("done_before_commit", "I1"),
        ("lose_last_chunk", "I3"),
    ],
)
async def test_a_real_server_with_a_defect_is_found_out(
    fleet: Fleet, model: FakeModel, mutant: str, invariant: str
) -> None:
    model.scripts = [Script(tokens=20, interval_ms=30)]
    history = History()
    (server,) = await fleet.start(1, armed=[f"mutant:{mutant}"])
    (heir,) = await fleet.start(1)
    await fleet.may_judge()

    def servers() -> list[Server]:
        return [server] if server.is_running else [heir]

    async with Crowd(history, servers, 20, questions=2) as crowd:
        await crowd.all_have_text()
        if mutant != "show_before_commit":
            while not any(history.of("done")):
                await asyncio.sleep(0.005)
        server.signal(signal.SIGKILL)
        await server.exit_code()
    await quiet(fleet.dsn)
    verdict = check(close_history(history, fleet.dsn, model))
    assert invariant in {broken.invariant for broken in verdict.broken}, verdict


async def test_a_real_server_without_the_fence_is_found_out(
    fleet: Fleet, model: FakeModel
) -> None:
    armed = ["mutant:write_when_dead"]
    with pytest.raises((AssertionError, TimeoutError)):  # it writes, or cuts nobody
        await frozen(fleet, model, seconds=6.0, armed=armed, persons=5)
