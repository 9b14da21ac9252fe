"""Who a session belongs to."""

from __future__ import annotations

from typing import NamedTuple

from viva_server.values import Channel


class Person(NamedTuple):
    """A person on one channel: the JWT's `sub`, or WhatsApp's instance and phone."""

    channel: Channel
    id: str
