"""Judges a run of WhatsApp by four witnesses; no I/O.

The persons tell what they wrote, the fake model what it was asked, the fake Evolution
what it sent, the database what became of each message. A message is named by a token
in its text, which the model's answer repeats: who answered what is seen without our
own tables.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import TypeVar

Figures = dict[str, int]
Witness = TypeVar("Witness")

_MARGIN_SECONDS = 2.0
"""Between the look at a chat and the commit of its turn, on a busy machine."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message that a person wrote; times are epoch seconds.

    `known_at` is when a server had acknowledged it first, by a webhook or otherwise;
    None: never.
    """

    token: str
    message_id: str
    jid: str
    at: float
    known_at: float | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the model: the tokens of its last message, and of the earlier."""

    tokens: tuple[str, ...]
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Got:
    """What WhatsApp got, in the order of its arrival."""

    jid: str
    tokens: tuple[str, ...]
    message_id: str


@dataclass(frozen=True, slots=True)
class Row:
    """A message in the database."""

    message_id: str
    turn_id: str | None
    why_not: str | None


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn in the database."""

    id: str
    state: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Part:
    """A send in the database; `was_unknown`: one of its requests had no clear end."""

    turn_id: str
    seq: int
    state: str
    message_id: str | None
    was_unknown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the witnesses say after all has become quiet.

    The turns' times are the database's, whose clock may have been ahead by so much.
    """

    said: Sequence[Said]
    asked: Sequence[Asked]
    got: Sequence[Got]
    rows: Sequence[Row]
    turns: Sequence[Turn]
    parts: Sequence[Part]
    clock_ahead_seconds: float = 0.0


@dataclass(slots=True)
class Verdict:
    """Figures, and each promise that was broken, in words."""

    figures: Figures = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether something was done and nothing is broken."""
        return bool(self.figures.get("answered")) and not self.broken


class _Case:
    """The evidence, with the ways from one witness to the other."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.turns = {turn.id: turn for turn in evidence.turns}
        self.rows = {row.message_id: row for row in evidence.rows}
        self.got = _by_token((got.tokens, got) for got in evidence.got)
        self.asked = _by_token((asked.tokens, asked) for asked in evidence.asked)
        self.parts: dict[str, list[Part]] = defaultdict(list)
        for part in evidence.parts:
            self.parts[part.turn_id].append(part)
        self.arrived = {got.message_id for got in evidence.got}

    def turn_of(self, said: Said) -> Turn | None:
        row = self.rows.get(said.message_id)
        return self.turns.get(row.turn_id or "") if row else None

    def parts_of(self, said: Said) -> list[Part]:
        turn = self.turn_of(said)
        return self.parts[turn.id] if turn else []


def _by_token(
    pairs: Iterable[tuple[Sequence[str], Witness]],
) -> Mapping[str, list[Witness]]:
    found: dict[str, list[Witness]] = defaultdict(list)
    for tokens, witness in pairs:
        for token in tokens:
            found[token].append(witness)
    return found


def judge(evidence: Evidence) -> Verdict:
    """Count what became of each message and name all that must not be."""
    case = _Case(evidence)
    ends = {said.token: _end_of(case, said) for said in evidence.said}
    counts = Counter(ends.values())
    late, disordered = _order(case)
    names = ("answered", "lost", "doubled", "ambiguous", "given_up")
    figures = {
        "messages": len(evidence.said),
        **{name: counts[name] for name in names},
        "late": late,
        **_sends(case),
    }
    broken = [
        *(f"{end}: {token}" for token, end in ends.items() if end in _BROKEN),
        *disordered,
        *_strangers(case),
        *_questions(case),
        *_records(case),
    ]
    return Verdict({**figures, "disordered": len(disordered)}, broken)


_BROKEN = {"lost", "doubled"}


def _end_of(case: _Case, said: Said) -> str:
    """Say what became of one message.

    Without a reply it is lost, but for two ends that are counted apart: its reply may
    have been sent and nobody could tell, or its turn was given up and the person told.
    """
    replies = case.got.get(said.token, [])
    if replies:
        return "answered" if len(replies) == 1 else "doubled"
    parts = case.parts_of(said)
    if said.token in case.asked and any(part.state == "unknown" for part in parts):
        return "ambiguous"
    turn = case.turn_of(said)
    is_told = any(part.message_id in case.arrived for part in parts)
    return "given_up" if turn and turn.state == "dead" and is_told else "lost"


