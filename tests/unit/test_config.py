"""Settings: read from variables once, all problems named together."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from viva_server.config import Config
from viva_server.errors import ConfigError

SECRET = "s" * 32
OTHER = "o" * 32

SET: dict[str, tuple[str, Any]] = {
    "database_url": ("postgresql:///x", "postgresql:///x"),
    "auto_migrate": ("no", False),
    "worker": ("0", False),
    "pg_bin": ("/usr/lib/x", Path("/usr/lib/x")),
    "data_dir": ("/srv/x", Path("/srv/x")),
    "host": ("::", "::"),
    "port": (" 81 ", 81),
    "jwt_secret": (f"{SECRET}, {OTHER},", (SECRET, OTHER)),
    "model_url": ("http://m:1/v1", URL("http://m:1/v1")),
    "model_name": ("m", "m"),
    "model_api_key": ("model-key", "model-key"),
    "model_params": ('{"top_p": 0.5, "stop": ["x"]}', {"top_p": 0.5, "stop": ["x"]}),
    "model_headers": ('{"api-key": "header-key"}', {"api-key": "header-key"}),
    "model_system_role": ("developer", "developer"),
    "model_starts_thinking": ("1", True),
    "system_prompt_file": ("p.txt", Path("p.txt")),
    "history_messages": ("7", 7),
    "history_chars": ("7000", 7000),
    "max_reply_chars": ("8", 8),
    "reply_seconds": ("9.5", 9.5),
    "model_first_token_seconds": ("10", 10.0),
    "model_idle_seconds": ("11", 11.0),
    "disconnect_grace_seconds": ("inf", math.inf),
    "journal_tick_seconds": ("0", 0.0),
    "live_replies_per_user": ("12", 12),
    "live_replies": ("13", 13),
    "shutdown_seconds": ("14", 14.0),
    "drain_seconds": ("15", 15.0),
    "trusted_proxies": (
        "10.0.0.0/8, ::1",
        (ip_network("10.0.0.0/8"), ip_network("::1/128")),
    ),
    "retention_days": ("16", 16.0),
    "inbox_retention_days": ("0.5", 0.5),
    "webhook_secret": ("hook-one,hook-two", ("hook-one", "hook-two")),
    "webhook_open": ("1", True),
    "evolution_url": ("https://e.example/", URL("https://e.example/")),
    "evolution_api_key": ("evolution-key", "evolution-key"),
    "whatsapp_max_age_seconds": ("60", 60.0),
    "whatsapp_groups": ("1", True),
    "whatsapp_ignore": (
        "+55 11 98888-7777, 1@lid",
        ("+55 11 98888-7777", "1@lid"),
    ),
    "whatsapp_debounce_seconds": ("0.5", 0.5),
    "whatsapp_handover_seconds": ("0", 0.0),
    "whatsapp_replies_per_10_minutes": ("3", 3),
    "whatsapp_typing": ("0", False),
    "whatsapp_turns": ("5", 5),
    "whatsapp_unsupported_text": ("Só texto.", "Só texto."),
    "cors_origins": (
        "https://a.example,http://b.example:81/",
        ("https://a.example", "http://b.example:81"),
    ),
    "metrics": ("off", False),
}


def environment(**changes: str) -> dict[str, str]:
    """Make variables from fields."""
    return {f"VIVA_{name.upper()}": text for name, (text, _) in SET.items()} | {
        f"VIVA_{name.upper()}": text for name, text in changes.items()
    }


def problems(**variables: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        Config.from_env({f"VIVA_{k.upper()}": v for k, v in variables.items()})
    return raised.value.problems


def test_every_setting_is_read_from_its_variable() -> None:
    config = Config.from_env(environment())
    read = {name: getattr(config, name) for name in SET}
    assert read == {name: value for name, (_, value) in SET.items()}


def test_every_setting_is_in_the_table_of_this_test() -> None:
    known = {field.name for field in fields(Config)}
    assert known == set(SET)


def test_an_empty_variable_is_an_unset_one() -> None:
    empty = dict.fromkeys(environment(), " ")
    assert Config.from_env(empty) == Config.from_env({}) == Config()


def test_the_defaults_are_those_of_the_contract() -> None:
    config = Config()
    assert (config.host, config.port) == ("127.0.0.1", 8080)
    assert (config.disconnect_grace_seconds, config.reply_seconds) == (30, 600)
    assert (config.live_replies_per_user, config.live_replies) == (4, 2000)
    assert (config.history_messages, config.max_reply_chars) == (20, 100_000)
    assert (config.journal_tick_seconds, config.inbox_retention_days) == (0.02, 30)
    assert (config.shutdown_seconds, config.drain_seconds) == (5, 0)


def test_all_problems_are_named_at_once() -> None:
    found = problems(
        database_url="postgresql:///x",
        port="eighty",
        worker="perhaps",
        model_url="ftp://x",
        evolution_url="https://e.example",
        disconnect_grace_seconds="-1",
        trusted_proxies="10.0.0.0/99",
        cors_origins="https://a.example/path",
        max_reply_chars="0",
        shutdown_seconds="inf",
        inbox_retention_days="0",
    )
    named = sorted(problem.partition(" ")[0] for problem in found)
    assert named == [
        "VIVA_CORS_ORIGINS",
        "VIVA_DISCONNECT_GRACE_SECONDS",
        "VIVA_EVOLUTION_API_KEY",
        "VIVA_INBOX_RETENTION_DAYS",
        "VIVA_JWT_SECRET",
        "VIVA_MAX_REPLY_CHARS",
        "VIVA_MODEL_URL",
        "VIVA_PORT",
        "VIVA_SHUTDOWN_SECONDS",
        "VIVA_TRUSTED_PROXIES",
        "VIVA_WORKER",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "65536"),
        ("port", "8.5"),
        ("reply_seconds", "nan"),
        ("reply_seconds", "inf"),
        ("disconnect_grace_seconds", "nan"),
        ("journal_tick_seconds", "1.5"),
        ("live_replies", "0"),
        ("history_messages", "0"),
        ("history_chars", "0"),
        ("retention_days", "inf"),
        ("jwt_secret", "s" * 31),
        ("jwt_secret", f"{SECRET},short"),
        ("model_url", "http://"),
        ("model_url", "http://m/v1"),
        ("cors_origins", "*"),
        ("metrics", "2"),
        ("whatsapp_turns", "0"),
        ("whatsapp_debounce_seconds", "inf"),
        ("whatsapp_ignore", "Maria"),
        ("whatsapp_unsupported_text", "x" * 4001),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, text: str) -> None:
    [problem] = problems(**{name: text})
    named = "VIVA_MODEL_NAME" if text == "http://m/v1" else f"VIVA_{name.upper()}"
    assert problem.startswith(named + " ")


def test_what_is_given_in_code_is_checked_too() -> None:
    with pytest.raises(ConfigError) as raised:
        Config(port=-1, jwt_secret=("short",))
    assert len(raised.value.problems) == 2


def test_a_problem_never_shows_a_secret() -> None:
    found = problems(
        jwt_secret="sesame", model_url="ftp://user:sesame@x", webhook_open="x"
    )
    assert "sesame" not in " ".join(found)


def test_secrets_are_not_shown() -> None:
    shown = repr(Config.from_env(environment()))
    for name in ("database_url", "model_api_key", "evolution_api_key"):
        assert SET[name][1] not in shown
    for secret in (SECRET, OTHER, "hook-one", "hook-two"):
        assert secret not in shown


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("model_params", text) for text in ("x", "[]", "5", "{", '{"a": NaN}')),
        *(("model_params", f'{{"{own}": 1}}') for own in ("model", "messages", "n")),
        ("model_params", '{"stream": false}'),
        *(("model_headers", text) for text in ("api-key: x", '["a"]', '{"a": 1}')),
        *(("model_headers", text) for text in ('{"a": null}', '{"a": ""}')),
        *(("model_headers", text) for text in ('{"a b": "x"}', '{"": "x"}')),
        *(("model_headers", text) for text in ('{"a": "x\\r\\nb: y"}', '{"a": "é"}')),
        *(
            ("model_headers", text)
            for text in ('{"Host": "x"}', '{"A": "x", "a": "y"}')
        ),
        ("model_headers", '{"Content-Length": "5"}'),
        *(("model_system_role", word) for word in ("assistant", "System", "tool")),
    ],
)
def test_what_cannot_be_sent_to_a_model_is_refused_without_its_value(
    name: str, value: str
) -> None:
    [problem] = problems(**{name: value})
    assert problem.startswith(f"VIVA_{name.upper()} ")
    assert value not in problem


def test_two_keys_for_a_model_are_refused() -> None:
    headers = '{"authorization": "Bearer sesame"}'
    [problem] = problems(model_headers=headers, model_api_key="k")
    assert "sesame" not in problem
    assert Config.from_env({"VIVA_MODEL_HEADERS": headers}).model_headers


@pytest.mark.parametrize("name", SET)
def test_a_program_may_give_what_a_variable_has_or_the_value_itself(name: str) -> None:
    text, value = SET[name]
    needed: dict[str, dict[str, Any]] = {
        "model_url": {"model_name": "m"},
        "evolution_url": {"evolution_api_key": "k"},
    }
    others = needed.get(name, {})
    read = Config(**{name: text, **others})
    assert getattr(read, name) == value
    assert read == Config(**{name: value, **others})


def test_a_text_is_one_secret_and_not_its_letters() -> None:
    config = Config(
        webhook_secret="HOOKSECRET-1234567890",  # type: ignore[arg-type]
        trusted_proxies=["10.0.0.0/8", "::1"],  # type: ignore[arg-type]
        cors_origins=["https://a.example"],  # type: ignore[arg-type]
        data_dir="/srv/x",  # type: ignore[arg-type]
    )
    assert config.webhook_secret == ("HOOKSECRET-1234567890",)
    assert config.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert config.cors_origins == ("https://a.example",)
    assert config.data_dir == Path("/srv/x")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *((name, object()) for name in SET),
        *((name, None) for name in ("host", "port", "webhook_secret", "data_dir")),
        ("webhook_secret", b"HOOKSECRET-1234567890"),
        ("webhook_secret", [b"HOOKSECRET-1234567890"]),
        ("webhook_secret", ("",)),
        ("webhook_secret", {"HOOKSECRET-1234567890"}),
        ("jwt_secret", ("too short",)),
        ("trusted_proxies", ["10.0.0.0/99"]),
        ("trusted_proxies", [None]),
        ("cors_origins", ["https://a.example/path"]),
        ("port", 80.5),
        ("port", True),
        ("port", "8080x"),
        ("reply_seconds", math.nan),
        ("reply_seconds", True),
        ("reply_seconds", 10**400),
        ("worker", 1),
        ("worker", "perhaps"),
        ("data_dir", b"/srv"),
        ("data_dir", "/srv/\0"),
        ("data_dir", ""),
        ("host", "a\0b"),
        ("model_url", "ftp://x"),
        ("model_url", 5),
        ("model_params", [1]),
        ("model_params", {"x": object()}),
        ("model_params", {"x": math.nan}),
        ("model_headers", {"a": 1}),
        ("model_system_role", ["system"]),
    ],
)
def test_what_a_program_must_not_give_is_named_by_its_setting(
    name: str, given: Any
) -> None:
    with pytest.raises(ConfigError) as raised:
        Config(**{name: given})
    [problem, *_] = raised.value.problems
    assert problem.startswith(f"VIVA_{name.upper()} ")
    assert "object object" not in problem
    assert "HOOKSECRET" not in problem
