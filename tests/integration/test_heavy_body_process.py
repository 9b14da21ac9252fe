"""The program that unpacks heavy bodies, run by itself: its limits and its end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.faults.heavy import history, wide
from tests.faults.large_bodies import MIB
from viva_server.whatsapp.ingress import heavy_bodies
from viva_server.whatsapp.ingress.delivery import Delivery, WebhookRequest
from viva_server.whatsapp.ingress.heavy_bodies import (
    CPU_SECONDS,
    MEMORY_BYTES,
    _spawn,
    read_frame,
    write_frame,
)

POST = WebhookRequest(tail="/x", query="", headers={}, trusted=True)


@contextlib.contextmanager
def program() -> Iterator[subprocess.Popen[bytes]]:
    """Run the program by itself, as a server would."""
    with _spawn() as child:
        try:
            yield child
        finally:
            child.kill()


def pipes(child: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert child.stdin is not None
    assert child.stdout is not None
    return child.stdin, child.stdout


def one_text(size: int) -> bytes:
    return b'{"event":"call","data":"' + b"x" * size + b'"}'


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_program_ends_with_its_server_while_it_works() -> None:
    with program() as child:
        sink, source = pipes(child)
        write_frame(sink, POST, one_text(300 * 2**10))
        # It waits for who reads its answer, and nobody does.
        select.select([source], [], [])
        sink.close()
        assert child.wait(15) == 0


def test_the_program_ends_with_its_server_and_at_no_other_sign() -> None:
    with program() as child:
        sink, source = pipes(child)
        write_frame(sink, POST, b"{}")
        read_frame(source)
        child.terminate()
        write_frame(sink, POST, b"{}")
        read_frame(source)
        assert os.getsid(child.pid) == child.pid, "no Ctrl-C of the server's"
        sink.close()
        assert child.wait(15) == 0


def test_the_program_has_limits_of_memory_and_time() -> None:
    with program() as child:
        sink, source = pipes(child)
        while cpu_seconds(child.pid) < 2.5:
            write_frame(sink, POST, history(2 * MIB))
            read_frame(source)
        soft = {
            kind: resource.prlimit(child.pid, kind)[0]
            for kind in (
                resource.RLIMIT_AS,
                resource.RLIMIT_CORE,
                resource.RLIMIT_CPU,
            )
        }
        assert soft[resource.RLIMIT_AS] == MEMORY_BYTES
        assert soft[resource.RLIMIT_CORE] == 0
        yields = os.getpriority(os.PRIO_PROCESS, child.pid)
        assert yields == os.getpriority(os.PRIO_PROCESS, 0) + 5
        left = soft[resource.RLIMIT_CPU] - cpu_seconds(child.pid)
        assert CPU_SECONDS - 1 <= left <= CPU_SECONDS + 1


def test_what_is_printed_does_not_get_between_the_answers() -> None:
    with program() as child:
        sink, source = pipes(child)
        write_frame(sink, POST, b"{}")
        read_frame(source)
        printed, errors = (Path(f"/proc/{child.pid}/fd/{n}").readlink() for n in (1, 2))
        assert printed == errors


def test_a_defect_is_told_by_its_place_and_not_by_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(raw: bytes, post: WebhookRequest) -> Delivery:
        raise KeyError(raw)

    monkeypatch.setattr(heavy_bodies, "read_delivery", broken)
    monkeypatch.setattr(heavy_bodies, "_allow_cpu", lambda: None)
    asked, answered = io.BytesIO(), io.BytesIO()
    write_frame(asked, POST, b"what a person wrote")
    asked.seek(0)
    heavy_bodies._answer(asked, answered)
    answered.seek(0)
    head = json.loads(read_frame(answered)[0])
    assert head["failed"] == "defect"
    assert head["why"].startswith("KeyError in broken, line ")
    assert "person" not in head["why"]


def test_too_many_values_are_refused_before_they_take_memory() -> None:
    with program() as child:
        sink, source = pipes(child)
        write_frame(sink, POST, wide(20 * MIB))
        assert read_frame(source)[0] == b'{"failed":"memory"}'
        status = Path(f"/proc/{child.pid}/status").read_text()
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
        assert int(peak) * 1024 < MEMORY_BYTES / 4
