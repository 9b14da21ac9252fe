"""How each generation of Evolution API wants to be asked; no I/O.

One is tried and the answer tells whether it was the wrong one: Evolution checks a body
before it does anything, and a route that does not exist does nothing. `GET /` would
tell the version too, but not before 1.8, and it waits for WhatsApp's own servers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from viva_server.whatsapp.events.json_values import as_list, as_object
from viva_server.whatsapp.evolution.rest import Answer

Generation = Literal["1", "2", "go"]

_OTHER_BODY: Final[dict[Generation, Generation]] = {"1": "2", "2": "1"}


@dataclass(frozen=True, slots=True)
class Post:
    """The path, in decoded words, and the JSON body of a POST."""

    path: tuple[str, ...]
    body: dict[str, object]


def text_post(generation: Generation, instance: str, jid: str, text: str) -> Post:
    """Return the request that sends a text; `jid` goes out whole, as it arrived.

    Digits alone would be rewritten (Brazil's ninth digit) and may miss the person.
    """
    if generation == "go":
        return Post(("send", "text"), {"number": jid, "text": text})
    content = {"text": text} if generation == "2" else {"textMessage": {"text": text}}
    return Post(("message", "sendText", instance), {"number": jid, **content})


def typing_post(
    generation: Generation, instance: str, jid: str, seconds: float
) -> Post:
    """Return the request that shows "typing…"; 1.x and 2.x answer it afterwards."""
    if generation == "go":
        body = {"number": jid, "state": "composing", "isAudio": False}
        return Post(("message", "presence"), body)
    state = {"presence": "composing", "delay": round(seconds * 1000)}
    options = state if generation == "2" else {"options": state}
    return Post(("chat", "sendPresence", instance), {"number": jid, **options})


def other_generation(used: Generation, answer: Answer) -> Generation | None:
    """Return the generation that the answer points to, None when `used` was right."""
    if answer.status == 400 and "requires property" in said(answer):
        return _OTHER_BODY.get(used)
    if answer.status == 404 and "does not exist" not in said(answer):
        return "2" if used == "go" else "go"
    return None


def said(answer: Answer) -> str:
    """Return all that an error says: a string, a list or a list of lists."""
    body = as_object(answer.body)
    response = as_object(body.get("response"))
    parts = (body.get("code"), body.get("message"), response.get("message"))
    return " ".join(
        word for part in (*parts, body.get("error")) for word in _texts(part)
    )


def _texts(value: object, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < 3:
        for item in as_list(value):
            yield from _texts(item, depth + 1)


_MAX_REMEMBERED: Final = 1000


class Generations:
    """Which generation an instance speaks: what worked last, else what others speak."""

    def __init__(self) -> None:
        self._known: dict[str, Generation] = {}
        self._latest: Generation = "2"

    def first(self, instance: str) -> Generation:
        """Return the one to try first."""
        return self._known.get(instance, self._latest)

    def remember(self, instance: str, generation: Generation) -> None:
        """Keep what worked; the longest known is forgotten beyond 1000 instances."""
        self._latest = generation
        self._known.pop(instance, None)
        self._known[instance] = generation
        if len(self._known) > _MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
