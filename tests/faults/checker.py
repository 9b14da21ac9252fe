"""Judges a history: which promises does it break? No I/O.

The invariants, in the words of the contract:

I1   who got `done` finds that very reply in every later snapshot, and for ever;
I1a  who got `accepted` finds the user's message there;
I1b  nothing is stored that nobody asked for or the model did not send;
I3   what was shown is the beginning of what is stored, and that of what was sent;
I3r  a client that comes back goes on where it was, without a gap or a repeat;
I4   seq counts 1, 2, 3 …, and an ended message never changes;
I5   a reply has a question before it, and in the end none is live;
I6   one key is one reply and one model call, whatever is killed;
I7   a stream is accepted, content …, one last event, end; without one it is cut;
I10  nobody sees what is another person's;
I16  two replies of one session never run at once.

Where faults were injected, and noted:

F1   a process is declared dead, and its replies are `crashed`, only if it was killed,
     or alone silent for 15 s, or alone had its connections reset for 1.5 s;
F2   a killed process is declared dead and has no live reply 2 s later, or 17 s after
     the end of another fault that ended less than 15 s before the kill, or later;
F3   while no fault stands no process is away for more than 2 s, so that all are ready
     2 s after the end of each;
F4   nothing else ends a reply or refuses a request but 503 and 504, and all are
     answered in the end.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Literal

from tests.faults.history import Event, History, ModelRun, Stored, figures_of

_ENDED = frozenset({"complete", "partial", "failed"})
_CLOCK_SECONDS = 0.25
"""By how much the end of one run may be noticed after the begin of the next."""

CLOSED_SECONDS, CLOSED_AFTER_FAULT_SECONDS = 2.0, 17.0
_SILENT_SECONDS, _RESET_SECONDS = 15.0, 1.5
_READY_SECONDS = 2.0
_SEEN_SECONDS = 0.5
"""How late a look from outside may see a change, and how old the last beat may be."""


@dataclass(frozen=True, slots=True)
class Broken:
    """One promise that was not kept, and where."""

    invariant: str
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`unknown` where too little happened to say anything."""

    word: Literal["valid", "invalid", "unknown"]
    broken: list[Broken]
    figures: dict[str, int | float]


def check(
    history: History,
    *,
    least_done: int = 1,
    closed_seconds: float = CLOSED_SECONDS,
    slack_seconds: float = 0.0,
) -> Verdict:
    """Judge a history after quiescence.

    A kill is to be closed within `closed_seconds`; `slack_seconds` more may pass on a
    busy machine until that, and until all are ready again.
    """
    broken = [finding for rule in _RULES for finding in rule(history)]
    figures: dict[str, int | float] = {**figures_of(history)}
    if faults := _faults(history):
        doubled = {"I1b", "I3r", "I6"}
        figures["doubled"] = sum(each.invariant in doubled for each in broken)
        broken += _dies_for_a_cause(history, faults, figures)
        broken += _kills_are_closed(
            history, faults, figures, closed_seconds, slack_seconds
        )
        broken += _all_are_ready_again(history, faults, figures, slack_seconds)
        broken += _nothing_else_fails(history)
    if broken:
        return Verdict("invalid", broken, figures)
    word: Literal["valid", "unknown"] = (
        "valid" if figures["done"] >= least_done else "unknown"
    )
    return Verdict(word, broken, figures)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _views(history: History) -> Iterator[tuple[int, str, list[Stored]]]:
    """Give all looks at stored messages: when begun, whose, what; the dump last."""
    begun: dict[str, int] = {}
    for event in history.of("snapshot"):
        if event.kind == "invoke":
            begun[event.by] = event.index
        elif event.kind == "ok":
            yield begun[event.by], event.facts["person"], event.facts["messages"]
    by_person = defaultdict(list)
    for message in history.stored:
        by_person[message.person].append(message)
    for person, messages in by_person.items():
        yield len(history.events), person, messages


