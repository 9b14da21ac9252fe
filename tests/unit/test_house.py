"""The package keeps the limits of docs/house.py, and these can be exceeded."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.house import LIMITS, PACKAGE, beyond_limits, measure, read_package


def test_the_package_keeps_its_limits() -> None:
    figures = measure(read_package(PACKAGE), PACKAGE.name)
    assert figures.keys() >= LIMITS.keys()
    assert beyond_limits(figures) == []


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({f"a{n}.py": "" for n in range(13)}, "rooms with more than 12 files"),
        (
            {"a.py": "from shop.b import x", "b.py": "x = 1"},
            "modules under 60 lines with one importer",
        ),
        (
            {"a.py": "def f():\n" + "    x = 1\n" * 30, "b.py": ""},
            "function p90",
        ),
        (
            {
                "api/chat.py": "\n".join(f"import shop.r{n}.b" for n in range(70)),
                **{f"r{n}/b.py": "" for n in range(70)},
            },
            "modules loaded below a chat request",
        ),
    ],
)
def test_what_is_beyond_a_limit_is_named(
    tmp_path: Path, files: dict[str, str], name: str
) -> None:
    shop = tmp_path / "shop"
    for path, text in files.items():
        (shop / path).parent.mkdir(parents=True, exist_ok=True)
        (shop / path).write_text(text)
    (shop / "functions.py").write_text("def f(): pass\ndef g(): pass\n")
    beyond = beyond_limits(measure(read_package(shop), "shop"))
    assert any(line.startswith(f"{name}: ") for line in beyond)
