"""The data folder: closed to others, one user at a time, secrets that stay."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from viva_server.errors import ConfigError, EmbeddedPostgresError
from viva_server.store.embedded.data_folder import (
    FolderLock,
    load_or_create_secret,
    make_data_folder,
)


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_secret_is_made_once_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "new" / "jwt-secret"
    secret = load_or_create_secret(file)
    assert len(secret) >= 43  # 32 bytes in base64
    assert load_or_create_secret(file) == secret
    assert load_or_create_secret(tmp_path / "other") != secret


def test_a_secret_is_for_its_owner_whatever_the_umask(tmp_path: Path) -> None:
    with umask(0):
        load_or_create_secret(tmp_path / "secret")
    assert mode(tmp_path / "secret") == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


def test_those_who_make_a_secret_together_agree(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def make(file: Path) -> str:
        together.wait(30)
        return load_or_create_secret(file)

    with ThreadPoolExecutor(4) as pool:
        for number in range(20):
            found = set(pool.map(make, [tmp_path / f"secret-{number}"] * 4))
            assert len(found) == 1
    assert len(list(tmp_path.iterdir())) == 20


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    load_or_create_secret(file)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create_secret(file)


@pytest.mark.parametrize("text", ["", "short\n"])
def test_a_secret_that_is_no_secret_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secret"
    file.touch(0o600)
    file.write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        load_or_create_secret(file)


def test_a_new_folder_is_closed_and_an_old_one_stays_as_it_is(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "old" / "new"
    old.mkdir(0o755)
    with umask(0):
        make_data_folder(new)
        make_data_folder(old)
    assert mode(new) == (0o711 if os.geteuid() == 0 else 0o700)
    assert mode(old) == 0o755


def test_the_lock_names_who_holds_it_until_it_is_released(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    with pytest.raises(EmbeddedPostgresError, match=rf"pid {os.getpid()}\)"):
        second.acquire()
    first.release()
    second.acquire()
    assert (first.held, second.held) == (False, True)
    second.release()
    second.release()


def test_a_program_that_is_being_started_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.acquire()
    # Between its fork and its exec every child holds what its parent has open.
    child = subprocess.Popen(["/bin/sleep", "60"], pass_fds=[descriptor_of(tmp_path)])
    try:
        lock.release()
        lock.acquire()
        lock.release()
    finally:
        child.kill()
        child.wait()


def descriptor_of(folder: Path) -> int:
    for entry in Path("/proc/self/fd").iterdir():
        if entry.readlink() == folder / "lock":
            return int(entry.name)
    raise AssertionError("the lock file is not open")
