"""The system prompt: whose it is, and when its file is read."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from viva_server.errors import ConfigError
from viva_server.responders import DEFAULT_SYSTEM_PROMPT, Conversation, SystemPrompt
from viva_server.values import Channel


def asked(channel: Channel = "web", user_id: str = "ana") -> Conversation:
    return Conversation(messages=(), session_id="s", user_id=user_id, channel=channel)


def test_without_a_file_it_is_the_built_in_persona() -> None:
    assert SystemPrompt(None)(asked()) == DEFAULT_SYSTEM_PROMPT


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("um")
    prompt = SystemPrompt(file)
    assert prompt(asked()) == prompt(asked("whatsapp", "loja/55")) == "um"
    file.write_text("dois")
    assert prompt(asked()) == "dois"


def test_a_file_that_is_gone_is_warned_of_once_and_its_text_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("um")
    prompt = SystemPrompt(file)
    file.unlink()
    with caplog.at_level(logging.WARNING):
        assert [prompt(asked()) for _ in range(3)] == ["um"] * 3
    assert len(caplog.records) == 1
    file.write_bytes(b"\xff")
    assert prompt(asked()) == "um"
    file.write_text("dois")
    assert prompt(asked()) == "dois"


def test_each_instance_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "web.txt").write_text("chat")
    (tmp_path / "loja.txt").write_text("loja")
    (tmp_path / "loja%202.txt").write_text("loja 2")
    prompt = SystemPrompt(tmp_path / "%i.txt")
    assert prompt(asked()) == "chat"
    assert prompt(asked("whatsapp", "loja/5511988887777")) == "loja"
    assert prompt(asked("whatsapp", "loja 2/5511988887777")) == "loja 2"
    assert prompt(asked("whatsapp", "outra/5511988887777")) == "chat"
    (tmp_path / "outra.txt").write_text("outra")
    assert prompt(asked("whatsapp", "outra/5511988887777")) == "outra"


@pytest.mark.parametrize("instance", ["../secret", "..", ".", "a/../../secret", ""])
def test_no_name_of_an_instance_leads_out_of_the_folder(
    tmp_path: Path, instance: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "prompts" / "web").mkdir(parents=True)
    (tmp_path / "prompts" / "web" / "secret").write_text("chat")
    prompt = SystemPrompt(tmp_path / "prompts" / "%i" / "secret")
    assert prompt(asked("whatsapp", f"{instance}/55")) == "chat"


def test_a_file_that_cannot_be_read_at_the_start_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"ol\xe1")
    for name in ("none", "latin", "%i"):
        with pytest.raises(ConfigError, match="VIVA_SYSTEM_PROMPT_FILE"):
            SystemPrompt(tmp_path / name)
