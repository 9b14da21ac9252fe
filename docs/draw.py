"""Draws docs/images/*.svg from the TOML beside them: python docs/draw.py."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parent / "images"

# Colours for both schemes; an image takes the reader's.
STYLE = """
  text { font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2933 }
  .name { font: 600 15px ui-monospace, "SF Mono", Menlo, Consolas, monospace }
  .soft { fill: #52606d } .small { font-size: 12.5px }
  .accent { fill: #0b6e4f; font-weight: 600 }
  .over { paint-order: stroke; stroke: #fff; stroke-width: 5px }
  .room { fill: #f5f7fa; stroke: #cbd2d9 } .there { fill: #e3f5ec; stroke: #0b6e4f }
  .floor { fill: none; stroke: #cbd2d9; stroke-dasharray: 3 4 }
  .line { stroke: #7b8794; stroke-width: 1.5; fill: none }
  .life { stroke: #cbd2d9; stroke-width: 1.5 } .tip { fill: #7b8794 }
  .commit .line { stroke: #0b6e4f; stroke-width: 2.5 } .commit .tip { fill: #0b6e4f }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e7eb } .soft { fill: #b8c2cc } .accent { fill: #5fd3a6 }
    .room { fill: #1f2933; stroke: #52606d } .there { fill: #12382c; stroke: #5fd3a6 }
    .over { stroke: #0d1117 }
    .floor, .life { stroke: #52606d } .line { stroke: #9aa5b1 } .tip { fill: #9aa5b1 }
    .commit .line { stroke: #5fd3a6 } .commit .tip { fill: #5fd3a6 }
  }
"""

WIDTH = 900
_GUTTER = 184  # from the left edge to the first lane


class Drawing:
    """The parts of an image, in the order in which they are painted."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def text(
        self, x: float, y: float, words: str, kind: str, at: str = "start"
    ) -> None:
        place = f'x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{at}"'
        self._parts.append(f"<text {place}>{escape(words)}</text>")

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        size = f'width="{width:g}" height="{height:g}" rx="7"'
        self._parts.append(f'<rect x="{x:g}" y="{y:g}" {size} class="{kind}"/>')

    def line(self, x: float, y: float, to_x: float, to_y: float, kind: str) -> None:
        self._parts.append(f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" class="{kind}"/>')

    def tip(self, x: float, y: float, *, dx: int = 0, dy: int = 0) -> None:
        """Add the head of an arrow that points along (dx, dy)."""
        back, side = 9, 4.5
        first = f"{x - back * dx - side * dy:g} {y - back * dy - side * dx:g}"
        second = f"{x - back * dx + side * dy:g} {y - back * dy + side * dx:g}"
        self._parts.append(f'<path d="M{x:g} {y:g}L{first}L{second}Z" class="tip"/>')

    def group(self, kind: str, paint: Callable[[], None]) -> None:
        self._parts.append(f'<g class="{kind}">')
        paint()
        self._parts.append("</g>")

    def svg(self, height: float, facts: dict[str, Any]) -> str:
        """Give the file, with what a screen reader says."""
        view = f'viewBox="0 0 {WIDTH} {height:g}"'
        reader = 'role="img" aria-labelledby="title description"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {view} {reader}>',
            f'<title id="title">{escape(facts["title"])}</title>',
            f'<desc id="description">{escape(facts["description"])}</desc>',
            f"<style>{STYLE}</style>",
            *self._parts,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


def rooms(facts: dict[str, Any]) -> str:
    """Draw layers, one above the other, and what each of them talks to."""
    drawing = Drawing()
    top, row = 16.0, 38.0
    for floor in facts["floor"]:
        height = row * len(floor["rooms"]) + 10
        drawing.box(64, top, 516, height, "floor")
        drawing.text(84, top + height / 2 + 5, floor["name"], "soft small")
        for number, room in enumerate(floor["rooms"]):
            _room(drawing, top + 6 + row * number, *room)
        top += height + 10
    drawing.line(34, 20, 34, top - 26, "line")
    drawing.tip(34, top - 16, dy=1)
    drawing.text(0, 0, facts["arrow"], "soft small", "middle")
    turned = drawing.svg(top + 6, facts)
    at = f'transform="translate(24 {top / 2:g}) rotate(-90)"'
    return turned.replace('x="0" y="0"', at)


def _room(drawing: Drawing, y: float, name: str, says: str, outside: str = "") -> None:
    drawing.box(150, y, 420, 34, "room")
    drawing.text(162, y + 22, name, "name")
    drawing.text(560, y + 22, says, "soft small", "end")
    if not outside:
        return
    drawing.line(571, y + 17, 607, y + 17, "line")
    drawing.tip(571, y + 17, dx=-1)
    drawing.tip(607, y + 17, dx=1)
    drawing.box(608, y, 276, 34, "there")
    drawing.text(746, y + 22, outside, "small", "middle")


def stream(facts: dict[str, Any]) -> str:
    """Draw who says what to whom, from the top down."""
    drawing = Drawing()
    lanes = facts["lanes"]
    step = (WIDTH - _GUTTER - 68) / (len(lanes) - 1)
    places = {name: _GUTTER + step * number for number, name in enumerate(lanes)}
    ends = list(_heights(facts["part"], 66.0))
    bottom = ends[-1] + 8
    for x in places.values():
        drawing.line(x, 50, x, bottom, "life")
    for part, top, end in zip(facts["part"], [66.0, *ends], ends, strict=False):
        drawing.box(8, top + 4, WIDTH - 16, end - top - 8, "floor")
        drawing.text(20, (top + end) / 2 + 4, part["name"], "soft small")
        for number, words in enumerate(part["steps"]):
            _step(drawing, places, top + 36 + 36 * number, *words)
    for name, x in places.items():
        drawing.box(x - 56, 14, 112, 36, "there" if name == "PostgreSQL" else "room")
        drawing.text(x, 37, name, "name", "middle")
    return drawing.svg(bottom + 8, facts)


def _heights(parts: Iterable[dict[str, Any]], top: float) -> Iterable[float]:
    for part in parts:
        top += 36 * len(part["steps"]) + 20
        yield top


def _step(
    drawing: Drawing,
    places: dict[str, float],
    y: float,
    origin: str,
    target: str,
    says: str,
    kind: str = "",
) -> None:
    start, end = places[origin], places[target]
    way = 1 if end > start else -1

    def paint() -> None:
        drawing.line(start, y, end - 8 * way, y, "line")
        drawing.tip(end, y, dx=way)

    words = "small over accent" if kind else "small over"
    drawing.text((start + end) / 2, y - 8, says, words, "middle")
    drawing.group(kind or "step", paint)


DRAWINGS: dict[str, Callable[[dict[str, Any]], str]] = {
    "rooms": rooms,
    "stream": stream,
    "whatsapp": rooms,
}


def drawn(name: str) -> str:
    """Draw one image from its description."""
    facts = tomllib.loads((IMAGES / f"{name}.toml").read_text("utf-8"))
    return DRAWINGS[name](facts)


if __name__ == "__main__":
    for image in DRAWINGS:
        (IMAGES / f"{image}.svg").write_text(drawn(image), "utf-8")
