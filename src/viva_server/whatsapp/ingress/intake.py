"""What of a delivery is work: messages to answer, and news to apply. No I/O."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from viva_server.whatsapp import rules
from viva_server.whatsapp.events.addresses import LID
from viva_server.whatsapp.events.table import NormalForm
from viva_server.whatsapp.ingress.delivery import Delivery
from viva_server.whatsapp.rules import Rules

_CHANGES = frozenset({"status", "edit", "delete"})
_CLOCK_SKEW_SECONDS = 600.0


class MessageRow(NamedTuple):
    """A message of a person, in the order of the query add_webhooks.

    `lid` is the other name of the chat that `jid` names by its phone. `sent_at` is
    epoch seconds, None where the delivery does not tell it.
    """

    message_id: str
    jid: str
    lid: str | None
    kind: str
    text: str | None
    sent_at: float | None
    why_not: str | None


def forms_of(form: NormalForm) -> list[NormalForm]:
    """Give the single messages or receipts of a delivery."""
    return form.get("items") or [form]


def message_rows(delivery: Delivery, judge: Rules, now: float) -> list[MessageRow]:
    """Give the rows of people's messages; none of what nobody vouches for."""
    if not delivery.trusted:
        return []
    forms = forms_of(delivery.form)
    rows = [_row(form, judge, now) for form in forms if rules.is_kept(form)]
    if not delivery.form.get("instance"):
        return [row._replace(why_not=row.why_not or "no_instance") for row in rows]
    return rows


def is_pending(delivery: Delivery) -> bool:
    """Whether a delivery has to be applied to what is stored."""
    return delivery.trusted and any(
        form["kind"] in _CHANGES or rules.is_own(form)
        for form in forms_of(delivery.form)
    )


def as_fields(
    delivery: Delivery, age_seconds: float, times: int, judge: Rules, now: float
) -> tuple[Any, ...]:
    """Give the fields of a row in the order of the query add_webhooks.

    As one JSON text: psycopg2 quotes each element of an array by itself, which takes
    many times as long. An age, not a time: the clock of the database is the only one
    that counts. `times` is how often the delivery came in this batch.
    """
    form = delivery.form
    return (
        delivery.id,
        delivery.dedupe_key,
        form.get("instance", ""),
        form["event"],
        not form.get("unknown_event", False),
        form["kind"],
        form["answer"],
        delivery.trusted,
        form.get("chat"),
        form.get("message_id"),
        delivery.tail,
        msgspec.Raw(delivery.headers_json.encode()),
        msgspec.Raw(delivery.form_json.encode()),
        msgspec.Raw(delivery.body_json.encode()),
        age_seconds,
        times,
        is_pending(delivery),
        message_rows(delivery, judge, now),
    )


def _row(form: NormalForm, judge: Rules, now: float) -> MessageRow:
    why_not = judge.why_not(form, now)
    return MessageRow(
        message_id=form["message_id"],
        jid=form["chat"],
        lid=_lid(form),
        kind=form["kind"],
        # What is not answered is not kept twice.
        text=rules.text_for_model(form) if why_not is None else None,
        sent_at=_sent_at(form, now),
        why_not=why_not,
    )


def _lid(form: NormalForm) -> str | None:
    if form.get("group") or form.get("chat", "").endswith(LID):
        return None
    return form.get("lid")


def _sent_at(form: NormalForm, now: float) -> float | None:
    """Give the time of a message, unless no clock could have shown it."""
    sent_at = form.get("timestamp")
    if sent_at is None or not 0 < sent_at < now + _CLOCK_SKEW_SECONDS:
        return None
    return float(sent_at)
