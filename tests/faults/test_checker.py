"""The checker finds what it looks for: a good run is valid, each defect is seen."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.checker import check
from tests.faults.crowd import Crowd
from tests.faults.dying import frozen
from tests.faults.fleet import Fleet, Server
from tests.faults.history import History
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
    with pytest.raises(AssertionError):
        await frozen(fleet, model, seconds=4.0, armed=armed, persons=5)