def _sends(case: _Case) -> Figures:
    """Count the sends whose outcome was not clear, and what it was in truth."""
    parts = case.evidence.parts
    replied = {
        turn.id
        for said in case.evidence.said
        if said.token in case.got and (turn := case.turn_of(said))
    }
    left = [part for part in parts if part.state == "unknown"]
    return {
        "sends": len(parts),
        "sends_ambiguous": sum(part.was_unknown for part in parts),
        "sends_settled": sum(p.was_unknown and p.state == "sent" for p in parts),
        "unknown_and_sent": sum(part.turn_id in replied for part in left),
        "unknown_and_unsent": sum(part.turn_id not in replied for part in left),
    }


def _order(case: _Case) -> tuple[int, list[str]]:
    """Compare, in each chat, the order of writing with the order of the replies.

    A message that no server knew when the later one's turn began cannot be answered
    before it: that one is late, and not out of order.
    """
    late: set[str] = set()
    disordered = []
    place = {
        token: (number, inner)
        for number, got in enumerate(case.evidence.got)
        for inner, token in enumerate(got.tokens)
    }
    for chat in _chats(case.evidence.said):
        answered = [said for said in chat if said.token in place]
        for first, second in combinations(answered, 2):
            before, after = place[first.token], place[second.token]
            if before < after:
                continue
            if before[0] == after[0]:
                # One turn: WhatsApp's own clock, which has seconds, is the order.
                is_wrong = int(first.at) < int(second.at)
            else:
                is_wrong = _was_known(case, first, second)
            if is_wrong:
                disordered.append(f"disordered: {first.token}, {second.token}")
            elif before[0] != after[0]:
                late.add(first.token)
    return len(late), disordered


def _chats(said: Sequence[Said]) -> Iterator[list[Said]]:
    chats: dict[str, list[Said]] = defaultdict(list)
    for each in said:
        chats[each.jid].append(each)
    for chat in chats.values():
        yield sorted(chat, key=lambda each: each.at)


def _was_known(case: _Case, first: Said, second: Said) -> bool:
    turn = case.turn_of(second)
    if first.known_at is None or turn is None:
        return False
    margin = _MARGIN_SECONDS + case.evidence.clock_ahead_seconds
    return first.known_at < turn.created_at - margin


def _strangers(case: _Case) -> Iterator[str]:
    """Find what was sent to the wrong chat, twice, out of turn, or for no reason."""
    chat_of = {said.token: said.jid for said in case.evidence.said}
    told = {
        part.message_id
        for part in case.evidence.parts
        if case.turns[part.turn_id].state == "dead"
    }
    for got in case.evidence.got:
        if not got.tokens and got.message_id not in told:
            yield f"unexpected: {got.message_id} in {got.jid}"
        for token in got.tokens:
            if chat_of.get(token) != got.jid:
                yield f"wrong chat: {token} in {got.jid}"
    yield from _sends_out_of_turn(case)


def _sends_out_of_turn(case: _Case) -> Iterator[str]:
    seq_of = {part.message_id: part.seq for part in case.evidence.parts}
    seqs: dict[str, list[int]] = defaultdict(list)
    for got in case.evidence.got:
        if (seq := seq_of.get(got.message_id)) is not None:
            seqs[got.jid].append(seq)
    for jid, chat in seqs.items():
        if any(before >= after for before, after in pairwise(chat)):
            yield f"sends out of turn: {jid}"


def _questions(case: _Case) -> Iterator[str]:
    """Check what the model was asked: each message in one turn, and seen once."""
    for asked in case.evidence.asked:
        seen = Counter([*asked.earlier, *asked.tokens])
        for token, times in seen.items():
            if times > 1:
                yield f"the model sees it {times} times: {token}"
    for token, questions in case.asked.items():
        if len({frozenset(asked.tokens) for asked in questions}) > 1:
            yield f"asked in two turns: {token}"


def _records(case: _Case) -> Iterator[str]:
    """Check that the database says the same, and has nothing left to do."""
    for said in case.evidence.said:
        row = case.rows.get(said.message_id)
        if row is None:
            yield f"not stored: {said.token}"
        elif row.why_not is not None:
            yield f"passed over as {row.why_not!r}: {said.token}"
        elif row.turn_id is None:
            yield f"waits for ever: {said.token}"
        for got in case.got.get(said.token, []):
            parts = case.parts_of(said)
            known = {part.message_id for part in parts if part.state == "sent"}
            if got.message_id not in known and not _is_open(parts):
                yield f"sent and not recorded: {said.token}"
    for turn in case.evidence.turns:
        if turn.state == "running":
            yield f"a turn runs for ever: {turn.id}"
        if len(case.parts[turn.id]) != 1:
            yield f"{len(case.parts[turn.id])} sends: turn {turn.id}"
    for part in case.evidence.parts:
        if part.state not in {"sent", "unknown"}:
            yield f"a send is {part.state}: turn {part.turn_id}"


def _is_open(parts: Sequence[Part]) -> bool:
    return any(part.state == "unknown" for part in parts)
