"""The images of the documents show what is there."""

from __future__ import annotations

import configparser
import tomllib
from xml.etree import ElementTree as ET

import pytest

from docs.draw import DRAWINGS, IMAGES, drawn
from tests.programs import ROOT


@pytest.mark.parametrize("name", DRAWINGS)
def test_an_image_is_what_is_drawn_from_its_description(name: str) -> None:
    kept = (IMAGES / f"{name}.svg").read_text("utf-8")

    assert kept == drawn(name), "run: python docs/draw.py"


@pytest.mark.parametrize("name", DRAWINGS)
def test_an_image_has_words_for_those_who_do_not_see_it(name: str) -> None:
    image = ET.fromstring(drawn(name))
    svg = "{http://www.w3.org/2000/svg}"
    ids = [image.find(f"{svg}{tag}") for tag in ("title", "desc")]

    assert [each.get("id") for each in ids if each is not None] == image.attrib[
        "aria-labelledby"
    ].split()
    assert all(each is not None and each.text for each in ids)


@pytest.mark.parametrize("name", ["rooms", "whatsapp"])
def test_the_rooms_are_those_of_the_import_contract(name: str) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    layers = setup[f"importlinter:contract:{name}"]["layers"].replace(
        "viva_server.", ""
    )
    facts = tomllib.loads((IMAGES / f"{name}.toml").read_text("utf-8"))
    rooms = [room[0] for floor in facts["floor"] for room in floor["rooms"]]

    assert rooms == [line.strip() for line in layers.strip().splitlines()]
