"""Scenario: peers vanish without a word, in a network namespace (Linux, root)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fakes.model import FakeModel
from tests.fakes.script import Script
from tests.faults.client import Stream, first_text
from tests.faults.crowd import percentile
from tests.faults.fleet import Fleet
from tests.faults.talk import quiet

Figures = dict[str, Any]

_KEEP_ALIVE_SECONDS = 15.0


def can_cut_networks() -> bool:
    """Whether this machine lets us make a network namespace."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    with contextlib.suppress(subprocess.CalledProcessError), _network("probe"):
        return True
    return False


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def _network(name: str) -> Iterator[str]:
    """Give a namespace with a cable to this one; both have an address."""
    space, cable = f"viva-{name}-{os.getpid()}", f"vv{os.getpid() % 100_000}"
    _ip("netns", "add", space)
    try:
        _ip("link", "add", f"{cable}a", "type", "veth", "peer", "name", f"{cable}b")
        _ip("link", "set", f"{cable}b", "netns", space)
        _ip("addr", "add", "10.213.7.1/24", "dev", f"{cable}a")
        _ip("link", "set", f"{cable}a", "up")
        _ip("-n", space, "addr", "add", "10.213.7.2/24", "dev", f"{cable}b")
        _ip("-n", space, "link", "set", f"{cable}b", "up")
        yield space
    finally:
        _ip("netns", "del", space)


def _unplug(space: str) -> None:
    _ip("-n", space, "link", "set", f"vv{os.getpid() % 100_000}b", "down")


async def peers_vanish(
    fleet: Fleet,
    model: FakeModel,
    *,
    peers: int,
    user_timeout: float,
    armed: tuple[str, ...] = (),
    keep_alive: float = _KEEP_ALIVE_SECONDS,
) -> Figures:
    """Peers behind a cut cable are noticed, speaking or silent, and the grace runs."""
    model.scripts = [Script(tokens=100_000, interval_ms=50)]
    settings = {"host": "0.0.0.0", "disconnect_grace_seconds": "0"}
    settings |= {"model_idle_seconds": "600"}
    (server,) = await fleet.start(1, armed=armed, **settings)
    with _network("peers") as space:
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", space, sys.executable, "-m"),
            *("tests.faults.vanishing", str(server.port), str(peers)),
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"reading\n"
            _unplug(space)
            cut_at = time.monotonic()
            async with asyncio.timeout(user_timeout + keep_alive + 15):
                for request in model.requests:
                    await request.closed.wait()
            noticed = [(request.closed_at or 0) - cut_at for request in model.requests]
        finally:
            process.kill()
            await process.wait()
    assert len(noticed) == peers
    assert max(noticed) < user_timeout + keep_alive + 2
    await quiet(fleet.dsn)
    return {
        "peers": peers,
        "noticed_p50_s": percentile(noticed, 0.5),
        "noticed_max_s": percentile(noticed, 1.0),
    }


async def _read_for_ever(port: int, peers: int) -> None:
    """Be the peers: half of them hear tokens, half a silence."""

    async def peer(number: int) -> Stream:
        pause = ",interval_ms=300000" if number % 2 else ""
        stream = await Stream.open(
            port,
            "POST",
            "/viva/chat/stream",
            user=f"peer {number}",
            body={"mensagem": f"peer {number} model:tokens=90000{pause}"},
            host="10.213.7.1",
        )
        return await first_text(stream)

    streams = await asyncio.gather(*(peer(number) for number in range(peers)))
    print("reading", flush=True)
    await asyncio.gather(*(first_text(stream, 10**9) for stream in streams))


if __name__ == "__main__":
    asyncio.run(_read_for_ever(int(sys.argv[1]), int(sys.argv[2])))