def _persons(history: History) -> dict[str, str]:
    """Give the person behind each client."""
    return {e.by: e.facts["person"] for e in history.of("chat") if e.kind == "invoke"}


def _expect(
    history: History, events: Iterable[Event]
) -> Iterator[tuple[Event, dict[str, Stored]]]:
    """Pair each event with every later look at that person's messages."""
    persons = _persons(history)
    views: dict[str, list[tuple[int, dict[str, Stored]]]] = defaultdict(list)
    for begun, person, messages in _views(history):
        views[person].append((begun, {m.id: m for m in messages}))
    for event in events:
        person = persons[event.by]
        # A person without any stored message has lost it: the dump must have it.
        for begun, found in views[person] or [(len(history.events), {})]:
            if begun > event.index:
                yield event, found


def _done_is_durable(history: History) -> Iterator[Broken]:
    for event, messages in _expect(history, history.of("done")):
        facts, found = event.facts, messages.get(event.facts["message"])
        if found is None:
            yield Broken("I1", f"lost: {facts['message']}")
        elif (_sha(found.text), found.status) != (facts["sha256"], facts["status"]):
            yield Broken("I1", f"changed after done: {facts['message']}")


def _accepted_is_durable(history: History) -> Iterator[Broken]:
    asked = {e.by: e.facts["text"] for e in history.of("chat") if e.kind == "invoke"}
    for event, messages in _expect(history, history.of("accepted")):
        found = messages.get(event.facts["user_message"])
        if found is None:
            yield Broken("I1a", f"lost: {event.facts['user_message']}")
        elif found.text != asked[event.by]:
            yield Broken("I1a", f"another text: {found.id}")


def _nothing_is_invented(history: History) -> Iterator[Broken]:
    asked = Counter[tuple[str, str]]()
    for event in history.of("chat"):
        if event.kind == "invoke":
            asked[event.facts["person"], event.facts["text"]] += 1
    stored = Counter((m.person, m.text) for m in history.stored if m.role == "user")
    for question, times in stored.items():
        if not asked[question]:
            yield Broken("I1b", f"nobody asked {question}")
        elif times > asked[question]:
            yield Broken("I1b", f"stored {times} times: {question}")


def _questions(messages: Iterable[Stored]) -> Iterator[tuple[Stored, Stored | None]]:
    """Pair each reply with the user's message before it."""
    question: dict[str, Stored] = {}
    for message in sorted(messages, key=lambda m: (m.session_id, m.seq)):
        if message.role == "user":
            question[message.session_id] = message
        else:
            yield message, question.get(message.session_id)


def _runs(history: History) -> dict[str, list[ModelRun]]:
    runs = defaultdict(list)
    for run in history.runs:
        runs[run.question].append(run)
    return runs


def _what_was_shown_is_kept(history: History) -> Iterator[Broken]:
    stored = {m.id: m for m in history.stored}
    for event in history.of("content"):
        facts, found = event.facts, stored.get(event.facts["message"])
        begin = facts["offset"] - len(facts["text"])
        if found is None:
            yield Broken("I3", f"lost: {facts['message']}")
        elif found.text[begin : facts["offset"]] != facts["text"]:
            lost = facts["offset"] - len(found.text)
            yield Broken("I3", f"shown and not kept ({lost}): {facts['message']}")


def _what_is_stored_was_sent(history: History) -> Iterator[Broken]:
    runs = _runs(history)
    for reply, question in _questions(history.stored):
        sent = runs.get(question.text, []) if question else []
        if reply.text and not any(run.text.startswith(reply.text) for run in sent):
            yield Broken("I3", f"stored, but not what the model sent: {reply.id}")
        elif reply.status == "complete" and not any(
            run.text == reply.text and run.is_whole for run in sent
        ):
            yield Broken("I3", f"complete, but not all of it: {reply.id}")


