"""Programs in processes of their own, ended by their id."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

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
