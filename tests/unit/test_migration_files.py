"""The names of migration files say their order, and a wrong one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from viva_server.errors import SchemaError
from viva_server.store.migrate import load_migrations


def folder_with(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text("SELECT 1;")
    return folder


def test_files_are_taken_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "0002_b.sql", "0001_z.sql", "README.md")
    assert [each.name for each in load_migrations(folder)] == [
        "0001_z.sql",
        "0002_b.sql",
    ]


@pytest.mark.parametrize("name", ["1_a.sql", "0001-a.sql", "0001_A.sql", "0001_'.sql"])
def test_a_badly_named_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SchemaError, match="is named like"):
        load_migrations(folder_with(tmp_path, name))


@pytest.mark.parametrize(
    "names",
    [("0001_a.sql", "0001_b.sql"), ("0001_a.sql", "0003_b.sql"), ("0002_a.sql",)],
)
def test_a_number_twice_or_left_out_is_refused(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    with pytest.raises(SchemaError, match="not numbered"):
        load_migrations(folder_with(tmp_path, *names))
