"""Which event a delivery is: its body, its header, its path, its query, its shape."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from viva_server.whatsapp.events.json_values import clean_text
from viva_server.whatsapp.events.shapes import Object, as_object, as_objects, as_text
from viva_server.whatsapp.events.table import GO_KINDS, OTHER_KINDS, find_in_table

_MAX_NAME = 255


class Found(NamedTuple):
    """The event's name, how its data is read, and how sure that is."""

    name: str
    kind: str
    known: bool = True
    inferred: bool = False


def find_event(
    tail: str, query: str, headers: Mapping[str, str], body: Object
) -> Found:
    """Find the event; `tail` is the path after the base, `query` is undecoded.

    A name that the table does not know is kept as it came, and said so.
    """
    if name := as_text(body.get("event")) or as_text(headers.get("X-Event-Type")):
        return _named(name.strip()[:_MAX_NAME])
    return (
        _of_segment(unquote(tail))
        or _of_query(query)
        or _of_shape(body)
        or Found(plain_tail(tail)[:_MAX_NAME] or "unknown", "system", known=False)
    )


@lru_cache(maxsize=256)
def _named(name: str) -> Found:
    name = clean_text(name)
    if kind := GO_KINDS.get(name) or OTHER_KINDS.get(name):
        return Found(name, kind)
    if event := find_in_table(name):
        return Found(name, event.kind)
    return Found(name, "system", known=False)


def _of_segment(path: str) -> Found | None:
    segment = path.rstrip("/").rpartition("/")[2]
    event = find_in_table(segment.strip())
    return Found(event.name, event.kind) if event else None


def _of_query(query: str) -> Found | None:
    """Find the tail that Evolution appended to a URL that ends in a query.

    Only names of the table: the rest of a value may be part of a secret.
    """
    for field in query.split("&"):
        value = unquote(field.partition("=")[2] or field)
        if "/" in value and (found := _of_segment(value)):
            return found
    return None


def _of_shape(body: Object) -> Found | None:
    if "keyId" in body and "status" in body and "data" not in body:
        return Found("messages.update", "status", inferred=True)
    if isinstance(body.get("inputs"), dict) and "query" in body:
        return Found("evolution.bot", "bot", inferred=True)
    if "chatInput" in body and "sessionId" in body:
        return Found("n8n.bot", "bot", inferred=True)
    return None


def plain_tail(tail: str) -> str:
    """Return the path after the base, decoded, without empty segments."""
    return clean_text("/".join(word for word in unquote(tail).split("/") if word))


def find_instance(headers: Mapping[str, str], body: Object) -> str | None:
    """Return the instance's name, wherever the version puts it."""
    name = as_text(body.get("instance")) or _instance_elsewhere(headers, body)
    return clean_text(name.strip()[:_MAX_NAME]) if name else None


def _instance_elsewhere(headers: Mapping[str, str], body: Object) -> str | None:
    data = as_objects(body.get("data"))
    names = (
        body.get("instanceName"),
        as_object(body.get("inputs")).get("instanceName"),
        headers.get("X-Instance-Name"),
        data[0].get("instance") if len(data) == 1 else None,
    )
    return next(filter(None, map(as_text, names)), None)
