"""`viva-server webhook explain` says what the server makes of a body."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_commands import environment
from tests.programs import run_command
from tests.unit.whatsapp.samples import FOLDER, NOW, SAMPLES

UPSERT = SAMPLES["v2_2_messages_upsert_conversation"]


def explain(
    *arguments: str, stdin: bytes = b"", settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    kept = environment(**(settings or {}))
    return run_command("webhook", "explain", *arguments, environment=kept, stdin=stdin)


def explained(body: object, *arguments: str) -> dict[str, Any]:
    result = explain(*arguments, "-", stdin=json.dumps(body).encode())
    assert result.returncode == 0, result.stderr
    form: dict[str, Any] = json.loads(result.stdout)
    return form


# The parser is tested with all samples; these are one of each way to be told the event.
@pytest.mark.parametrize(
    "name",
    [
        "v2_2_messages_upsert_conversation",
        "v2_3_6_messages_upsert_audio_ptt_indexmaps",
        "byevents_group_participants_event_missing",
        "evolution_bot_request",
        "go_message_text",
    ],
)
def test_a_sample_gives_what_it_expects(name: str) -> None:
    path = FOLDER / f"{name}.json"

    result = explain("--now", str(NOW), str(path))

    form = json.loads(result.stdout)
    expect = SAMPLES[name]["expect"]
    assert {key: form.get(key) for key in expect} == expect


def test_a_body_of_its_own_gives_the_same_from_a_file_and_from_stdin(
    tmp_path: Path,
) -> None:
    file = tmp_path / "with a space.json"
    file.write_text(json.dumps(UPSERT["body"]))

    result = explain("--now", str(NOW), str(file))

    form = explained(UPSERT["body"], "--now", str(NOW))
    assert json.loads(result.stdout) == form
    assert {key: form.get(key) for key in UPSERT["expect"]} == UPSERT["expect"]


def test_the_path_tells_the_event_where_the_body_does_not() -> None:
    body = {"data": {"key": "dummy"}}

    for tail in ("group-participants-update", "//GROUP_PARTICIPANTS_UPDATE/"):
        assert explained(body, "--tail", tail)["event"] == "group-participants.update"
    form = explained(body, "--tail", "?token=abc/messages-upsert")
    assert form["event"] == "messages.upsert"


def test_a_header_tells_the_event_whatever_its_case() -> None:
    headers = ["--header", "x-event-TYPE: typebot.change-status"]
    headers += ["--header", "X-Instance-Name: loja: 2"]

    form = explained({"data": {}}, *headers)

    assert (form["event"], form["instance"]) == ("typebot.change-status", "loja: 2")


def test_without_now_a_message_is_judged_by_the_clock() -> None:
    fresh = json.loads(json.dumps(UPSERT["body"]))
    fresh["data"]["messageTimestamp"] = int(time.time())

    assert explained(fresh)["answer"] is True
    assert explained(UPSERT["body"])["stale"] is True


def test_characters_come_out_as_they_are_in_any_locale() -> None:
    body = json.loads(json.dumps(UPSERT["body"]))
    body["data"]["message"] = {"conversation": "Olá 👋 \ud800"}

    result = explain("-", stdin=json.dumps(body).encode(), settings={"LC_ALL": "C"})

    assert "Olá 👋 \ufffd" in result.stdout.decode()


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b"NaN", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
    ],
)
def test_what_is_no_body_ends_with_one_line(stdin: bytes, says: str) -> None:
    result = explain("-", stdin=stdin)

    lines = result.stderr.decode().splitlines()
    assert result.returncode == 1
    assert result.stdout == b""
    assert len(lines) == 1
    assert lines[0].startswith("viva-server: -: ")
    assert says in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("no such file.json",),
        (".",),
        ("--header", "no colon", "-"),
        ("--header", ": no name", "-"),
    ],
)
def test_other_bad_input_ends_with_one_line(arguments: tuple[str, ...]) -> None:
    result = explain(*arguments, stdin=b"{}")

    assert result.returncode == 1
    assert result.stderr.decode().count("\n") == 1
    assert result.stderr.startswith(b"viva-server: ")


def test_it_needs_no_setting_and_reads_none() -> None:
    result = explain("-", stdin=b"{}", settings={"VIVA_PORT": "eighty"})

    assert result.returncode == 0
    assert json.loads(result.stdout)["event"] == "unknown"