def _coming_back_has_no_gap(history: History) -> Iterator[Broken]:
    at: dict[tuple[str, str], int] = {}
    for event in history.of("accepted", "content"):
        facts = event.facts
        client = (event.by, facts["message"])
        if event.what == "accepted":
            if facts["offset"] != at.get(client, 0):
                yield Broken("I3r", f"{client} was at {at.get(client, 0)}: {facts}")
            at[client] = facts["offset"]
            continue
        if at.get(client, 0) + len(facts["text"]) != facts["offset"]:
            yield Broken("I3r", f"gap or repeat: {client} {facts['offset']}")
        at[client] = facts["offset"]


def _seq_has_no_gap(history: History) -> Iterator[Broken]:
    for _, person, messages in _views(history):
        sessions = defaultdict(list)
        for message in messages:
            sessions[message.session_id].append(message.seq)
        for session, seqs in sessions.items():
            if sorted(seqs) != list(range(1, len(seqs) + 1)):
                yield Broken("I4", f"{person} {session}: {sorted(seqs)}")


def _ended_is_for_ever(history: History) -> Iterator[Broken]:
    ended: dict[str, Stored] = {}
    for _, _, messages in _views(history):
        for message in messages:
            if message.status not in _ENDED:
                if message.id in ended:
                    yield Broken("I4", f"live again: {message.id}")
                continue
            if ended.setdefault(message.id, message) != message:
                yield Broken("I4", f"changed after its end: {message.id}")


def _turns_have_their_shape(history: History) -> Iterator[Broken]:
    answers = Counter[str]()
    for reply, question in _questions(history.stored):
        if question is None:
            yield Broken("I5", f"a reply to nothing: {reply.id}")
            continue
        answers[question.id] += reply.status in {"complete", "partial"}
        if reply.status not in _ENDED:
            yield Broken("I5", f"still {reply.status}: {reply.id}")
        if (reply.status == "failed") != (reply.text == ""):
            yield Broken("I5", f"{reply.status} with {len(reply.text)} chars")
    for question_id, count in answers.items():
        if count > 1:
            yield Broken("I5", f"{count} answers to {question_id}")


def _one_key_is_one_reply(history: History) -> Iterator[Broken]:
    keys = {
        event.by: (event.facts["person"], event.facts["key"])
        for event in history.of("chat")
        if event.kind == "invoke" and event.facts.get("key")
    }
    replies: dict[tuple[str, str], set[str]] = defaultdict(set)
    owners: dict[str, str] = {}
    persons = _persons(history)
    for event in history.of("accepted"):
        message = event.facts["message"]
        if owners.setdefault(message, persons[event.by]) != persons[event.by]:
            yield Broken("I6", f"one reply for two persons: {message}")
        if event.by in keys:
            replies[keys[event.by]].add(message)
    for key, messages in replies.items():
        if len(messages) > 1:
            yield Broken("I6", f"{key}: {len(messages)} replies")
    for question, runs in _runs(history).items():
        if len(runs) > 1:
            yield Broken("I6", f"{len(runs)} model calls: {question}")


def _streams_keep_the_grammar(history: History) -> Iterator[Broken]:
    streams: dict[tuple[str, int], list[Event]] = defaultdict(list)
    for event in history.of("accepted", "content", "done", "error", "closed"):
        streams[event.by, event.facts["connection"]].append(event)
    for where, events in streams.items():
        words = [event.what for event in events]
        last = [word for word in words if word in {"done", "error"}]
        if words[0] not in {"accepted", "closed"} or words.count("accepted") > 1:
            yield Broken("I7", f"{where}: begins {words[:2]}")
        if len(last) > 1 or (last and words[words.index(last[0]) + 1 :] != ["closed"]):
            yield Broken("I7", f"{where}: ends {words[-3:]}")
        how = events[-1].facts.get("how")
        if how == "clean" and not last and words[0] == "accepted":
            yield Broken("I7", f"{where}: a clean end without a last event")


