"""The documents say what is true."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from docs.make_http_api import PAGE, page
from tests.documents import blocks_of
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


def test_of_every_table_it_is_said_how_long_its_rows_stay() -> None:
    text = (ROOT / "docs" / "privacy.md").read_text("utf-8")
    said = re.findall(r"^\| `viva\.([a-z_]+)` \|", text, re.MULTILINE)
    schema = (ROOT / "sql" / "schema.sql").read_text("utf-8")
    tables = re.findall(r"^CREATE TABLE viva\.([a-z_]+)", schema, re.MULTILINE)

    # The runner of the migrations makes its own.
    assert sorted(said) == sorted([*tables, "migrations"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(
        r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")
    ):
        assert (document.parent / target).exists(), target


def test_the_page_of_the_http_api_is_what_is_made_from_the_routes() -> None:
    assert PAGE.read_text("utf-8") == page(), "make docs"


def test_every_link_within_the_page_of_the_http_api_leads_somewhere() -> None:
    text = page()
    headings = re.findall("^#+ (.*)$", text, re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    links = set(re.findall(r"\]\(#([^)]*)\)", text))

    assert len(links) > 8
    assert links <= anchors
    assert "{{" not in text


def test_the_portuguese_readme_is_in_step_with_the_english_one() -> None:
    english, portuguese = ROOT / "README.md", ROOT / "README.pt-BR.md"

    assert shape(portuguese) == shape(english)
    codes = [
        [block.code for block in blocks_of(file)] for file in (english, portuguese)
    ]
    assert codes[0] == codes[1]


def shape(document: Path) -> list[str]:
    """Give what a translation keeps: headings, list items, links, code."""
    text = document.read_text("utf-8")
    text = re.sub(r"^\[.*\]\(README.*\)$", "", text, flags=re.MULTILINE)
    found = re.findall(r"^#+ |^- |\*\*(?=\S)|\]\([^)]+\)|`[^`\n]+`", text, re.MULTILINE)
    return [each for each in found if each not in {"`make run`", "`done`"}]


def test_every_test_that_the_guarantees_name_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/guarantees.md").read_text()))
    files = (ROOT / "tests").rglob("test_*.py")
    there = {
        name
        for file in files
        for name in re.findall(r"def (test_\w+)", file.read_text())
    }

    assert named
    assert not named - there
