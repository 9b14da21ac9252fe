"""What the embedded PostgreSQL refuses, and says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.postgres import is_free, run_sql
from viva_server.errors import EmbeddedPostgresError
from viva_server.store.embedded.server import EmbeddedPostgres


async def test_one_server_uses_a_folder(
    server: EmbeddedPostgres, folder: Path, pg_bin: Path | None
) -> None:
    await server.start()
    second = EmbeddedPostgres(folder, pg_bin=pg_bin)
    with pytest.raises(EmbeddedPostgresError, match=rf"another.*pid {os.getpid()}\)"):
        await second.start()
    await second.stop()
    assert run_sql(server.dsn, "SELECT 1") == [(1,)]
    with pytest.raises(EmbeddedPostgresError, match="already"):
        await server.start()


async def test_a_start_that_fails_says_what_postgresql_says(
    server: EmbeddedPostgres, folder: Path
) -> None:
    await server.start()
    await server.stop()
    with (folder / "postgres/postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        await server.start()
    assert is_free(folder)


async def test_a_cluster_of_another_version_is_refused(
    new_server: EmbeddedPostgres, folder: Path
) -> None:
    (folder / "postgres").mkdir()
    (folder / "postgres/PG_VERSION").write_text("13\n")
    with pytest.raises(EmbeddedPostgresError, match=r"PostgreSQL 13.*pg_upgrade"):
        await new_server.start()
    assert is_free(folder)


async def test_a_folder_that_is_no_cluster_is_left_alone(
    new_server: EmbeddedPostgres, folder: Path
) -> None:
    (folder / "postgres").mkdir()
    (folder / "postgres/letter.txt").write_text("dear")
    with pytest.raises(EmbeddedPostgresError, match="is not a cluster"):
        await new_server.start()
    assert (folder / "postgres/letter.txt").read_text() == "dear"


async def test_a_path_that_cannot_be_used_is_named(
    folder: Path, pg_bin: Path | None
) -> None:
    (folder / "file").touch()
    server = EmbeddedPostgres(folder / "file" / "data", pg_bin=pg_bin)
    with pytest.raises(EmbeddedPostgresError, match=r"cannot use .*file"):
        await server.start()
