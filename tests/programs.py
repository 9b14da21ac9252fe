"""Programs in processes of their own, ended by their id."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.chat_host import HOST, SECRET

ROOT = Path(__file__).parents[1]
START_SECONDS = 60.0
STOP_SECONDS = 30.0


def free_port() -> int:
    """Find a port that nobody listens on now."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class Program:
    """A process that listens on a port; what it writes is kept."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.port = port
        self.origin = f"http://{HOST}:{port}"
        self.pid = process.pid
        self._output = bytearray()
        self._reading = asyncio.create_task(self._read())

    @property
    def output(self) -> str:
        """What it has written to stdout and stderr until now."""
        return self._output.decode(errors="replace")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(65_536):
            self._output += chunk

    async def listening(self) -> None:
        """Wait until it accepts connections."""
        async with asyncio.timeout(START_SECONDS):
            while True:
                assert self._process.returncode is None, self.output
                try:
                    _, writer = await asyncio.open_connection(HOST, self.port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                return

    async def stopped(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and give the exit status; what hangs is killed, and fails."""
        self._process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._reading
                return await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"did not stop: {self.output}") from None

    async def close(self) -> None:
        """Leave nothing behind."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await self._reading


_TEMPLATE = """
import json, os, signal, sys
from viva_server.cli import main

for line in sys.stdin:
    arguments, environment, files = json.loads(line)
    if not (pid := os.fork()):
        for number, path in enumerate(files):
            flags = os.O_WRONLY if number else os.O_RDONLY
            os.dup2(os.open(path, flags), number)
        sys.stdin = open(0)
        sys.argv[1:] = arguments
        os.environ.clear()
        os.environ.update(environment)
        signal.alarm(60)
        sys.exit(main())
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
_idle_templates: list[subprocess.Popen[str]] = []


def run_command(
    *arguments: str, environment: Mapping[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run `viva-server` in a process of its own, for 60 s at most.

    It is forked from one that has imported everything, which takes most of the time
    of a short command.
    """
    program = [sys.executable, "-c", _TEMPLATE]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    template = (
        _idle_templates.pop()
        if _idle_templates
        else subprocess.Popen(program, cwd=ROOT, **pipes)
    )
    assert template.stdin is not None
    assert template.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
        for path in files:
            path.write_bytes(stdin if path.name == "stdin" else b"")
        order = (arguments, dict(environment), [str(path) for path in files])
        print(json.dumps(order), file=template.stdin, flush=True)
        status = int(template.stdout.readline())
        _idle_templates.append(template)
        _, output, errors = (path.read_bytes() for path in files)
    return subprocess.CompletedProcess(arguments, status, output, errors)


@atexit.register
def _end_templates() -> None:
    for template in _idle_templates:
        template.communicate()


@asynccontextmanager
async def program(
    *arguments: str, port: int, environment: Mapping[str, str]
) -> AsyncIterator[Program]:
    """Run `python …` from the checkout's top until it listens; kill it at the end."""
    kept = {name: value for name in ("PATH", "HOME") if (value := os.environ.get(name))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "dev",
        *arguments,
        cwd=ROOT,
        env={**kept, "VIVA_JWT_SECRET": SECRET, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    running = Program(process, port)
    try:
        await running.listening()
        yield running
    finally:
        await running.close()
