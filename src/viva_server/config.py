"""All settings of viva_server, checked once, all problems named together."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal

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


# What reads a setting: the text of its variable, or what a program gives. Each raises
# ValueError with the words behind the setting's name, which never repeat its value.


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    if "\0" in value:
        raise ValueError("has a NUL character")
    return value


def _flag(value: object) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (word := value.strip().lower()) in words:
        return words[word]
    raise ValueError("must be 1 or 0")


def _integer(value: object) -> int:
    if isinstance(value, int | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            return int(value)
    raise ValueError("must be a whole number")


def _number(value: object) -> float:
    """Read a number; NaN where it is none."""
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    return math.nan


def _seconds(value: object) -> float:
    if not (number := _number(value)) >= 0:
        raise ValueError("must be a number of seconds, 0 or more")
    return number


def _days(value: object) -> float:
    number = _number(value)
    if not math.isfinite(number) or number <= 0:
        raise ValueError("must be a number of days above 0")
    return number


def _path(value: object) -> Path:
    if not isinstance(value, str | os.PathLike):
        raise ValueError("must be a path")
    path = os.fspath(value)
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError("must be a path")
    return Path(path)


def _http_url(value: object) -> URL:
    if not isinstance(value, str | URL):
        raise ValueError("must be an http or https URL")
    try:
        url = URL(value)
    except ValueError:
        raise ValueError("is not a URL") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("must be an http or https URL")
    return url


def _object(value: object) -> dict[str, Any]:
    """Read a JSON object; its text may hold secrets, so no message repeats it."""
    try:
        if not isinstance(value, str):
            value = json.dumps(value, allow_nan=False)
        found = json.loads(value, parse_constant=_refuse_constant)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("must be a JSON object") from None
    if not isinstance(found, dict):
        raise ValueError("must be a JSON object")
    return found


def _refuse_constant(_: str) -> None:
    raise ValueError("is no JSON")


def _system_role(value: object) -> SystemRole:
    if value not in ("system", "developer", "user"):
        raise ValueError("must be system, developer or user")
    return value


def _items(value: object) -> list[object]:
    """Give the parts of a text between commas, or what a list has."""
    if isinstance(value, str):
        return [word for word in value.split(",") if word.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list")
    return list(value)


def _words(value: object) -> tuple[str, ...]:
    words = tuple(_text(item).strip() for item in _items(value))
    if not all(words):
        raise ValueError("has an empty text in its list")
    return words


def _origin(value: str) -> str:
    url = _http_url(value)
    if str(url.origin()) != value.rstrip("/"):
        raise ValueError(f"{value!r} is not an origin (scheme://host[:port])")
    return str(url.origin())


def _origins(value: object) -> tuple[str, ...]:
    return tuple(_origin(word) for word in _words(value))


def _networks(value: object) -> tuple[Network, ...]:
    return tuple(_network(item) for item in _items(value))


def _network(value: object) -> Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        # An integer would be an address too.
        return ip_network(str(value).strip(), strict=False)
    except ValueError as error:
        raise ValueError(f"has a bad address: {error}") from None


def _or_none(read: Callable[[object], Any]) -> Callable[[object], Any]:
    """Take None as well, for what may be unset."""
    return lambda value: None if value is None else read(value)


def _setting(read: Callable[[object], Any], default: Any, **kwargs: Any) -> Any:
    """Declare a field together with what reads it."""
    metadata = {"read": _or_none(read) if default is None else read}
    if callable(default):
        return field(default_factory=default, metadata=metadata, **kwargs)
    return field(default=default, metadata=metadata, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one viva_server; durations are seconds.

    A field is the variable without `VIVA_`, in lower case. Secrets stay out of `repr`.
    What a program gives is checked and converted as a variable's text is: a text for a
    list is split at its commas, a text for a path, a URL or a number is read.

    Raises:
        ConfigError: with every problem at once.
    """

    database_url: str | None = _setting(_text, None, repr=False)
    auto_migrate: bool = _setting(_flag, True)
    worker: bool = _setting(_flag, True)
    pg_bin: Path | None = _setting(_path, None)
    data_dir: Path = _setting(_path, default_data_dir)
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
    system_prompt_file: Path | None = _setting(_path, None)
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
        problems = [
            f"VIVA_{name.upper()} {problem}"
            for name, problem in (
                *self._read(),
                *self._secret_problems(),
                *self._model_problems(),
                *self._whatsapp_problems(),
                *self._range_problems(),
            )
        ]
        if problems:
            raise ConfigError(problems)

    def _read(self) -> list[tuple[str, str]]:
        """Convert all fields; a bad one becomes its default, for the other checks."""
        found = []
        for each in fields(self):
            try:
                value = each.metadata["read"](getattr(self, each.name))
            except ValueError as error:
                found.append((each.name, str(error)))
                value = each.default
                if value is MISSING:
                    assert each.default_factory is not MISSING, "one of them is there"
                    value = each.default_factory()
            object.__setattr__(self, each.name, value)
        return found

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Config:
        """Read the settings from variables; an empty variable is an unset one."""
        texts: dict[str, Any] = {
            each.name: text
            for each in fields(cls)
            if (text := environ.get(f"VIVA_{each.name.upper()}", "").strip())
        }
        problems: list[str] = []
        if "database_url" in texts and "jwt_secret" not in texts:
            problems.append("VIVA_JWT_SECRET is required with VIVA_DATABASE_URL")
        try:
            config = cls(**texts)
        except ConfigError as error:
            problems.extend(error.problems)
        if problems:
            raise ConfigError(problems)
        return config

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
