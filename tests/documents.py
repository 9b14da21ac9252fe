"""The fenced blocks of the documents, and what is said about each before it.

A block may follow a comment: `<!-- fragment -->` (Python that is no whole program),
`<!-- scene: NAME -->` (where a shell's lines run), `<!-- checked by NAME -->` (a test
file does it) or `<!-- not run: REASON -->`, with one of `REASONS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.programs import ROOT

DOCUMENTS = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md")])

REASONS = {
    "it changes the machine",
    "it is what runs this test",
    "it needs a service that is not here",
    "it shows what is written",
}

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n+)?"
    r"^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_FENCE = re.compile(r"^ *(```|~~~)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block; `mark` is the comment before it, or empty."""

    document: Path
    line: int
    language: str
    code: str
    mark: str

    @property
    def id(self) -> str:
        """Where it stands, for the name of a test."""
        return f"{self.document.name}:{self.line}"

    def marked(self, word: str) -> str | None:
        """Give what the mark says behind this word; None if it is another mark."""
        found = re.fullmatch(rf"{re.escape(word)}:? ?(.*)", self.mark)
        return found[1] if found else None


def blocks_of(document: Path) -> list[Block]:
    """Read a document's blocks.

    Raises:
        AssertionError: a fence belongs to no block, such as an indented one.
    """
    text = document.read_text("utf-8")
    blocks = [
        Block(
            document,
            text.count("\n", 0, match.start("code")),
            match["language"].strip(),
            match["code"],
            match["mark"] or "",
        )
        for match in _BLOCK.finditer(text)
    ]
    assert len(_FENCE.findall(text)) == 2 * len(blocks), document
    return blocks


def all_blocks() -> list[Block]:
    """Read the blocks of all documents."""
    return [block for document in DOCUMENTS for block in blocks_of(document)]
