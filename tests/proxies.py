"""nginx and HAProxy as docs/deploy configures them; only ports and paths differ."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.programs import ROOT, Program, free_port

CONFIGURATIONS = ROOT / "docs/deploy"
LOG = "access.log"


def substituted(name: str, changes: Mapping[str, str]) -> str:
    """Read a configuration of the documents; each text to change stands in it."""
    text = (CONFIGURATIONS / name).read_text("utf-8")
    for old, new in changes.items():
        assert old in text, f"{old} is not in {name}"
        text = text.replace(old, new)
    return text


def add_certificate(folder: Path) -> None:
    """Make a certificate and its key, apart and in one file."""
    certificate, key = folder / "fullchain.pem", folder / "privkey.pem"
    command = "openssl req -x509 -nodes -days 2 -subj /CN=localhost -newkey ec"
    command += " -pkeyopt ec_paramgen_curve:prime256v1"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    both = certificate.read_text() + key.read_text()
    (folder / "haproxy.pem").write_text(both)


def nginx_configuration(folder: Path, port: int, upstreams: Sequence[int]) -> str:
    changes = {
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "/etc/ssl/viva/": f"{folder}/",
        "/var/log/nginx/": f"{folder}/",
        "/run/nginx.pid": f"{folder}/nginx.pid",
        # Compiled in as /var/lib/nginx, which is root's.
        "http {": f"http {{\n    client_body_temp_path {folder}/body;",
    }
    if os.geteuid() != 0:
        changes["user www-data;"] = ""
    return substituted("nginx.conf", changes | _ports(upstreams))


def haproxy_configuration(folder: Path, port: int, upstreams: Sequence[int]) -> str:
    changes = {
        "bind :443 ": f"bind 127.0.0.1:{port} ",
        "/etc/ssl/viva/": f"{folder}/",
        "log /dev/log local0": "log stdout format raw local0",
    }
    if os.geteuid() != 0:
        changes |= {"    user haproxy\n": "", "    group haproxy\n": ""}
    return substituted("haproxy.cfg", changes | _ports(upstreams))


def _ports(upstreams: Sequence[int]) -> dict[str, str]:
    return {
        f"127.0.0.1:{8081 + number}": f"127.0.0.1:{port}"
        for number, port in enumerate(upstreams)
    }


def commands(name: str, folder: Path, port: int, upstreams: Sequence[int]) -> list[str]:
    """Write a proxy's configuration into the folder; give what runs it there."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert path is not None, f"{name} is missing: run .ci/packages.sh"
    add_certificate(folder)
    file = folder / f"{name}.conf"
    if name == "nginx":
        file.write_text(nginx_configuration(folder, port, upstreams))
        foreground = ["-g", "daemon off;", "-e", str(folder / "error.log")]
        return [path, "-p", str(folder), "-c", str(file), *foreground]
    file.write_text(haproxy_configuration(folder, port, upstreams))
    return [path, "-db", "-f", str(file)]


class Proxy:
    """A running proxy; `origin` is its https address."""

    def __init__(self, name: str, folder: Path, running: Program) -> None:
        self.name = name
        self.port = running.port
        self.origin = f"https://127.0.0.1:{running.port}"
        self._folder = folder
        self._running = running

    @property
    def log(self) -> str:
        """What it has noted about requests until now."""
        file = self._folder / LOG
        written = file.read_text("utf-8", "replace") if file.exists() else ""
        return written + self._running.output


@asynccontextmanager
async def proxying(
    name: str, folder: Path, upstreams: Sequence[int]
) -> AsyncIterator[Proxy]:
    """Run a proxy in front of the processes at these ports of 127.0.0.1."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *commands(name, folder, port, upstreams),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    running = Program(process, port)
    try:
        await running.listening()
        yield Proxy(name, folder, running)
        await running.stopped()
    finally:
        await running.close()