def _nobody_sees_another(history: History) -> Iterator[Broken]:
    whose = {e.facts["text"]: e.facts["person"] for e in history.of("chat")
             if e.kind == "invoke"}  # fmt: skip
    for _, person, messages in _views(history):
        for message in messages:
            if message.role == "user" and whose.get(message.text, person) != person:
                yield Broken("I10", f"{person} sees {message.id}")


def _one_run_at_a_time(history: History) -> Iterator[Broken]:
    session = {m.text: m.session_id for m in history.stored if m.role == "user"}
    runs = defaultdict(list)
    for run in history.runs:
        if run.question in session:
            runs[session[run.question]].append(run)
    for session_id, of_session in runs.items():
        of_session.sort(key=lambda run: run.began)
        for before, after in pairwise(of_session):
            if after.began < before.ended - _CLOCK_SECONDS:
                overlap = before.ended - after.began
                yield Broken("I16", f"two runs at once ({overlap:.2f} s): {session_id}")


_RULES = (
    _done_is_durable,
    _accepted_is_durable,
    _nothing_is_invented,
    _what_was_shown_is_kept,
    _what_is_stored_was_sent,
    _coming_back_has_no_gap,
    _seq_has_no_gap,
    _ended_is_for_ever,
    _turns_have_their_shape,
    _one_key_is_one_reply,
    _streams_keep_the_grammar,
    _nobody_sees_another,
    _one_run_at_a_time,
)


@dataclass(frozen=True, slots=True)
class _Fault:
    """One injected fault: when it stood, and what it did to whom."""

    name: str
    effect: str
    on: frozenset[str]
    is_alone: bool
    begin: float
    end: float


def _faults(history: History) -> list[_Fault]:
    """Give the faults by their begin; the start of the processes is one that ends."""
    begun = {e.facts["number"]: e for e in history.of("fault") if e.kind == "invoke"}
    faults = []
    for event in history.of("fault"):
        if event.kind != "ok":
            continue
        facts = event.facts
        begin = begun.get(facts["number"], event).at
        on = frozenset(facts.get("on", ()))
        effect, is_alone = facts.get("effect", ""), facts.get("is_alone", False)
        faults.append(_Fault(facts["name"], effect, on, is_alone, begin, event.at))
    return sorted(faults, key=lambda fault: fault.begin)


def _dies_for_a_cause(
    history: History, faults: list[_Fault], figures: dict[str, int | float]
) -> Iterator[Broken]:
    killed = {e.facts["pid"]: e.at for e in history.of("kill") if e.kind == "invoke"}
    crashed = Counter(
        history.owners.get(message.id, "nobody")
        for message in history.stored
        if message.finish_reason == "crashed"
    )
    figures["crashed"] = crashed.total()
    figures["crashed_without_cause"] = 0
    deaths = {event.facts["process"]: event for event in history.of("dead")}
    for process, death in deaths.items():
        if killed.get(death.facts["pid"], death.at + 1) <= death.at:
            continue
        if _was_cut_off(death, faults):
            continue
        figures["crashed_without_cause"] += crashed[process]
        near = [
            f.name
            for f in faults
            if f.begin <= death.at <= f.end + CLOSED_AFTER_FAULT_SECONDS
        ]
        yield Broken(
            "F1", f"{death.by} called dead, {crashed[process]} replies; faults: {near}"
        )
    for process in crashed.keys() - deaths.keys():
        figures["crashed_without_cause"] += crashed[process]
        yield Broken("F1", f"{crashed[process]} replies crashed, {process} lived")


