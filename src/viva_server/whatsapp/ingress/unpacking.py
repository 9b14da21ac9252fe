"""From a webhook's bytes to a delivery: decoded, judged, made storable; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from viva_server.errors import VivaError
from viva_server.whatsapp.events.json_values import NotJsonObjectError, decode_object
from viva_server.whatsapp.ingress.delivery import Delivery, make_delivery
from viva_server.whatsapp.ingress.secrets import judge_body


class WrongSecretError(VivaError):
    """The body was to bring the secret, and does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What a request brings beside its body, and what the settings say of it.

    `tail` is decoded, `query` is not; both may hold the secret. `asked` are the
    secrets of which the body's `apikey` must be one, if there are any; `hidden` are
    taken out of all that is stored.
    """

    tail: str = field(repr=False)
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    trusted: bool
    asked: tuple[str, ...] = field(default=(), repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)


def unpack(raw: bytes | bytearray, post: Post) -> Delivery:
    """Make a delivery of a body; as long as the body has values.

    Raises:
        WrongSecretError: no JSON object with the secret that is asked for.
        NotJsonObjectError: no JSON object.
    """
    try:
        body = decode_object(raw)
    except NotJsonObjectError:
        if post.asked:
            raise WrongSecretError from None
        raise
    if post.asked and not judge_body(post.asked, body):
        raise WrongSecretError
    return make_delivery(
        post.tail,
        post.query,
        post.headers,
        body,
        trusted=post.trusted,
        secrets=post.hidden,
    )
