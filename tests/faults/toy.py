"""A chat server of forty lines in memory that keeps the promises, or breaks one.

It writes the history that real clients, model and database would have written, so that
the checker can be shown each defect without a server.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tests.faults.history import History, ModelRun, Stored

TOKENS = ("Olá, ", "tudo ", "bem? ", "😀 ", "Sim.")


class Toy:
    """One process that may crash; `defect` names what it does wrong.

    A committed reply is in `rows`; `_show` is what a client sees.
    """

    def __init__(self, defect: str = "") -> None:
        self.history = History()
        self.rows: list[Stored] = []
        self._defect = defect
        self._count: dict[str, int] = {}
        self._keys: dict[str, Stored] = {}
        self._connections = 0
        self._clock = 0.0

    def ask(self, person: str, text: str, *, crash_at: int | None = None) -> None:
        """Answer a message; a crash comes before that token, and the client returns."""
        client, key = f"{person} client {text}", "the key"
        self._note(client, "invoke", "chat", person=person, text=text, key=key)
        known = self._keys.get(key) if self._defect == "keys of all are one" else None
        question = self._store(person, "user", text)
        if self._defect == "the commit is retried blindly":
            self._store(person, "user", text)
        reply = known or self._store(person, "assistant", "", "streaming")
        self._keys[key] = reply
        self._connect(client, reply, question, 0)
        shown = self._generate(client, reply, text, crash_at)
        reply = next(row for row in self.rows if row.id == reply.id)
        if crash_at is not None and self._defect != "a cut stream ends cleanly":
            shown = self._come_back(client, reply, question, shown)
        self._end(client, reply)
        self._closed(client, "clean")
        self._note(client, "ok", "chat")

    def look(self, person: str) -> None:
        """Take a snapshot."""
        facts = {"person": person}
        self._note("looker", "invoke", "snapshot", **facts)
        everything = self._defect == "a snapshot forgets whose it is"
        seen = [row for row in self.rows if everything or row.person == person]
        self._note("looker", "ok", "snapshot", person=person, messages=seen)

    def finish(self) -> History:
        """Give the history after quiescence."""
        self.history.stored = list(self.rows)
        return self.history

    def _generate(
        self, client: str, reply: Stored, text: str, crash_at: int | None
    ) -> int:
        """Show and store tokens until a crash; give the characters that were shown."""
        said = TOKENS if crash_at is None else TOKENS[:crash_at]
        if self._defect == "a broken answer counts as whole":
            said = said[:-1]
        offset = 0
        for token in said:
            offset += len(token)
            self._show(client, reply, token, offset)
        if self._defect == "an event is lost at the client" and len(said) > 1:
            del self.history.events[-2]
        whole, status = "".join(said), "complete"
        if crash_at is not None:
            status = "partial"
            if self._defect == "text is shown before its commit":
                whole = "".join(said[:-1])
        if self._defect == "the last chunk is not in the closed reply":
            whole = "".join(said[:-1])
        sent = ModelRun(
            question=text,
            text="".join(said),
            began=self._clock,
            ended=self._clock + 1,
            is_whole=len(said) == len(TOKENS),
        )
        self.history.runs.append(sent)
        if self._defect == "two runs at once":
            self.history.runs.append(sent)
        self._clock += 2
        late = self._defect == "done goes out before the commit"
        self._close(reply, whole, "streaming" if late else status)
        return offset

    def _come_back(
        self, client: str, reply: Stored, question: Stored, shown: int
    ) -> int:
        self._closed(client, "broken")
        at = shown
        if self._defect == "a resume repeats":
            at = shown - 3
        elif self._defect == "a resume leaves a gap":
            at = shown + 1
        self._connect(client, reply, question, at)
        if self._defect == "a dead process writes on":
            self._close(reply, reply.text + TOKENS[-1], "partial")
            self.look(reply.person)
            self._close(reply, reply.text, "partial")
        return shown

    def _connect(
        self, client: str, reply: Stored, question: Stored, offset: int
    ) -> None:
        self._connections += 1
        facts = {"message": reply.id, "user_message": question.id, "offset": offset}
        self._note(client, "ev", "accepted", connection=self._connections, **facts)

    def _show(self, client: str, reply: Stored, token: str, offset: int) -> None:
        facts = {"message": reply.id, "offset": offset, "text": token}
        self._note(client, "ev", "content", connection=self._connections, **facts)

    def _end(self, client: str, reply: Stored) -> None:
        if self._defect == "a cut stream ends cleanly":
            return
        status = "complete" if reply.status == "streaming" else reply.status
        facts = {
            "message": reply.id,
            "status": status,
            "sha256": hashlib.sha256(reply.text.encode()).hexdigest(),
        }
        for _ in range(2 if self._defect == "done comes twice" else 1):
            self._note(client, "ev", "done", connection=self._connections, **facts)

    def _closed(self, client: str, how: str) -> None:
        self._note(client, "ev", "closed", connection=self._connections, how=how)

    def _store(
        self, person: str, role: str, text: str, status: str = "complete"
    ) -> Stored:
        step = (
            2 if self._defect == "seq comes from a sequence" and role == "user" else 1
        )
        seq = self._count[person] = self._count.get(person, 0) + step
        row = Stored(
            person=person,
            session_id=f"session of {person}",
            seq=seq,
            id=f"{person} {seq}",
            role=role,
            text=text,
            status=status,
        )
        if not (self._defect == "accepted goes out before the commit" and seq == 1):
            self.rows.append(row)
        return row

    def _close(self, reply: Stored, text: str, status: str) -> None:
        self.rows = [
            replace(row, text=text, status=status) if row.id == reply.id else row
            for row in self.rows
        ]

    def _note(self, by: str, kind: str, what: str, **facts: object) -> None:
        self.history.add(by, kind, what, **facts)  # type: ignore[arg-type]
