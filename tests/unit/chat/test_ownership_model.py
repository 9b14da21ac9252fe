"""All orders of beat, cut, heal, judge, close and commit.

A small world of ticks, walked exhaustively. The rules are those of `FailureDetector`,
with shorter limits, or those that came before. In a tick each process comes back or
beats, then looks and judges, then commits what it judged; whose turn is next is open,
and a cut or a kill may come between any two steps. After a cut each process comes back
at another tick, one later at most. A verdict rests on what one process knows of one
other, so each pair of any number is walked: two that run, and one that starts beside
one that runs, at any moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, NamedTuple

import pytest

from viva_server.chat.failure_detector import FailureDetector, Limits, _Standstill
from viva_server.store.processes import Seen

LIMITS = Limits(
    slow_beats=7, fast_seconds=1, gap_seconds=1, start_seconds=2, settle_seconds=3,
    break_seconds=1,
)  # fmt: skip
BACK_TICKS = 1
CLOSED_TICKS = BACK_TICKS + 3 + 1 + 2  # back, settled, free for 1, the next turns
LATE_TICKS = 1
"""Of the old rules: how old a heartbeat is, by the clock, when it is late."""
_SERVER = datetime(2026, 1, 1, tzinfo=UTC)


class Mind(NamedTuple):
    """What a process knows, with ages for times, none above what matters."""

    beat: int | None = None
    asked: int | None = None
    steady: int | None = None
    has_broken: bool = False
    # Of each other: whether it shows the present heartbeat, own beats and ticks free.
    others: tuple[tuple[int, bool, int, int | None], ...] = ()


class Process(NamedTuple):
    life: Literal["absent", "up", "killed"] = "up"
    has_session: bool = False
    is_dead: bool = False
    away: int = 0  # ticks without a session while the way is open
    beat_age: int = 0  # by the database's clock
    connects: int = 0
    turn: int = 0  # 0 beat, 1 look, 2 commit, 3 done
    judged: tuple[int, str] | None = None  # whom, and how
    is_fresh: bool = False  # the judged one has not beaten since
    mind: Mind = Mind()


@dataclass(frozen=True)
class World:
    processes: tuple[Process, ...]
    is_open: bool = True
    cuts: int = 0
    calm: int = 0  # ticks since anything happened

    def but(self, who: int, **changes: Any) -> World:
        changed = self.processes[who]._replace(**changes)
        processes = (*self.processes[:who], changed, *self.processes[who + 1 :])
        return replace(self, processes=processes)


@cache
def _think(
    mind: Mind,
    what: Literal["connect", "beat", "look"],
    seen: tuple[tuple[int, bool], ...] = (),
) -> tuple[Mind, tuple[tuple[int, str], ...]]:
    """Let the real detector, put back as it was, take note of something at time 0."""
    detector = FailureDetector(LIMITS)
    detector._beat_at = None if mind.beat is None else -mind.beat
    detector._asked_at = float("-inf") if mind.asked is None else -mind.asked
    detector._steady_since = None if mind.steady is None else -mind.steady
    if mind.has_broken:
        detector._steady_for = LIMITS.settle_seconds
    for who, is_same, beats, free in mind.others:
        value = "present" if is_same else "past"
        detector._standstills[str(who)] = _Standstill(
            value, 0, -beats, None if free is None else -free
        )
    match what:
        case "connect":
            detector.connected()
        case "beat":
            detector.beaten(0)
        case "look":
            rows = [Seen(str(w), "present", held, 1, _SERVER) for w, held in seen]
            detector.looked(0, 0, "me", rows)
    verdicts = tuple((int(v.process_id), v.kind) for v in detector.verdicts(0))
    return _remember(detector), verdicts


def _remember(detector: FailureDetector) -> Mind:
    others = tuple(
        (
            int(who),
            each.value == "present",
            min(detector._beats - each.own_beats, LIMITS.slow_beats),
            _age(each.free_since),
        )
        for who, each in sorted(detector._standstills.items())
    )
    has_broken = detector._steady_for == LIMITS.settle_seconds
    return _aged(
        Mind(
            _age(detector._beat_at),
            _age(detector._asked_at),
            _age(detector._steady_since),
            has_broken,
            others,
        ),
        by=0,
    )


def _age(at: float | None) -> int | None:
    return None if at is None or at == float("-inf") else int(-at)


def _aged(mind: Mind, by: int) -> Mind:
    """Let ticks pass; ages stay below what makes no difference any more."""

    def older(age: int | None, most: float) -> int | None:
        return None if age is None else int(min(age + by, most))

    return Mind(
        older(mind.beat, LIMITS.break_seconds + 1),
        older(mind.asked, LIMITS.gap_seconds + 1),
        older(mind.steady, LIMITS.settle_seconds),
        mind.has_broken,
        tuple(
            (who, is_same, beats, older(free, LIMITS.fast_seconds))
            for who, is_same, beats, free in mind.others
        ),
    )


def _beaten(world: World, who: int) -> World:
    """Change the heartbeat of a process: what others know of it is past."""
    for other, process in enumerate(world.processes):
        others = tuple((w, s and w != who, b, f) for w, s, b, f in process.mind.others)
        judged = process.judged
        world = world.but(
            other,
            mind=process.mind._replace(others=others),
            is_fresh=process.is_fresh and judged is not None and judged[0] != who,
        )
    return world.but(who, beat_age=0)


def _turns(world: World, who: int, *, is_old: bool) -> Iterator[World]:
    """Give what the next turn of a process may make of the world."""
    me = world.processes[who]
    world = world.but(who, turn=me.turn + 1)
    if me.life != "up" or me.is_dead or not world.is_open:
        yield world
    elif me.turn == 0:
        if not me.has_session and me.connects and me.away < BACK_TICKS:
            yield world.but(who, away=me.away + 1)  # later
        mind = me.mind if me.has_session else _think(me.mind, "connect")[0]
        mind = _think(mind, "beat")[0]
        connects = me.connects if me.has_session else min(me.connects + 1, 1 + is_old)
        world = world.but(who, mind=mind, has_session=True, away=0, connects=connects)
        yield _beaten(world, who)
    elif me.turn == 1:
        yield from _judge(world, who, is_old=is_old)
    elif me.judged is not None:
        yield _commit(world, who, *me.judged)
    else:
        yield world


def _judge(world: World, who: int, *, is_old: bool) -> Iterator[World]:
    me = world.processes[who]
    rows = tuple(
        (w, p.has_session)
        for w, p in enumerate(world.processes)
        if w != who and p.connects and not p.is_dead
    )
    verdicts: tuple[tuple[int, str], ...] = ()
    if is_old:  # on the pool, which may be back before the heartbeat
        late = [w for w, _ in rows if world.processes[w].beat_age > LATE_TICKS]
        settled = (me.mind.steady or 0) >= LIMITS.settle_seconds
        if me.connects == 1 or settled:
            verdicts = tuple((w, "fast") for w in late)
    elif me.has_session:
        mind, verdicts = _think(me.mind, "look", rows)
        world = world.but(who, mind=mind)
    for verdict in verdicts:
        yield world.but(who, judged=verdict, is_fresh=True)
    if not verdicts:
        yield world


def _commit(world: World, who: int, whom: int, kind: str) -> World:
    me, other = world.processes[who], world.processes[whom]
    world = world.but(who, judged=None, is_fresh=False)
    is_free = kind == "slow" or not other.has_session
    if me.is_fresh and is_free and not other.is_dead:
        return world.but(whom, is_dead=True)
    return world


def _cut(world: World, who: list[int], *, is_open: bool) -> World:
    """Reset all sessions of some; what they were about to commit is undone."""
    for each in who:
        world = world.but(each, has_session=False, judged=None, is_fresh=False, away=0)
    return replace(world, is_open=is_open, cuts=world.cuts + 1, calm=0)


def _happens(world: World, *, cuts: int, kills: bool, alone: bool) -> Iterator[World]:
    """Give what the world around may do, between any two turns."""
    everybody = list(range(len(world.processes)))
    if world.is_open and world.cuts < cuts:
        if alone:
            for each in everybody:
                yield _cut(world, [each], is_open=True)
        else:
            yield _cut(world, everybody, is_open=False)
    lives = [p.life for p in world.processes]
    if kills and "killed" not in lives:
        killed = world.but(0, life="killed", has_session=False, judged=None)
        yield replace(killed, calm=0)


def _next_tick(world: World, *, is_old: bool) -> Iterator[World]:
    processes = tuple(
        p._replace(
            turn=0,
            mind=_aged(p.mind, by=1),
            beat_age=min(p.beat_age + 1, LATE_TICKS + 1) if is_old else 0,
        )
        for p in world.processes
    )
    calm = min(world.calm + 1, CLOSED_TICKS + 1) if world.is_open else 0
    world = replace(world, processes=processes, calm=calm)
    yield world
    if not world.is_open:
        yield replace(world, is_open=True, calm=0)
    for who, process in enumerate(processes):
        if process.life == "absent" and world.is_open:
            yield replace(world.but(who, life="up"), calm=0)


def walk(
    first: World,
    *,
    is_old: bool = False,
    cuts: int = 0,
    kills: bool = False,
    alone: bool = False,
) -> Iterator[World]:
    """Give every world that can come of the first one, each once."""
    seen, waiting = {first}, deque([first])
    while waiting:
        world = waiting.popleft()
        yield world
        due = [w for w, p in enumerate(world.processes) if p.turn < 3]
        following = [n for w in due for n in _turns(world, w, is_old=is_old)]
        following += _happens(world, cuts=cuts, kills=kills, alone=alone)
        if not due:
            following += _next_tick(world, is_old=is_old)
        if not kills:  # then it is not asked for
            following = [replace(each, calm=0) for each in following]
        for each in following:
            if each not in seen:
                seen.add(each)
                waiting.append(each)


PAIR = World((Process(), Process()))
ONE_AND_ONE_THAT_STARTS = World((Process(), Process("absent")))


def _killed_by_a_cut(world: World) -> bool:
    return any(p.is_dead and p.life == "up" for p in world.processes)


def _left_open(world: World) -> bool:
    """A killed process is not closed, though a judge has beaten on for long."""
    return world.calm > CLOSED_TICKS and any(
        p.life == "killed" and p.connects and not p.is_dead for p in world.processes
    )


def test_the_old_rules_declare_the_living_dead_when_a_cut_of_all_ends() -> None:
    assert any(_killed_by_a_cut(w) for w in walk(PAIR, is_old=True, cuts=1))


@pytest.mark.parametrize("first", [PAIR, ONE_AND_ONE_THAT_STARTS])
def test_what_cuts_off_all_makes_nobody_dead(first: World) -> None:
    worlds = 0
    for world in walk(first, cuts=2):
        assert not _killed_by_a_cut(world), world
        worlds += 1
    assert worlds > 1000


def test_a_killed_process_is_closed_in_every_order() -> None:
    closed = 0
    for world in walk(PAIR, cuts=1, kills=True):
        assert not _left_open(world), world
        closed += world.processes[0].is_dead
    assert closed


def test_of_two_that_are_cut_off_alone_one_dies_at_most() -> None:
    dead = {
        tuple(p.is_dead for p in world.processes)
        for world in walk(PAIR, cuts=2, alone=True)
    }
    assert (True, True) not in dead
    assert (True, False) in dead or (False, True) in dead
