"""All settings of viva_server, checked once, all problems named together."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal, cast

import platformdirs
from yarl import URL

from viva_server.errors import ConfigError

Network = IPv4Network | IPv6Network

UNSUPPORTED_TEXT = (
    "Por enquanto só consigo ler mensagens de texto. "
    "Pode escrever o que você precisa, por favor?"
)

_MAX_FIXED_CHARS = 4000
_IGNORED = re.compile(r"\+?[\d ()-]{5,40}|\S+@\S+")
SystemRole = Literal["system", "developer", "user"]

# What a request to the model has of its own.
_OWN_PARAMS = frozenset({"model", "messages", "stream", "n"})
_OWN_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 § 5.6.2
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_MIN_SECRET_BYTES = 32  # RFC 7518 § 3.2: an HS256 key has at least 256 bits


def default_data_dir() -> Path:
    """Return the platform's folder for a user's data, such as ~/.local/share.

    Root's home is closed (0700) to the unprivileged user that PostgreSQL needs, so
    root gets /var/lib/viva-server.
    """
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/viva-server")
    return Path(platformdirs.user_data_dir("viva-server", appauthor=False))


def _text(value: str) -> str:
    return value


def _flag(value: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False}
    try:
        return words[value.strip().lower()]
    except KeyError:
        raise ValueError("must be 1 or 0") from None


def _integer(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError("must be a number of seconds") from None
    if math.isnan(number) or number < 0:
        raise ValueError("must be a number of seconds, 0 or more")
    return number


def _days(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError("must be a number of days") from None
    if not math.isfinite(number) or number <= 0:
        raise ValueError("must be a number of days above 0")
    return number


def _http_url(value: str) -> URL:
    try:
        url = URL(value)
    except ValueError:
        raise ValueError("is not a URL") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("must be an http or https URL")
    return url


def _object(value: str) -> dict[str, Any]:
    """Read a JSON object; its text may hold secrets, so no message repeats it."""
    try:
        found = json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON object") from None
    if not isinstance(found, dict):
        raise ValueError("must be a JSON object")
    return found


def _refuse_constant(_: str) -> None:
    raise ValueError("is no JSON")


def _system_role(value: str) -> SystemRole:
    if value not in {"system", "developer", "user"}:
        raise ValueError("must be system, developer or user")
    return cast("SystemRole", value)


def _origin(value: str) -> str:
    url = _http_url(value)
    if str(url.origin()) != value.rstrip("/"):
        raise ValueError(f"{value!r} is not an origin (scheme://host[:port])")
    return str(url.origin())


def _words(value: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in value.split(",") if word.strip())


def _origins(value: str) -> tuple[str, ...]:
    return tuple(_origin(word) for word in _words(value))


def _networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(word, strict=False) for word in _words(value))
    except ValueError as error:
        raise ValueError(f"has a bad address: {error}") from None


def _setting(parse: Callable[[str], Any], default: Any = MISSING, **kwargs: Any) -> Any:
    """Declare a field together with the reader of its environment variable."""
    metadata = {"parse": parse}
    if callable(default):
        return field(default_factory=default, metadata=metadata, **kwargs)
    return field(default=default, metadata=metadata, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one viva_server; durations are seconds.

    A field is the variable without `VIVA_`, in lower case. Secrets stay out of `repr`.

    Raises:
        ConfigError: with every problem at once.
    """

    database_url: str | None = _setting(_text, None, repr=False)
    auto_migrate: bool = _setting(_flag, True)
    worker: bool = _setting(_flag, True)
    pg_bin: Path | None = _setting(Path, None)
    data_dir: Path = _setting(Path, default_data_dir)
    host: str = _setting(_text, "127.0.0.1")
    port: int = _setting(_integer, 8080)
    jwt_secret: tuple[str, ...] = _setting(_words, (), repr=False)
    model_url: URL | None = _setting(_http_url, None, repr=False)
    model_name: str | None = _setting(_text, None)
    model_api_key: str | None = _setting(_text, None, repr=False)
    model_params: Mapping[str, Any] = _setting(_object, dict)
    model_headers: Mapping[str, str] = _setting(_object, dict, repr=False)
    model_system_role: SystemRole = _setting(_system_role, "system")
    model_starts_thinking: bool = _setting(_flag, False)
    system_prompt_file: Path | None = _setting(Path, None)
    history_messages: int = _setting(_integer, 20)
    history_chars: int = _setting(_integer, 60_000)
    max_reply_chars: int = _setting(_integer, 100_000)
    reply_seconds: float = _setting(_seconds, 600.0)
    model_first_token_seconds: float = _setting(_seconds, 60.0)
    model_idle_seconds: float = _setting(_seconds, 30.0)
    disconnect_grace_seconds: float = _setting(_seconds, 30.0)
    journal_tick_seconds: float = _setting(_seconds, 0.02)
    live_replies_per_user: int = _setting(_integer, 4)
    live_replies: int = _setting(_integer, 2000)
    shutdown_seconds: float = _setting(_seconds, 5.0)
    drain_seconds: float = _setting(_seconds, 0.0)
    trusted_proxies: tuple[Network, ...] = _setting(_networks, ())
    retention_days: float | None = _setting(_days, None)
    inbox_retention_days: float = _setting(_days, 30.0)
    webhook_secret: tuple[str, ...] = _setting(_words, (), repr=False)
    webhook_open: bool = _setting(_flag, False)
    evolution_url: URL | None = _setting(_http_url, None, repr=False)
    evolution_api_key: str | None = _setting(_text, None, repr=False)
    whatsapp_max_age_seconds: float = _setting(_seconds, 3600.0)
    whatsapp_groups: bool = _setting(_flag, False)
    whatsapp_ignore: tuple[str, ...] = _setting(_words, ())
    whatsapp_debounce_seconds: float = _setting(_seconds, 2.0)
    whatsapp_handover_seconds: float = _setting(_seconds, 1800.0)
    whatsapp_replies_per_10_minutes: int = _setting(_integer, 20)
    whatsapp_typing: bool = _setting(_flag, True)
    whatsapp_turns: int = _setting(_integer, 20)
    whatsapp_unsupported_text: str = _setting(_text, UNSUPPORTED_TEXT)
    cors_origins: tuple[str, ...] = _setting(_origins, ())
    metrics: bool = _setting(_flag, True)

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError(problems)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Config:
        """Read the settings from variables; an empty variable is an unset one."""
        values: dict[str, Any] = {}
        problems: list[str] = []
        for setting in fields(cls):
            name = f"VIVA_{setting.name.upper()}"
            if not (text := environ.get(name, "").strip()):
                continue
            try:
                values[setting.name] = setting.metadata["parse"](text)
            except ValueError as error:
                problems.append(f"{name} {error}")
        if "database_url" in values and "jwt_secret" not in values:
            problems.append("VIVA_JWT_SECRET is required with VIVA_DATABASE_URL")
        try:
            config = cls(**values)
        except ConfigError as error:
            problems.extend(error.problems)
        if problems:
            raise ConfigError(problems)
        return config

    def _problems(self) -> list[str]:
        return [
            f"VIVA_{name.upper()} {problem}"
            for name, problem in (
                *self._secret_problems(),
                *self._model_problems(),
                *self._whatsapp_problems(),
                *self._range_problems(),
            )
        ]

    def _secret_problems(self) -> list[tuple[str, str]]:
        found = []
        if any(len(s.encode()) < _MIN_SECRET_BYTES for s in self.jwt_secret):
            found.append(("jwt_secret", f"must have {_MIN_SECRET_BYTES} bytes or more"))
        if self.evolution_url is not None and not self.evolution_api_key:
            found.append(("evolution_api_key", "is required with VIVA_EVOLUTION_URL"))
        return found

    def _model_problems(self) -> list[tuple[str, str]]:
        found = []
        if self.model_url is not None and not self.model_name:
            found.append(("model_name", "is required with VIVA_MODEL_URL"))
        if own := sorted(_OWN_PARAMS.intersection(self.model_params)):
            found.append(("model_params", f"cannot set {', '.join(own)}"))
        names = [str(name) for name in self.model_headers]
        if any(not _HEADER_NAME.fullmatch(name) for name in names):
            found.append(("model_headers", "has a name that no header field can have"))
        elif own := sorted(_OWN_HEADERS.intersection(map(str.lower, names))):
            found.append(("model_headers", f"cannot set {', '.join(own)}"))
        elif len(set(map(str.lower, names))) < len(names):
            found.append(("model_headers", "has a name twice"))
        values: list[Any] = list(self.model_headers.values())
        if not all(isinstance(v, str) and _HEADER_VALUE.fullmatch(v) for v in values):
            problem = "must have texts of printable ASCII as its values"
            found.append(("model_headers", problem))
        if self.model_api_key and "authorization" in map(str.lower, names):
            found.append(("model_headers", "has Authorization beside the API key"))
        return found

    def _whatsapp_problems(self) -> list[tuple[str, str]]:
        found = []
        if len(self.whatsapp_unsupported_text) > _MAX_FIXED_CHARS:
            problem = f"must have {_MAX_FIXED_CHARS} characters or less"
            found.append(("whatsapp_unsupported_text", problem))
        if any(not _IGNORED.fullmatch(word) for word in self.whatsapp_ignore):
            problem = "must list phone numbers with country code, or jids"
            found.append(("whatsapp_ignore", problem))
        return found

    def _range_problems(self) -> list[tuple[str, str]]:
        ranges: dict[str, tuple[float, float]] = {
            "port": (0, 65535),
            "history_messages": (1, 1000),
            "history_chars": (1, 10_000_000),
            "max_reply_chars": (1, 10_000_000),
            "live_replies_per_user": (1, 100_000),
            "live_replies": (1, 100_000),
            "journal_tick_seconds": (0, 1),
            "shutdown_seconds": (0.1, 3600),
            "drain_seconds": (0, 3600),
            "reply_seconds": (0.1, 86_400),
            "model_first_token_seconds": (0.1, 86_400),
            "model_idle_seconds": (0.1, 86_400),
            "whatsapp_max_age_seconds": (1, 604_800),
            "whatsapp_debounce_seconds": (0, 300),
            "whatsapp_handover_seconds": (0, 2_592_000),
            "whatsapp_replies_per_10_minutes": (1, 10_000),
            "whatsapp_turns": (1, 1000),
        }
        return [
            (name, f"must be between {low:g} and {high:g}")
            for name, (low, high) in ranges.items()
            if not low <= getattr(self, name) <= high
        ]
