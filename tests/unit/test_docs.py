"""The documents say what is true."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from viva_server.config import Config

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `VIVA_([A-Z0-9_]+)` \|", text, re.MULTILINE))
    existing = {field.name.upper() for field in dataclasses.fields(Config)}

    assert documented == existing


def test_documented_defaults_are_the_defaults() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    rows = re.findall(r"^\| `VIVA_([A-Z0-9_]+)` \| ([0-9.]+) \|", text, re.MULTILINE)
    defaults = dataclasses.asdict(Config())

    assert len(rows) > 15
    for name, value in rows:
        if name != "HOST":
            assert float(defaults[name.lower()]) == float(value), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(
        r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")
    ):
        assert (document.parent / target).exists(), target