def _was_cut_off(death: Event, faults: list[_Fault]) -> bool:
    """Whether the process alone was silent or reset for long enough."""
    for effects, least in (
        ({"silent", "reset"}, _SILENT_SECONDS),
        ({"reset"}, _RESET_SECONDS),
    ):
        since = end = float("-inf")
        for fault in faults:
            if death.by in fault.on and fault.is_alone and fault.effect in effects:
                since = since if fault.begin <= end + _SEEN_SECONDS else fault.begin
                end = max(end, fault.end)
                if since + least - _SEEN_SECONDS <= death.at <= end + _SEEN_SECONDS:
                    return True
    return False


def _kills_are_closed(
    history: History,
    faults: list[_Fault],
    figures: dict[str, int | float],
    closed_seconds: float,
    slack_seconds: float,
) -> Iterator[Broken]:
    closed = {e.facts["pid"]: e.at for e in history.of("kill") if e.kind == "ok"}
    took: dict[bool, list[float]] = {True: [0.0], False: [0.0]}
    kills = [event for event in history.of("kill") if event.kind == "invoke"]
    for kill in kills:
        limit = alone = kill.at + closed_seconds
        for fault in faults:
            is_its_own = fault.is_alone and fault.effect == "killed"
            is_its_own &= kill.by in fault.on and fault.begin <= kill.at <= fault.end
            if is_its_own or fault.begin > limit + slack_seconds:
                continue
            limit = max(limit, fault.end + CLOSED_AFTER_FAULT_SECONDS)
        at = closed.get(kill.facts["pid"], float("inf"))
        took[limit == alone].append(at - kill.at)
        if at > limit + slack_seconds:
            yield Broken(
                "F2", f"{kill.by} closed {at - kill.at:.2f} s after its kill, "
                f"not {limit - kill.at:.2f}"
            )  # fmt: skip
    figures["kills"] = len(kills)
    figures["closed_max_s"] = round(max(took[True]), 2)
    figures["closed_near_a_fault_max_s"] = round(max(took[False]), 2)


def _rests(history: History, faults: list[_Fault]) -> Iterator[tuple[_Fault, float]]:
    """Give the times without a fault: the one that ended last, and when one begins."""
    latest = faults[0]
    begins = [fault.begin for fault in faults[1:]]
    for fault, until in zip(faults, [*begins, history.events[-1].at], strict=True):
        latest = max(latest, fault, key=lambda each: each.end)
        if latest.end < until:
            yield latest, until


def _all_are_ready_again(
    history: History,
    faults: list[_Fault],
    figures: dict[str, int | float],
    slack_seconds: float,
) -> Iterator[Broken]:
    figures["ready_again_max_s"] = 0.0
    for fault, until in _rests(history, faults):
        for server, down, up in _absences(history):
            took = round(min(up, until) - max(down, fault.end), 2)
            figures["ready_again_max_s"] = max(took, figures["ready_again_max_s"])
            if took > _READY_SECONDS + _SEEN_SECONDS + slack_seconds:
                since = max(down - fault.end, 0.0)
                yield Broken(
                    "F3", f"{server} not ready for {took} s, {since:.1f} s after "
                    f"{fault.name!r}"
                )  # fmt: skip


def _absences(history: History) -> Iterator[tuple[str, float, float]]:
    """Give which process was not ready, from when to when."""
    downs: dict[str, float] = {}
    for event in history.of("ready"):
        if not event.facts["is_ready"]:
            downs.setdefault(event.by, event.at)
        elif event.by in downs:
            yield event.by, downs.pop(event.by), event.at
    for server, down in downs.items():
        yield server, down, history.events[-1].at


def _nothing_else_fails(history: History) -> Iterator[Broken]:
    for message in history.stored:
        if message.finish_reason not in {None, "stop", "crashed"}:
            yield Broken("F4", f"{message.finish_reason}: {message.id}")
    for event in chain(history.of("closed"), history.of("chat")):
        status = event.facts.get("status", 0)
        if status >= 400 and status not in {503, 504}:
            yield Broken("F4", f"answered {status}: {event.by}")
        if event.facts.get("why") == "time":
            yield Broken("F4", f"never answered: {event.by}")
