"""The processes of a run: where they run, what they use, how they end."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = CORES[:1]
OTHER_CORES = CORES[1:] or CORES
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def dies_with_parent(signum: int) -> Callable[[], None]:
    """A ``preexec_fn``: the child gets that signal when the runner is killed."""

    def request() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signum)

    return request


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """What is started inside runs on these cores only, with all its threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    command: Sequence[str],
    log: IO[bytes],
    env: Mapping[str, str] | None = None,
    cores: Sequence[int] = OTHER_CORES,
    *,
    with_input: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """A child with its output in ``log``; it has ended when the block is left."""
    with on_cores(cores):
        child = subprocess.Popen(
            command,
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE if with_input else subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=dies_with_parent(signal.SIGTERM),  # noqa: PLW1509
        )
    try:
        yield child
    finally:
        end(child)


def end(child: subprocess.Popen[bytes], within_seconds: float = 10.0) -> None:
    """SIGTERM, and SIGKILL when that does not end it in time."""
    if child.stdin:
        child.stdin.close()
    child.terminate()
    try:
        child.wait(within_seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(
    port: int, child: subprocess.Popen[bytes], within_seconds: float = 30.0
) -> None:
    """Return when the child listens; RuntimeError when it ends or takes too long."""
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise RuntimeError(f"{child.args!r} ended with {child.returncode}")
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{child.args!r} does not listen on {port}")


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of one process."""
    return sum(_times(pid)[:2]) / _TICKS_PER_SECOND


def family_cpu_seconds(pid: int) -> float:
    """The same with its children, living and reaped."""
    living = sum(family_cpu_seconds(child) for child in _children(pid))
    return sum(_times(pid)) / _TICKS_PER_SECOND + living


def machine_cpu_seconds() -> float:
    """What all processes of the machine have used, and what a hypervisor withheld."""
    first = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _wait, irq, softirq, steal = first.split()[1:9]
    busy = (user, nice, system, irq, softirq, steal)
    return sum(map(int, busy)) / _TICKS_PER_SECOND


def _times(pid: int) -> list[int]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return [0]
    # The second field may hold spaces; utime is the 14th field of proc(5).
    return [int(field) for field in stat.rpartition(")")[2].split()[11:15]]


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def rss_kib(pid: int) -> int:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has no memory")
