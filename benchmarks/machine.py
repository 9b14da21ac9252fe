"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.postgres import Postgres
from benchmarks.processes import OTHER_CORES, SERVER_CORE

_PACKAGES = (
    *("aiohttp", "aiopg", "msgspec", "SQLAlchemy", "uvloop", "fastapi", "uvicorn"),
    *("httptools", "httpx", "openai", "sse-starlette", "asyncpg"),
)


def facts(cluster: Postgres) -> dict[str, Any]:
    """The machine, the programs' versions, and what a durable write costs here."""
    ((version,),) = cluster.query("postgres", "SHOW server_version")
    ((fsync,),) = cluster.query("postgres", "SHOW fsync")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "server_core": SERVER_CORE,
        "other_cores": OTHER_CORES,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgresql": version,
        "fsync": fsync,
        "fdatasync_us": _fdatasync_us(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _fdatasync_us(times: int = 200) -> float:
    with tempfile.TemporaryFile() as file:
        started = time.perf_counter()
        for _ in range(times):
            os.pwrite(file.fileno(), b"x" * 8192, 0)
            os.fdatasync(file.fileno())
        return round((time.perf_counter() - started) / times * 1e6, 1)
