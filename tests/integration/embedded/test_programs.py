"""Where PostgreSQL's programs are looked for, and which are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from viva_server.errors import EmbeddedPostgresError
from viva_server.store.embedded import programs
from viva_server.store.embedded.programs import find_programs, major_version


def make_programs(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    return folder


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Debian's folder, empty, on a machine that has nothing else."""
    monkeypatch.setattr(programs, "_DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(programs, "_WHEEL", "no_such_wheel")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "debian"


@pytest.mark.usefixtures("debian")
def test_the_given_folder_is_taken_or_refused(tmp_path: Path) -> None:
    assert (
        find_programs(make_programs(tmp_path / "given", "16.1")) == tmp_path / "given"
    )
    with pytest.raises(EmbeddedPostgresError, match="no programs initdb and postgres"):
        find_programs(tmp_path / "bin")


@pytest.mark.usefixtures("debian")
def test_a_link_on_path_leads_to_the_programs(tmp_path: Path) -> None:
    folder = make_programs(tmp_path / "real", "16.1")
    (tmp_path / "bin/postgres").symlink_to(folder / "postgres")
    assert find_programs(None) == folder


def test_the_newest_supported_one_of_debian_is_taken(debian: Path) -> None:
    for version in ("9.6", "13", "14", "17", "99"):
        make_programs(debian / version / "bin", f"{version}.2 (Debian)")
    assert find_programs(None) == debian / "17/bin"


def test_an_old_cluster_keeps_its_programs(debian: Path, tmp_path: Path) -> None:
    newest = make_programs(debian / "17/bin", "17.2")
    old = make_programs(debian / "15/bin", "15.9")
    (tmp_path / "bin/postgres").symlink_to(newest / "postgres")
    assert find_programs(None, 15) == old
    assert find_programs(None, 14) == newest


@pytest.mark.usefixtures("debian")
def test_without_any_the_error_says_what_to_do() -> None:
    with pytest.raises(EmbeddedPostgresError) as caught:
        find_programs(None)
    for way in ("apt-get install", "pip install", "VIVA_PG_BIN", "VIVA_DATABASE_URL"):
        assert way in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "major"),
    [("15.18 (Debian 15.18-0+deb12u1)", 15), ("18beta1", 18), ("17devel", 17)],
)
def test_the_version_is_read(tmp_path: Path, answer: str, major: int) -> None:
    assert major_version(make_programs(tmp_path / "bin", answer)) == major


def test_programs_that_do_not_run_have_no_version(tmp_path: Path) -> None:
    assert major_version(tmp_path) is None
