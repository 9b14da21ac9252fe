"""What is wrong between Evolution API and this server, and what mends it."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from viva_server.config import Config
from viva_server.errors import EvolutionError
from viva_server.store.checks import Check
from viva_server.whatsapp.events.json_values import (
    Object,
    as_flag,
    as_list,
    as_object,
    as_text,
    pick,
)
from viva_server.whatsapp.events.table import find_in_table
from viva_server.whatsapp.evolution.client import EvolutionClient
from viva_server.whatsapp.ingress.secrets import Verdict, judge_request

_NEVER_SENT: Final = {"CONTACTS_SET", "CREDS_UPDATE", "GROUPS_UPDATE"}
_KNOWN_ELSEWHERE: Final = {"GROUP_UPDATE", "NEW_JWT_TOKEN"}
_MAX_INSTANCES: Final = 50
_REACH_SECONDS: Final = 5.0
_SECRET_NAMES: Final = {"apikey", "authorization", "jwt_key"}


async def check_evolution(
    config: Config, client: EvolutionClient | None = None
) -> list[Check]:
    """Ask Evolution for its instances and webhooks; a line for each thing found.

    Nothing is changed; the request that would set a webhook right is the last line. A
    client that is given stays the caller's. Never raises but CancelledError.
    """
    if config.evolution_url is None:
        detail = "VIVA_EVOLUTION_URL is not set: nothing is answered on WhatsApp"
        return [Check("evolution", True, detail, warn=True)]
    if client is not None:
        return await _examine(config, client)
    client = EvolutionClient(str(config.evolution_url), config.evolution_api_key or "")
    try:
        return await _examine(config, client)
    finally:
        await client.close()


async def _examine(config: Config, client: EvolutionClient) -> list[Check]:
    try:
        names = (await client.instances())[:_MAX_INSTANCES]
    except EvolutionError as error:
        return [await _check_refusal(error, client)]
    if not names:
        return [Check("evolution", False, "has no instance that the key may see")]
    checks = [Check("evolution", True, f"answers; {len(names)} instances")]
    unused: list[Check] = []
    for name in names:
        found = await _examine_instance(config, client, name)
        (checks if found else unused).extend(found or [_elsewhere(name)])
    if len(unused) == len(names):
        detail = f"no instance has a webhook that ends in {OUR_PATH}; "
        repair = repair_of(names[0], None, default_url(config))
        checks.append(Check("webhook", False, detail + _told(repair)))
    return [*checks, *unused]


async def _check_refusal(error: EvolutionError, client: EvolutionClient) -> Check:
    if error.reason == "not_found" and await client.is_go():
        detail = "is evolution-go, which does not tell its webhook or its messages"
        return Check("evolution", True, detail, warn=True)
    told = {
        "no_connection": "cannot be reached at VIVA_EVOLUTION_URL",
        "timeout": "does not answer in time",
        "unauthorized": "refuses VIVA_EVOLUTION_API_KEY",
        "not_found": "is not what VIVA_EVOLUTION_URL leads to",
        "license_required": "has no licence and sends nothing",
    }
    detail = told.get(error.reason, f"does not answer as it should: {error.reason}")
    return Check("evolution", False, detail)


async def _examine_instance(
    config: Config, client: EvolutionClient, name: str
) -> list[Check]:
    """Return what is found; nothing for an instance whose webhook is not ours."""
    try:
        answer = await client.webhook_settings(name)
    except EvolutionError as error:
        return [Check(f"webhook {name}", False, f"is not told: {error.reason}")]
    if answer is None or not read_settings(answer).leads_here:
        return []
    checks, repair = diagnose(name, answer, config)
    url = read_settings(answer).parsed_url
    if url is not None and (problem := await _reach_problem(url)):
        checks.append(Check(f"webhook {name}", False, problem))
        # The request that mends it must not lead to the same place again.
        lost = replace(read_settings(answer), url="")
        repair = repair_of(name, lost, default_url(config))
    if any(check.warn or not check.ok for check in checks):
        checks.append(Check(f"repair {name}", True, _told(repair), warn=True))
    return [*checks, *await _connection_faults(client, name)]


async def _connection_faults(client: EvolutionClient, name: str) -> list[Check]:
    """Return a fault for an instance that sends nothing now.

    Only Baileys' can be so: its own channel and Meta's always say `open`.
    """
    try:
        state = await client.connection_state(name)
    except EvolutionError as error:
        detail = f"is not told: {error.reason}"
        return [Check(f"connection {name}", True, detail, warn=True)]
    if state == "open":
        return []
    detail = f"is {state or 'unknown'}, not open: nothing comes and nothing is sent"
    return [Check(f"connection {name}", False, detail)]


def _elsewhere(name: str) -> Check:
    detail = f"none that ends in {OUR_PATH} (the global one cannot be asked for)"
    return Check(f"webhook {name}", True, detail, warn=True)


def diagnose(
    instance: str, answer: Object, config: Config
) -> tuple[list[Check], Repair]:
    """Judge a webhook's settings, as Evolution tells them; no I/O.

    Returns a line for each fault or warning (one good line if there is none), and the
    request that sets all of them right. No line holds a secret.
    """
    settings = read_settings(answer)
    name = f"webhook {instance}"
    checks = [
        Check(name, ok, detail, warn=ok)
        for found in (_url_faults, _event_faults, _secret_faults)
        for ok, detail in found(settings, config)
    ]
    if settings.base64:
        detail = (
            "base64 is on: it comes only after the instance reconnects, never on "
            "Meta's channel, is not used here and makes bodies large"
        )
        checks.append(Check(name, True, detail, warn=True))
    how = "each event on its own path" if settings.by_events else "one path"
    if not checks:
        checks.append(Check(name, True, f"as it should be ({how})"))
    return checks, repair_of(instance, settings, default_url(config))


def default_url(config: Config) -> URL:
    """Return the webhook's address of a server with these settings."""
    host = config.host if config.host not in {"0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104
    path = f"/api/v1{OUR_PATH}"
    return URL.build(scheme="http", host=host, port=config.port, path=path)


Fault = tuple[bool, str]
"""Whether it works all the same, and what it is."""


def _url_faults(settings: WebhookSettings, config: Config) -> Iterator[Fault]:
    url = settings.parsed_url
    if not settings.enabled:
        yield False, "is disabled"
    if url is None:
        yield False, "has no http or https URL"
        return
    if url.path.endswith("/"):
        yield (
            True,
            "its URL ends in a slash: events go to //… (taken here all the same)",
        )
    if url.query:
        detail = "its URL has a query"
        detail += ", which by-events appends its path to" if settings.by_events else ""
        yield True, f"{detail}; secrets in it end up in logs of proxies"
    if url.user is not None and "Authorization" in (settings.headers or {}):
        yield False, "a user in its URL makes Evolution drop the Authorization header"
    if _is_loopback(url) and not _is_loopback(config.evolution_url):
        yield False, f"its URL leads to {url.host}, which is Evolution's own machine"


def _event_faults(settings: WebhookSettings, config: Config) -> Iterator[Fault]:
    events = set(settings.events)
    if dotted := sorted(e for e in events if "." in e or e != e.upper()):
        yield (
            False,
            f"events must be written like MESSAGES_UPSERT, not {dotted[0][:100]}",
        )
    if missing := [name for name in NEEDED_EVENTS if name not in events]:
        why = {
            "MESSAGES_UPSERT": "no message arrives",
            "SEND_MESSAGE": "a send whose answer was lost is never settled",
        }[missing[0]]
        yield False, f"the event {' and '.join(missing)} is missing: {why}"
    if missing := [name for name in USEFUL_EVENTS if name not in events]:
        yield True, f"the event {' and '.join(missing)} is missing"
    if useless := sorted(events & _NEVER_SENT):
        yield True, f"Evolution never sends {', '.join(useless)}"
    unknown = [e for e in events - _KNOWN_ELSEWHERE if find_in_table(e) is None]
    if unknown:
        yield True, f"there is no event {min(unknown)[:100]}"


def _secret_faults(settings: WebhookSettings, config: Config) -> Iterator[Fault]:
    if not config.webhook_secret:
        return  # said once, not for each instance
    headers = settings.headers or {}
    given = CIMultiDict(headers)
    url = settings.parsed_url
    if url is not None and url.password:
        # As axios does it: Basic, in the place of any other Authorization.
        pair = f"{url.user or ''}:{url.password}".encode()
        given["Authorization"] = f"Basic {b64encode(pair).decode()}"
    query = "" if url is None else url.raw_query_string
    verdict = judge_request(config.webhook_secret, given, query)
    if verdict is Verdict.RIGHT or headers.get("jwt_key") in config.webhook_secret:
        return
    if verdict is Verdict.WRONG or _SECRET_NAMES & {name.lower() for name in headers}:
        yield False, "its secret is none of VIVA_WEBHOOK_SECRET: all is refused (401)"
    elif config.evolution_api_key in config.webhook_secret:
        yield True, "sends no secret but, where Evolution exposes it, the body's apikey"
    else:
        yield False, "sends no secret, and VIVA_WEBHOOK_SECRET is set: refused (401)"


def _is_loopback(url: URL | None) -> bool:
    if url is None or url.host is None:
        return False
    try:
        return ip_address(url.host).is_loopback
    except ValueError:
        return url.host == "localhost"


async def _reach_problem(url: URL) -> str | None:
    """Say why the URL does not lead to a viva_server, seen from this machine."""
    plain = url.with_user(None).with_query(None)
    where = f"{plain.host}:{plain.port}"
    timeout = aiohttp.ClientTimeout(_REACH_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(plain, allow_redirects=False, timeout=timeout) as response,
        ):
            status, text = response.status, await response.content.read(4096)
    except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError):
        return f"{where} cannot be reached from here"
    if status == 200 and b"evolution" in text:
        return None
    return f"{where} answers {status}: no viva_server is there"


def _told(repair: Repair) -> str:
    body = msgspec.json.encode(repair.body).decode()
    return f"{repair.method} {repair.path} {body}"


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
