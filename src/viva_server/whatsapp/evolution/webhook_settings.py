"""An instance's webhook as any version of Evolution API tells it; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from multidict import CIMultiDict
from yarl import URL

from viva_server.whatsapp.events.json_values import (
    Object,
    as_flag,
    as_list,
    as_object,
    as_text,
    pick,
)

NEEDED_EVENTS: Final = ("MESSAGES_UPSERT", "SEND_MESSAGE")
USEFUL_EVENTS: Final = ("MESSAGES_UPDATE", "CONNECTION_UPDATE")
"""Receipts for the trace; the sign to look for messages that were missed."""

OUR_PATH: Final = "/webhook/evolution"
SECRET_PLACEHOLDER: Final = "$VIVA_WEBHOOK_SECRET"  # noqa: S105 - a name


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """What `webhook/find` says; `is_1` by the way in which its names are written.

    `headers` are None in versions that send none of their own.
    """

    url: str
    enabled: bool
    events: tuple[str, ...]
    by_events: bool
    base64: bool
    is_1: bool
    headers: Mapping[str, str] | None = field(repr=False)

    @property
    def parsed_url(self) -> URL | None:
        """The URL, None when it is none."""
        try:
            url = URL(self.url.strip())
        except ValueError:
            return None
        return url if url.scheme in {"http", "https"} and url.host else None

    @property
    def leads_here(self) -> bool:
        """Whether the URL is a viva_server's, by its path."""
        url = self.parsed_url
        return url is not None and OUR_PATH in url.path


def read_settings(answer: Object) -> WebhookSettings:
    """Read the answer of 1.x, 2.0 or 2.1+, whatever its shape."""
    inner = answer.get("webhook")
    found = inner if isinstance(inner, dict) else answer
    return WebhookSettings(
        url=as_text(found.get("url")) or "",
        enabled=as_flag(found.get("enabled", True)),
        events=tuple(
            name for e in as_list(found.get("events")) if (name := as_text(e))
        ),
        by_events=as_flag(
            pick(found, "webhook_by_events", "webhookByEvents", "byEvents")
        ),
        base64=as_flag(pick(found, "webhook_base64", "webhookBase64", "base64")),
        is_1="webhook_by_events" in found,
        headers=_headers(found) if "headers" in found else None,
    )


def _headers(found: Object) -> CIMultiDict[str]:
    headers = as_object(found.get("headers"))
    return CIMultiDict({k: v for k, v in headers.items() if isinstance(v, str)})


@dataclass(frozen=True, slots=True)
class Repair:
    """The request that sets a webhook right; the secret is a placeholder in it."""

    method: str
    path: str
    body: dict[str, object]


def repair_of(
    instance: str, settings: WebhookSettings | None, default_url: URL
) -> Repair:
    """Return the request that gives an instance the webhook that this server needs.

    It keeps the URL that is there where that leads here. Versions without headers of
    their own get the secret as the password of the URL.
    """
    url = default_url
    if settings is not None and settings.leads_here and settings.parsed_url:
        url = settings.parsed_url
    plain = url.with_query(None).with_fragment(None).with_user(None)
    text = str(plain).rstrip("/")
    events = [*NEEDED_EVENTS, *USEFUL_EVENTS]
    path = f"/webhook/set/{quote(instance, safe='')}"
    if settings is not None and settings.headers is None:
        text = text.replace("://", f"://viva:{SECRET_PLACEHOLDER}@", 1)
        flat: dict[str, object] = {"enabled": True, "url": text, "events": events}
        names = ("webhook_by_events", "webhook_base64")
        names = names if settings.is_1 else ("webhookByEvents", "webhookBase64")
        return Repair("POST", path, flat | dict.fromkeys(names, False))
    headers = {"Authorization": f"Bearer {SECRET_PLACEHOLDER}"}
    nested = {"enabled": True, "url": text, "headers": headers}
    return Repair(
        "POST",
        path,
        {"webhook": {**nested, "byEvents": False, "base64": False, "events": events}},
    )
